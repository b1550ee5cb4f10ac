// The slots: what each does now, and how many connections it had. Up to eight are rows with a chart
// of each; more are a grid and a map of all (heat.js).

import { el, list, say, set, show, svg } from "./dom.js";
import { compact, count, milliseconds } from "./figures.js";
import * as geometry from "./geometry.js";
import { acceptor } from "./verdict.js";

/** So many slots have a row each. */
export const ROWS = 8;
const WIDTH = 600;
const HEIGHT = 44;

/** The class of a generation's colour: four take turns, so that neighbours differ. */
export const look = (generation) => `g-${(generation + 3) % 4}`;

/** What a slot is like: a level, a sign that needs no colour, and a word. */
export function condition(slot) {
  if (slot.state === "failed") return ["bad", "✕", "failed"];
  if (slot.workers.some((one) => one.stalled)) return ["bad", "✕", "stalled"];
  if (slot.state === "backoff") return ["warn", "▲", "backoff"];
  if (slot.workers.some((one) => one.stale)) return ["warn", "▲", "stale"];
  if (["parked", "empty"].includes(slot.state)) return ["idle", "○", slot.state];
  if (slot.state === "ready") return ["ok", "●", "ready"];
  if (slot.state === "draining") return ["busy", "◐", "draining"];
  return [acceptor(slot) ? "busy" : "warn", "◐", slot.state];
}

const active = (slot) => slot.workers.reduce((sum, one) => sum + (one.active ?? 0), 0);
const lag = (slot) => slot.workers.reduce((most, one) => Math.max(most, one.lag_ms ?? -1), -1);

/** The workers of a slot in words: gen 7 holding 1,204 → gen 8 ready 3,802. */
function* parts(slot) {
  const lent = slot.lent_to !== null && slot.lent_to !== undefined;
  if (slot.workers.length === 0 || (lent && !acceptor(slot))) {
    yield { key: "none", look: "", text: lent ? `slot ${slot.lent_to} serves its listeners` : "no worker" };
  }
  const several = slot.workers.length > 1;
  for (const worker of [...slot.workers].sort((a, b) => a.generation - b.generation)) {
    yield {
      key: worker.serial ?? worker.pid, look: look(worker.generation),
      text: `gen ${worker.generation}` + (several ? ` ${worker.state} ${count(worker.active ?? 0)}` : ""),
    };
  }
}

/** The rows of up to eight slots. */
export class SlotRows {
  /**
   * @param {HTMLUListElement} node the list.
   * @param {import("./history.js").History} history
   * @param {import("./view.js").View} view
   */
  constructor(node, history, view) {
    this.node = node;
    this.history = history;
    this.view = view;
    const share = (event) => {
      const box = event.target.closest(".spark")?.getBoundingClientRect();
      if (box) view.pointAt((event.clientX - box.left) / box.width);
      else view.point(null);
    };
    node.addEventListener("pointermove", share);
    node.addEventListener("pointerdown", share);
    node.addEventListener("pointerleave", () => view.point(null));
  }

  /** Show this status. */
  draw(status) {
    const { history, view } = this;
    const { samples } = history;
    const [from, to] = view.domain(history);
    const first = Math.max(0, samples.findIndex((one) => one.at >= from) - 1);
    let most = 1;
    for (let index = first; index < samples.length; index += 1) {
      for (const slot of samples[index].slots) {
        if (slot) most = Math.max(most, slot.reduce((sum, [, some]) => sum + some, 0));
      }
    }
    const x = (index) => Math.max(0, ((samples[index].at - from) / (to - from)) * WIDTH);
    const y = (value) => HEIGHT - (value / most) * (HEIGHT - 2);
    list(this.node, status.slots, (slot) => slot.slot, row, (node, slot) => {
      const [level, sign, word] = condition(slot);
      set(node, "class", `slot is-${level}`);
      const [, state, figure, number, slow] = node.children;
      say(state.querySelector(".sign"), sign);
      say(state.querySelector(".word"), word);
      list(state.querySelector(".gens"), [...parts(slot)], (one) => one.key, () => el("span"), (part, one) => {
        set(part, "class", `gen ${one.look}`);
        say(part, one.text);
      });
      this.#figure(figure, slot.slot, first, x, y);
      const at = view.points ? samples[view.index(history)].slots[slot.slot] : null;
      show(number.firstElementChild, active(slot), count(at ? at.reduce((sum, [, some]) => sum + some, 0) : active(slot)));
      say(slow, lag(slot) < 0 ? "–" : milliseconds(lag(slot)));
    });
  }

