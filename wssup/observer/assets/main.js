// The dashboard: hears the observer, remembers, and shows.

import { TimeChart } from "./chart.js";
import { $, el, list, say, set, show, svg } from "./dom.js";
import * as figures from "./figures.js";
import * as geometry from "./geometry.js";
import { HeatMap } from "./heat.js";
import { History } from "./history.js";
import { condition, drawTiles, drawWorkers, look, ROWS, SlotRows } from "./slots.js";
import { Stream } from "./stream.js";
import { drawFacts, drawLifetimes, drawReasons, instanceFacts, topicFacts } from "./tables.js";
import { verdict } from "./verdict.js";
import { View } from "./view.js";
import { mark, sentence } from "./words.js";

const { count, compact, bytes, milliseconds } = figures;
const perSecond = (value) => (figures.known(value) ? `${compact(value)}/s` : "–");
const bytesPerSecond = (value) => (figures.known(value) ? `${bytes(value)}/s` : "–");
/** Events that are kept. */
const EVENTS = 100;
/** Seconds that count as of late. */
const LATE = 60;
const SIGNS = { ok: "✓", busy: "◐", warn: "▲", bad: "✕" };

const history = new History();
const view = new View();
let status = null;
let events = [];
let link = { open: false, retryAt: null, refused: false };
let heardAt = 0;
let told = "";
let asked = false;

// What it shows over time.

const one = (key, name, style, values, more = {}) => ({ key, name, look: style, values, ...more });
const of = (value) => history.samples.map(value);

function byGeneration() {
  const [from] = view.domain(history);
  const numbers = new Set(history.samples.filter((some) => some.at >= from).flatMap((some) => [...some.generations.keys()]));
  return [...numbers].sort((a, b) => a - b).map((number) =>
    one(number, `generation ${number}`, look(number), of((some) => some.generations.get(number) ?? null)));
}

const shared = { history, view };
const charts = [
  new TimeChart($("chart-connections"), { ...shared, series: byGeneration, stacked: true, told: true, format: count, axis: compact }),
  new TimeChart($("chart-opened"), { ...shared, format: perSecond, axis: compact, series: () => [
    one("in", "opened", "c-a", history.rates("accepted"), { filled: true }), one("out", "closed", "c-b", history.rates("closed"))] }),
  new TimeChart($("chart-messages"), { ...shared, format: perSecond, axis: compact, series: () => [
    one("in", "in", "c-a", history.rates("messagesIn"), { filled: true }), one("out", "out", "c-b", history.rates("messagesOut"))] }),
  new TimeChart($("chart-traffic"), { ...shared, format: bytesPerSecond, axis: bytes, series: () => [
    one("in", "in", "c-a", history.rates("bytesIn"), { filled: true }), one("out", "out", "c-b", history.rates("bytesOut"))] }),
  new TimeChart($("chart-ping"), { ...shared, format: milliseconds, log: true, empty: "no pings in this time", series: () => [
    one("p50", "p50", "c-a", of((some) => some.pingRecent?.p50 ?? null)), one("p99", "p99", "c-c", of((some) => some.pingRecent?.p99 ?? null))] }),
  new TimeChart($("chart-lag"), { ...shared, format: milliseconds, log: true, series: () => [
    one("middle", "median of the workers", "c-a", of((some) => some.lagMiddle)), one("most", "slowest", "c-c", of((some) => some.lag))] }),
];
const rows = new SlotRows($("slot-rows"), history, view);
const heat = new HeatMap($("heat"), $("heat-legend"), history, view);

// What it shows of now.

const recent = () => ({
  refused: history.rises("refused", LATE), failed: history.rises("failed", LATE),
  handlerErrors: history.rise("handlerErrors", LATE),
});

function valueAt(path) {
  return path.split(".").reduce((found, key) => found?.[key], status);
}

