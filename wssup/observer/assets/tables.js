// What is counted by reason, and the ages at which connections end.

import { el, list, say, set, show } from "./dom.js";
import { about, count, percent, plural, words } from "./figures.js";

/**
 * A table of reasons: how often since the start, and how often of late. Reasons that never were are
 * left out.
 * @param {HTMLTableSectionElement} body
 * @param {{path: string, name: string, total: number, recent: number}[]} reasons `path` in the document.
 * @param {HTMLElement} none shown if there are none.
 */
export function drawReasons(body, reasons, none) {
  const there = reasons.filter((one) => one.total > 0).sort((a, b) => b.total - a.total || a.path.localeCompare(b.path));
  none.hidden = there.length > 0;
  body.parentElement.hidden = there.length === 0;
  const most = there.length ? there[0].total : 1;
  list(body, there, (one) => one.path, reason, (row, one) => {
    const [name, total, recent] = row.children;
    say(name.firstElementChild, words(one.name));
    // On a scale of roots, so that one in a thousand is still a bar.
    name.lastElementChild.style.width = `${100 * Math.sqrt(one.total / most)}%`;
    show(total.firstElementChild, one.total, count(one.total));
    say(recent, one.recent ? `+${count(one.recent)}` : "");
  });
}

function reason(one) {
  return el("tr", {}, el("th", { scope: "row" }, el("span"), el("i", { class: "bar" })),
    el("td", {}, el("data", { "data-path": one.path })), el("td", { class: "recent" }));
}

/**
 * How long connections lived, as bars.
 * @param {HTMLElement} bars of the bars.
 * @param {HTMLTableSectionElement} body the same as a table.
 * @param {{bounds_s: number[], counts: number[]}} lifetimes of the document.
 */
export function drawLifetimes(bars, body, lifetimes) {
  const { bounds_s: bounds, counts } = lifetimes;
  const total = counts.reduce((sum, some) => sum + some, 0);
  const most = Math.max(1, ...counts);
  const items = counts.map((value, index) => ({
    index, value,
    name: index < bounds.length ? `${index ? about(bounds[index - 1]) : "0"} to ${about(bounds[index])}` : `over ${about(bounds.at(-1))}`,
  }));
  list(bars, items, (one) => one.index, () => el("i", {}, el("b")), (bar, one) => {
    bar.firstElementChild.style.height = `${(100 * one.value) / most}%`;
    set(bar, "title", `${one.name}: ${count(one.value)} (${percent(total ? one.value / total : 0)})`);
  });
  list(body, items, (one) => one.index, (one) => el("tr", {}, el("th", { scope: "row" }, one.name), el("td"), el("td")), (row, one) => {
    say(row.children[1], count(one.value));
    say(row.children[2], percent(total ? one.value / total : 0));
  });
}

/**
 * Facts in pairs: a <dl>.
 * @param {HTMLDListElement} node
 * @param {[string, string, string?, number?][]} facts name, text, and if it is a number of the
 *   document its path and value.
 */
export function drawFacts(node, facts) {
  list(node, facts, ([name]) => name, ([name, , path]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, path ? el("data", { "data-path": path }) : el("span"))), (pair, [, text, path, value]) => {
    const place = pair.lastElementChild.firstElementChild;
    if (path) show(place, value, text);
    else say(place, text);
  });
}

/** What happened to the instance as a whole. */
export function instanceFacts(status) {
  const { handoff, last_reload: last } = status;
  const unmoved = Object.entries(handoff.refused_by_reason).filter(([, value]) => value);
  const pause = handoff.pause_ms;
  const causes = Object.entries(status.restarts_by_reason ?? {}).filter(([, value]) => value);
  return [
    ["Generation", count(status.generation), "generation", status.generation],
    ["Last reload", last ? `${words(last.outcome)}${last.generation ? `, generation ${last.generation}` : ""}${last.seconds ? `, ${last.seconds.toFixed(1)} s` : ""}` : "none yet"],
    ["Its connections", last && last.moved !== null ? `${count(last.moved)} moved, ${count(last.disconnected)} disconnected` : "–"],
    ["Moved since start", count(handoff.moved), "handoff.moved", handoff.moved],
    ["Not moved", unmoved.length ? unmoved.map(([name, value]) => `${words(name)} ${count(value)}`).join(", ") : "none"],
    ["Pause p50 / p99 / max", handoff.moved ? `${pause.p50.toFixed(1)} / ${pause.p99.toFixed(1)} / ${pause.max.toFixed(1)} ms` : "–"],
    ["Workers restarted", count(status.restarts), "restarts", status.restarts],
    ["Why", causes.length ? causes.map(([name, value]) => `${words(name)} ${count(value)}`).join(", ") : "–"],
    ["Errors of the application", count(status.connections.handler_errors), "connections.handler_errors", status.connections.handler_errors],
  ];
}

/** What topics do; null if nobody uses them. */
export function topicFacts(status) {
  const { topics } = status;
  if (!topics || !(topics.subscriptions || topics.published || topics.bridge)) return null;
  const facts = [
    ["Subscriptions", count(topics.subscriptions), "topics.subscriptions", topics.subscriptions],
    ["Published", count(topics.published), "topics.published", topics.published],
    ["Delivered", count(topics.delivered), "topics.delivered", topics.delivered],
    ["Dropped: slow subscriber", count(topics.dropped), "topics.dropped", topics.dropped],
    ["Recovered / not", `${count(topics.recovered)} / ${count(topics.not_recovered)}`],
  ];
  const { bridge } = topics;
  if (bridge) {
    facts.push(
      ["Bridge", `${words(bridge.stalled ? "stalled" : bridge.state)}${bridge.reconnects ? `, ${plural(bridge.reconnects, "reconnect")}` : ""}`],
      ["Bridge sent / received", `${count(bridge.sent)} / ${count(bridge.received)}`],
      ["Bridge lost / missed", `${count(bridge.lost)} / ${count(bridge.missed)}`],
    );
  }
  return facts;
}