  #figure(node, slot, first, x, y) {
    const { samples } = this.history;
    const generations = new Set();
    for (let index = first; index < samples.length; index += 1) {
      for (const [generation] of samples[index].slots[slot] ?? []) generations.add(generation);
    }
    const base = new Array(samples.length).fill(0);
    const shapes = [...generations].sort((a, b) => a - b).map((generation) => {
      const value = samples.map((one) => one.slots[slot]?.find(([number]) => number === generation)?.[1]);
      const below = [...base];
      value.forEach((some, index) => { base[index] += some ?? 0; });
      const spans = geometry.runs(samples, samples[first].at, (index) => value[index] !== undefined);
      return svg("path", { class: `stack ${look(generation)}`, d: geometry.area(spans, x, (index) => y(below[index]), (index) => y(below[index] + value[index])) });
    });
    if (this.view.points) {
      const place = x(this.view.index(this.history));
      shapes.push(svg("line", { class: "cursor", x1: place, x2: place, y1: 0, y2: HEIGHT }));
    }
    node.replaceChildren(...shapes);
  }
}

function row(slot) {
  return el("li", { class: "slot" },
    el("span", { class: "number" }, el("span", { class: "hidden" }, "Slot "), String(slot.slot)),
    el("span", { class: "state" },
      el("span", { class: "sign", "aria-hidden": "true" }), el("span", { class: "word" }), el("span", { class: "gens" })),
    svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }),
    el("span", { class: "active" }, el("data", {}), el("span", { class: "hidden" }, " connections")),
    el("span", { class: "lag", title: "Loop lag: how late the event loop is" }));
}

/**
 * The grid of more than eight slots.
 * @param {HTMLUListElement} node the list.
 * @param {Object} status the document.
 */
export function drawTiles(node, status) {
  const most = Math.max(1, ...status.slots.map(active));
  list(node, status.slots, (slot) => slot.slot, tile, (item, slot) => {
    const [level, sign, word] = condition(slot);
    set(item, "class", `tile is-${level}`);
    const [number, mark, value, bars, told] = item.children;
    say(number, slot.slot);
    say(mark, level === "ok" ? "" : sign);
    show(value, active(slot), compact(active(slot)));
    const workers = [...slot.workers].filter((one) => one.active !== undefined).sort((a, b) => a.generation - b.generation);
    list(bars, workers, (one) => one.serial ?? one.pid, () => el("i"), (bar, one) => {
      set(bar, "class", look(one.generation));
      bar.style.height = `${(100 * one.active) / most}%`;
    });
    const text = [...parts(slot)].map((one) => one.text).join(", ");
    say(told, `: ${word}, ${count(active(slot))} connections, ${text}`);
    set(item, "title", `Slot ${slot.slot}: ${word}, ${count(active(slot))} connections, ${text}`);
  });
}

function tile() {
  return el("li", {}, el("span", { class: "number" }), el("span", { class: "sign", "aria-hidden": "true" }),
    el("data", { "aria-hidden": "true" }), el("span", { class: "bars", "aria-hidden": "true" }), el("span", { class: "hidden" }));
}

const COLUMNS = [
  ["Slot", (slot) => slot.slot], ["State", (slot, one) => (one ? [one.stalled ? "stalled" : one.stale ? "stale" : one.state] : condition(slot)[2])],
  ["Generation", (_, one) => one?.generation ?? "–"], ["Process", (_, one) => one?.pid ?? "–"],
  ["Active", (_, one) => count(one?.active)], ["Accepted", (_, one) => count(one?.accepted)],
  ["Moved in", (_, one) => count(one?.moved_in)], ["Moved out", (_, one) => count(one?.moved_out)],
  ["Lag", (_, one) => milliseconds(one?.lag_ms)], ["Longest lag", (_, one) => milliseconds(one?.lag_max_ms)],
  ["Send queue", (_, one) => (one ? count(one.send_queue_bytes) : "–")], ["Errors", (_, one) => count(one?.handler_errors)],
];

/** The table of all workers. */
export function drawWorkers(head, body, status) {
  list(head, COLUMNS, ([name]) => name, ([name]) => el("th", { scope: "col" }, name), () => {});
  const rows = status.slots.flatMap((slot) => (slot.workers.length ? slot.workers.map((one) => [slot, one]) : [[slot, null]]));
  list(body, rows, ([slot, one]) => `${slot.slot} ${one?.pid ?? ""}`, () => el("tr"), (node, [slot, one]) => {
    list(node, COLUMNS, ([name]) => name, ([name]) => (name === "Slot" ? el("th", { scope: "row" }) : el("td")),
      (cell, [, value]) => say(cell, value(slot, one)));
  });
}