function drawNow() {
  say($("name"), status.name);
  say($("state"), status.state);
  set($("state"), "class", `pill is-${{ running: "ok", stopping: "warn", draining: "warn" }[status.state] ?? "busy"}`);
  set($("generation-colour"), "class", `swatch ${look(status.generation)}`);
  say($("uptime"), figures.span(history.last.at - status.started_at));
  say($("bind"), status.bind.join("  "));
  say($("version"), `wssup ${status.version}`);
  for (const node of document.querySelectorAll(".top [data-path], .now [data-path]")) {
    show(node, valueAt(node.dataset.path), count(valueAt(node.dataset.path)));
  }
  const before = history.since(LATE);
  const trend = status.connections.active - before.totals.active;
  const change = trend === 0 ? "unchanged" : `${trend < 0 ? "−" : "+"}${count(Math.abs(trend))}`;
  say($("trend"), before === history.last ? "" : `${change} in ${figures.about(Math.round(history.last.at - before.at))}`);
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
  say($("ping-more"), ping ? `p99 ${milliseconds(ping.p99)}, last minute` : "no pings in the last minute");
  say($("lag"), milliseconds(history.last.lag));
  say($("lag-middle"), milliseconds(history.last.lagMiddle));
  const away = history.rise("turnedAway", LATE);
  say($("turned-away"), count(away));
  set($("turned"), "class", `tile-figure${Object.values(recent().refused).some(Boolean) ? " is-warn" : ""}`);
}

const SPARKS = {
  active: () => of((some) => some.totals.active),
  opened: () => history.rates("accepted"),
  messages: () => { const out = history.rates("messagesOut"); return history.rates("messagesIn").map((some, index) => (some === null ? null : some + out[index])); },
  traffic: () => { const out = history.rates("bytesOut"); return history.rates("bytesIn").map((some, index) => (some === null ? null : some + out[index])); },
  ping: () => of((some) => some.pingRecent?.p50 ?? null),
  lag: () => of((some) => some.lag),
  turned: () => history.rates("turnedAway"),
};

function drawSparks() {
  const { samples } = history;
  const [from, to] = view.domain(history);
  for (const node of document.querySelectorAll("[data-spark]")) {
    const values = SPARKS[node.dataset.spark]();
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
      svg("path", { class: "line c-a", d: geometry.line(spans, x, y) }));
  }
}

function drawVerdict() {
  const found = verdict(status, recent());
  set($("verdict"), "class", `verdict is-${found.level}`);
  say($("sign"), SIGNS[found.level]);
  say($("headline"), found.headline);
  list($("problems"), found.problems, (some) => some.text.replaceAll(/[\d,.]+/g, "#"), () => el("li", {}, el("strong"), el("span")), (node, some) => {
    set(node, "class", `is-${some.level}`);
    say(node.firstElementChild, some.text);
    say(node.lastElementChild, some.more ?? "");
  });
  document.title = `${SIGNS[found.level]} ${compact(status.connections.active)} · ${status.name}`;
  // Said aloud when something new is wrong or well again, not with each number that changes.
  const kinds = [found.level, ...found.problems.map((some) => some.text)].join("|").replaceAll(/[\d,.]+/g, "");
  if (kinds !== told) {
    if (told) announce([found.headline, ...found.problems.map((some) => some.text)].join(". "));
    told = kinds;
  }
}

function announce(text) {
  say($("news"), text);
}

function drawSlots() {
  const small = status.slots.length <= ROWS;
  $("slot-rows").hidden = !small;
  $("slot-map").hidden = small;
  // The map needs the whole width.
  set($("slots-card"), "class", `card slots ${small ? "wide" : "full"}`);
  set($("instance-card"), "class", `card${small ? "" : " full"}`);
  set($("instance"), "class", small ? null : "row");
  const kinds = new Map();
  for (const slot of status.slots) {
    const [, , word] = condition(slot);
    kinds.set(word, (kinds.get(word) ?? 0) + 1);
  }
  say($("slots-note"), [...kinds].map(([word, number]) => `${count(number)} ${word}`).join(", "));
  if (small) rows.draw(status);
  else {
    drawTiles($("slot-tiles"), status);
    heat.draw(status.slots.length);
  }
  if ($("workers").closest("details").open) drawWorkers($("workers-head"), $("workers"), status);
}

