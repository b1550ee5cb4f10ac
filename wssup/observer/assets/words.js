// Lifecycle events in words. A pure function.

import { count, known, milliseconds, plural, span, words } from "./figures.js";

const who = (e) =>
  [
    known(e.slot) ? `slot ${e.slot}` : "",
    known(e.gen) ? `generation ${e.gen}` : "",
    known(e.pid) ? `process ${e.pid}` : "",
  ]
    .filter(Boolean)
    .join(", ");
const because = (text) => (text ? `: ${text}` : "");

const SENTENCES = {
  starting: (e) => `Starts ${e.app ?? ""}`,
  running: (e) => `Runs with ${plural(e.workers, "worker")}`,
  stopping: (e) => `Stops (${words(e.how ?? "")})`,
  stopped: () => "Stopped",
  worker_ready: (e) => `Worker ready: ${who(e)}`,
  worker_ended: (e) => `Worker ended: ${who(e)}`,
  worker_lost: (e) =>
    `Worker lost: ${who(e)}${because(e.reason)}` +
    (e.lost ? `; ${plural(e.lost, "connection")} lost` : ""),
  worker_stalled: (e) => `Worker stalled: ${who(e)}`,
  worker_recovered: (e) => `Worker recovered: ${who(e)}`,
  worker_due: (e) => `Worker is due for recycling: ${who(e)}${because(words(e.reason ?? ""))}`,
  worker_recycled: (e) => `Worker recycled: ${who(e)}`,
  worker_hung: (e) => `Worker hangs, and is ended: ${who(e)}`,
  slot_failed: (e) => `Slot ${e.slot} failed${because(e.reason)}`,
  listeners_lent: (e) =>
    `Slot ${e.slot} lends its listeners${known(e.to) ? ` to slot ${e.to}` : ""}`,
  reload_started: (e) => `Reload to generation ${e.gen} begins`,
  reload_phase: (e) => `Reload: ${words(e.phase ?? "")}`,
  reload_done: (e) =>
    `Reload done: generation ${e.gen} serves; ` +
    `${count(e.moved)} moved, ${count(e.disconnected)} disconnected` +
    (known(e.pause_p99_ms) ? `, pause p99 ${milliseconds(e.pause_p99_ms)}` : ""),
  reload_refused: (e) => `Reload refused${because(e.reason)}`,
  reload_rolled_back: (e) => `Reload rolled back${because(e.reason)}`,
  handed_over: (e) => `Moved ${plural(e.moved ?? 0, "connection")}: ${who(e)}${because(e.error)}`,
  generation_mixed: (e) => `Generation ${e.gen} is mixed: files changed since it was loaded`,
  autoscaled: (e) =>
    `${e.workers > e.was ? "Grows" : "Shrinks"} to ${plural(e.workers, "worker")} by load` +
    because(e.reason),
  not_autoscaled: (e) => `The number of workers cannot follow the load${because(e.reason)}`,
  scaled: (e) => `Scaled to ${plural(e.workers, "worker")}`,
  rebalancing: (e) => `Rebalances ${plural(e.connections ?? 0, "connection")}`,
  draining: (e) =>
    `Drains: ${who(e)}${known(e.open) ? `; ${plural(e.open, "connection")} open` : ""}`,
  command: (e) => `Command: ${words(e.name ?? "")}`,
  observer_ready: () => "Observer ready",
  observer_lost: (e) => `Observer lost${because(e.reason)}`,
  bridge_connected: (e) =>
    `Bridge connected${e.away ? ` after ${span(e.away)}` : ""}` +
    (e.lost ? `; ${plural(e.lost, "message")} lost` : ""),
  bridge_lost: (e) => `Bridge lost${because(e.reason)}`,
  zygote_lost: (e) => `Zygote lost${e.gen ? ` of generation ${e.gen}` : ""}${because(e.reason)}`,
  zygote_restarted: (e) => `Zygote restarted${e.gen ? ` of generation ${e.gen}` : ""}`,
};

/** Fields that no sentence is made of, or that stand elsewhere. */
const SILENT = new Set(["seq", "at", "level", "event", "exception", "traceback"]);

/**
 * An event as a sentence.
 * @param {Object} event with its name under `event`, and its fields.
 * @returns {string}
 */
export function sentence(event) {
  const made = SENTENCES[event.event];
  if (made) return made(event);
  const fields = Object.entries(event).filter(
    ([key, value]) => !SILENT.has(key) && value !== null && value !== "",
  );
  const told = fields.map(
    ([key, value]) => `${words(key)} ${typeof value === "object" ? JSON.stringify(value) : value}`,
  );
  const name = words(event.event);
  return name.charAt(0).toUpperCase() + name.slice(1) + (told.length ? `: ${told.join(", ")}` : "");
}

/** What a mark in the charts says of an event: words, "" for a line alone, null for no mark. */
export function mark(event) {
  switch (event.event) {
    case "reload_started":
      return `reload ${event.gen}`;
    case "reload_done":
      return "";
    case "reload_refused":
      return "refused";
    case "reload_rolled_back":
      return "rolled back";
    case "worker_lost":
      return `slot ${event.slot} lost`;
    case "worker_stalled":
      return `slot ${event.slot} stalled`;
    case "slot_failed":
      return `slot ${event.slot} failed`;
    case "scaled":
    case "autoscaled":
      return `scaled to ${event.workers}`;
    default:
      return null;
  }
}
