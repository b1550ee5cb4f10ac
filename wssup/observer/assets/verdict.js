// How the instance is, in one sentence, and what is wrong with it. Pure functions: from the document
// and what rose within the last minute.

import { count, percent, plural, words } from "./figures.js";

/** Shares of the capacity from which on it is a warning, and bad. */
const FULL = 0.9;
const VERY_FULL = 0.98;
const RANK = { ok: 0, busy: 1, warn: 2, bad: 3 };

/**
 * @typedef {Object} Problem
 * @property {"warn"|"bad"} level
 * @property {string} text what is wrong.
 * @property {string} [more] what it says of itself, or what to do.
 */

/** The worker that accepts for a slot, if one does. */
export const acceptor = (slot) => slot.workers.find((one) => one.accepting && !one.stalled && !one.stale);

/** The slots that are to serve. */
export const serving = (status) => status.slots.filter((slot) => !["parked", "empty"].includes(slot.state));

/**
 * The verdict.
 * @param {Object} status the document.
 * @param {Object} recent what rose within the last minute: `refused` and `failed` by reason, and
 *   `handlerErrors`.
 * @returns {{level: string, headline: string, problems: Problem[]}}
 */
export function verdict(status, recent) {
  const problems = [...ofSlots(status), ...ofInstance(status), ...ofLastMinute(recent)];
  const { level, headline } = stateOf(status);
  const worst = problems.reduce((found, one) => (RANK[one.level] > RANK[found] ? one.level : found), level);
  return { level: worst, headline, problems };
}

function stateOf(status) {
  const slots = serving(status);
  const accepting = slots.filter(acceptor).length;
  const all = plural(slots.length, "slot");
  if (status.state === "stopping") return { level: "warn", headline: "The instance stops" };
  if (status.state === "draining") return { level: "warn", headline: "The instance drains" };
  if (status.state === "starting") {
    return { level: "busy", headline: `Starting: ${count(accepting)} of ${all} accept connections` };
  }
  if (slots.length === 0 || accepting === 0) {
    return { level: "bad", headline: "No slot accepts connections" };
  }
  if (status.reload) return { level: "busy", headline: rollout(status, slots) };
  if (accepting < slots.length) {
    return { level: "warn", headline: `${count(accepting)} of ${all} accept connections` };
  }
  return { level: "ok", headline: slots.length === 1 ? "The slot accepts connections" : `All ${all} accept connections` };
}

function rollout(status, slots) {
  const next = status.reload.generation;
  const workers = slots.flatMap((slot) => slot.workers);
  const fresh = slots.filter((slot) => acceptor(slot)?.generation === next).length;
  const left = workers.filter((one) => one.generation < next).reduce((sum, one) => sum + (one.active ?? 0), 0);
  const head = `Reloading: generation ${next} accepts on ${count(fresh)} of ${plural(slots.length, "slot")}`;
  return fresh ? `${head}, ${plural(left, "connection")} still on older ones` : head;
}

function* ofSlots(status) {
  for (const slot of status.slots) {
    const name = `Slot ${slot.slot}`;
    const lent = slot.lent_to === null || slot.lent_to === undefined
      ? "" : `; slot ${slot.lent_to} takes its new connections`;
    if (slot.state === "failed") {
      yield { level: "bad", text: `${name} failed${lent}`, more: slot.error ?? "" };
    } else if (slot.state === "backoff") {
      yield { level: "warn", text: `${name} lost its worker, another try follows${lent}`, more: slot.error ?? "" };
    }
    for (const worker of slot.workers) {
      if (worker.stalled) {
        yield { level: "bad", text: `${name} is stalled${lent}`, more: `Process ${worker.pid} does not get to its event loop.` };
      } else if (worker.stale) {
        yield { level: "warn", text: `${name}: the last good counts of process ${worker.pid} are shown` };
      }
    }
  }
}

function* ofInstance(status) {
  const { open } = status.connections;
  const used = status.capacity ? open / status.capacity : 0;
  if (used >= FULL) {
    const left = Math.max(0, status.capacity - open);
    yield {
      level: used >= VERY_FULL ? "bad" : "warn",
      text: `${percent(used)} of the capacity is used, ${plural(left, "connection")} left`,
      more: "More workers (wssup scale) or a higher limit of open files raise it.",
    };
  }
  if (status.mixed) {
    yield {
      level: "warn", text: `Generation ${status.generation} is mixed: files changed since it was loaded`,
      more: "wssup reload makes it one.",
    };
  }
  const last = status.last_reload;
  if (last && last.outcome !== "done" && !status.reload) {
    const to = last.generation ? ` to generation ${last.generation}` : "";
    yield { level: "warn", text: `The last reload${to} was ${words(last.outcome)}`, more: last.reason ?? "" };
  }
  const bridge = status.topics?.bridge;
  if (bridge && (bridge.stalled || !["connected", "starting"].includes(bridge.state))) {
    const why = bridge.error || (bridge.fault && bridge.fault !== "none" ? words(bridge.fault) : "");
    yield {
      level: "warn", text: `The bridge is ${bridge.stalled ? "stalled" : words(bridge.state)}`,
      more: [why, "topics reach this instance alone"].filter(Boolean).join("; "),
    };
  }
}

function* ofLastMinute(recent) {
  const refused = Object.entries(recent.refused ?? {}).filter(([, value]) => value);
  const total = refused.reduce((sum, [, value]) => sum + value, 0);
  if (total) {
    const reasons = refused.map(([name, value]) => `${words(name)} ${count(value)}`).join(", ");
    yield { level: "warn", text: `${plural(total, "connection")} refused in the last minute`, more: reasons };
  }
  if (recent.handlerErrors) {
    yield {
      level: "warn", text: `${plural(recent.handlerErrors, "error")} of the application in the last minute`,
      more: "The log has their tracebacks (handler_failed).",
    };
  }
}