function drawCounts() {
  const connections = status.connections;
  for (const [id, kind, key] of [["refused", "refused", "refused_by_reason"], ["failed", "failed", "handshake_failures_by_reason"], ["closed", "closed", "closed_by_reason"]]) {
    const late = history.rises(kind, LATE);
    drawReasons($(id), Object.entries(connections[key]).map(([name, total]) =>
      ({ path: `connections.${key}.${name}`, name, total, recent: late[name] })), $(`no-${id}`));
  }
  if (status.lifetimes) {
    drawLifetimes($("lifetimes"), $("lifetimes-table"), status.lifetimes);
    const { bounds_s: bounds, counts } = status.lifetimes;
    const middle = figures.quantile(bounds, counts, 0.5);
    say($("lifetimes-note"), middle === null ? "none has ended yet" : `half lived less than ${figures.about(middle)}`);
  }
  drawFacts($("instance"), instanceFacts(status));
  const topics = topicFacts(status);
  $("topics-card").hidden = topics === null;
  if (topics) drawFacts($("topics"), topics);
}

function drawEvents() {
  $("no-events").hidden = events.length > 0;
  $("events").hidden = events.length === 0;
  list($("events"), [...events].reverse(), (event) => event.seq, (event) => el("li", { class: `is-${{ warning: "warn", error: "bad", critical: "bad" }[event.level] ?? "info"}` },
    el("time", { datetime: new Date(event.at * 1000).toISOString(), title: new Date(event.at * 1000).toLocaleString() }, figures.clock(event.at)),
    el("span", {}, el("span", { class: "hidden" }, event.level === "info" ? "" : `${event.level}: `), sentence(event))), () => {});
}

function drawLink() {
  const { open, retryAt, refused } = link;
  document.body.classList.toggle("stale", !open && status !== null);
  set($("live"), "class", `live${open ? " is-open" : ""}`);
  say($("live-text"), open ? "live" : status === null ? "connecting" : "disconnected");
  const wait = retryAt === null ? 0 : Math.ceil((retryAt - performance.now()) / 1000);
  $("lost").hidden = open || retryAt === null;
  const seconds = heardAt ? (performance.now() - heardAt) / 1000 : 0;
  const age = seconds >= 2 ? `The figures are ${figures.span(seconds)} old. ` : "";
  const why = refused ? "It is starting, or has as many dashboards as it takes. " : "";
  say($("lost-text"), why + age + (wait > 0 ? `Trying again in ${wait} s.` : "Trying again …"));
}

function draw() {
  asked = false;
  if (status === null) return;
  document.body.classList.remove("waiting");
  drawNow();
  drawVerdict();
  drawSparks();
  for (const chart of charts) chart.draw();
  drawSlots();
  drawCounts();
  document.documentElement.dataset.at = history.last.at;
}

function drawSoon() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(draw);
}

// What it hears, and what its reader wants.

const stream = new Stream("events", {
  state({ at, status: heard }) {
    // Another start of the instance counts its events anew.
    if (status !== null && heard.started_at !== status.started_at) events = events.filter((event) => event.at >= heard.started_at);
    status = heard;
    heardAt = performance.now();
    if (history.add(at, heard)) drawSoon();
  },
  lifecycle(event) {
    if (events.some((known) => known.seq === event.seq && known.at === event.at)) return;
    events = [...events, event].slice(-EVENTS);
    view.marks = events.flatMap((some) => (mark(some) !== null ? [{ at: some.at, level: some.level, text: mark(some) }] : []));
    drawEvents();
  },
  changed(now) {
    if (now.open !== link.open && status !== null) announce(now.open ? "Connected again" : "Disconnected from the observer");
    link = now;
    drawLink();
  },
});

$("retry").addEventListener("click", () => stream.connect());
$("spans").addEventListener("change", (event) => view.setSpan(Number(event.target.value)));
$("workers").closest("details").addEventListener("toggle", drawSoon);
view.listen(() => {
  if (status === null) return;
  drawSparks();
  drawSlots();
});
new ResizeObserver(drawSoon).observe($("heat"));
setInterval(() => { if (!link.open) drawLink(); }, 1000);

const theme = $("theme");
function dress() {
  set(document.documentElement, "data-theme", theme.value || null);
  for (const chart of charts) chart.draw(true);
  drawSoon();
}
try {
  theme.value = localStorage.getItem("wssup-theme") ?? "";
} catch {
  // Storage may be forbidden; the choice then holds for this page.
}
theme.addEventListener("change", () => {
  try {
    localStorage.setItem("wssup-theme", theme.value);
  } catch {
    // As above.
  }
  dress();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
dress();
stream.connect();
