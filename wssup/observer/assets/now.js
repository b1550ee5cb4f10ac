// The figures of now, at the top of the page.

import { $, say, set, show, svg } from "./dom.js";
import * as figures from "./figures.js";
import * as geometry from "./geometry.js";
import { look } from "./slots.js";

const { count, compact, bytes, milliseconds } = figures;
/** Seconds that count as of late. */
const LATE = 60;

function valueAt(status, path) {
  return path.split(".").reduce((found, key) => found?.[key], status);
}

/**
 * Show a state.
 * @param {Object} status the document.
 * @param {import("./history.js").History} history with this state as its last.
 * @param {boolean} wanting whether refusals are a problem.
 */
export function drawNow(status, history, wanting) {
  say($("name"), status.name);
  say($("state"), status.state);
  set(
    $("state"),
    "class",
    `pill is-${{ running: "ok", stopping: "warn", draining: "warn" }[status.state] ?? "busy"}`,
  );
  set($("generation-colour"), "class", `swatch ${look(status.generation)}`);
  say($("uptime"), figures.span(history.last.at - status.started_at));
  say($("bind"), status.bind.join("  "));
  say($("version"), `wssup ${status.version}`);
  for (const node of document.querySelectorAll(".top [data-path], .now [data-path]")) {
    show(node, valueAt(status, node.dataset.path), count(valueAt(status, node.dataset.path)));
  }
  const before = history.since(LATE);
  const trend = status.connections.active - before.totals.active;
  const change = trend === 0 ? "unchanged" : `${trend < 0 ? "−" : "+"}${count(Math.abs(trend))}`;
  say(
    $("trend"),
    before === history.last
      ? ""
      : `${change} in ${figures.about(Math.round(history.last.at - before.at))}`,
  );
  const { open } = status.connections;
  const used = status.capacity ? open / status.capacity : 0;
  say($("used"), figures.percent(used));
  say($("room"), compact(Math.max(0, status.capacity - open)));
  set($("meter"), "class", `meter is-${used >= 0.98 ? "bad" : used >= 0.9 ? "warn" : "ok"}`);
  set($("meter"), "aria-valuenow", Math.round(used * 100));
  set($("meter"), "aria-valuetext", `${figures.percent(used)} of ${count(status.capacity)}`);
  $("meter").firstElementChild.style.width = `${Math.min(100, used * 100)}%`;
  const rate = (key) => history.rate(key);
  const sum = (a, b) => (figures.known(a) && figures.known(b) ? a + b : null);
  say($("opened"), compact(rate("accepted")));
  say($("closed-rate"), compact(rate("closed")));
  say($("messages"), compact(sum(rate("messagesIn"), rate("messagesOut"))));
  say($("messages-in"), compact(rate("messagesIn")));
  say($("messages-out"), compact(rate("messagesOut")));
  say($("traffic"), bytes(sum(rate("bytesIn"), rate("bytesOut"))));
  say($("bytes-in"), bytes(rate("bytesIn")));
  say($("bytes-out"), bytes(rate("bytesOut")));
  const ping = history.last.pingRecent;
  say($("ping"), ping ? milliseconds(ping.p50) : "–");
  say(
    $("ping-more"),
    ping ? `p99 ${milliseconds(ping.p99)}, last minute` : "no pings in the last minute",
  );
  say($("lag"), milliseconds(history.last.lag));
  say($("lag-middle"), milliseconds(history.last.lagMiddle));
  const away = history.rise("turnedAway", LATE);
  say($("turned-away"), count(away));
  set($("turned"), "class", `tile-figure${wanting ? " is-warn" : ""}`);
}

/** What the small charts show: values of each sample. */
const SPARKS = {
  active: (history) => history.samples.map((some) => some.totals.active),
  opened: (history) => history.rates("accepted"),
  messages: (history) => sums(history.rates("messagesIn"), history.rates("messagesOut")),
  traffic: (history) => sums(history.rates("bytesIn"), history.rates("bytesOut")),
  ping: (history) => history.samples.map((some) => some.pingRecent?.p50 ?? null),
  lag: (history) => history.samples.map((some) => some.lag),
  turned: (history) => history.rates("turnedAway"),
};

const sums = (some, more) =>
  some.map((value, index) => (value === null ? null : value + more[index]));

/** The small charts of the figures. */
export function drawSparks(history, view) {
  const { samples } = history;
  const [from, to] = view.domain(history);
  for (const node of document.querySelectorAll("[data-spark]")) {
    const values = SPARKS[node.dataset.spark](history);
    const shown = values.filter((value, index) => value !== null && samples[index].at >= from);
    const most = Math.max(...shown, 0);
    if (!most) {
      node.replaceChildren();
      continue;
    }
    set(node, "viewBox", "0 0 200 36");
    set(node, "preserveAspectRatio", "none");
    const x = (index) => Math.max(0, ((samples[index].at - from) / (to - from)) * 200);
    const y = (index) => 35 - (values[index] / most) * 33;
    const spans = geometry.runs(samples, from, (index) => values[index] !== null);
    node.replaceChildren(
      svg("path", { class: "area c-a", d: geometry.area(spans, x, () => 36, y) }),
      svg("path", { class: "line c-a", d: geometry.line(spans, x, y) }),
    );
  }
}
