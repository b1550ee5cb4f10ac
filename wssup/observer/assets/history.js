// What the page remembers: ten minutes of states, one a second. Decides what is a gap, and turns
// counters into rates. It touches neither the page nor the network.

import { quantile } from "./figures.js";

/** Seconds that are kept. */
export const KEPT = 600;
/** Seconds between two states above which something is missing between them. */
export const HOLE = 3.5;
/** Seconds over which the figures of now are averaged. */
const NOW = 5;
/** Seconds over which quantiles of round trips are taken. */
const RECENT = 60;

/**
 * One moment of the instance, without what no chart shows.
 * @typedef {Object} Sample
 * @property {number} at epoch, seconds.
 * @property {boolean} gap nothing is known of the time before it.
 * @property {Object<string, number>} totals counters since the start.
 * @property {Map<number, number>} generations active connections by generation.
 * @property {[number, number][][]} slots of each slot its generations, oldest first, each with its
 *   active connections; empty without a worker.
 * @property {number|null} lag of the loop of all workers, the largest, milliseconds.
 * @property {number|null} lagMiddle the same, their median.
 */

function sample(at, status, gap) {
  const c = status.connections;
  const generations = new Map();
  const slots = [];
  const lags = [];
  for (const slot of status.slots) {
    const counted = slot.workers.filter((worker) => worker.active !== undefined);
    const parts = new Map();
    for (const worker of counted) {
      parts.set(worker.generation, (parts.get(worker.generation) ?? 0) + worker.active);
      generations.set(worker.generation, (generations.get(worker.generation) ?? 0) + worker.active);
      lags.push(worker.lag_ms);
    }
    slots[slot.slot] = [...parts].sort(([a], [b]) => a - b);
  }
  lags.sort((a, b) => a - b);
  return {
    at, gap, generations, slots,
    lag: lags.at(-1) ?? null,
    lagMiddle: lags[Math.floor((lags.length - 1) / 2)] ?? null,
    started: status.started_at,
    ping: status.latency?.ping ?? null,
    pingRecent: null,
    totals: {
      active: c.active, accepted: c.accepted, closed: c.closed,
      turnedAway: c.refused + c.handshake_failures,
      messagesIn: c.messages_in, messagesOut: c.messages_out, bytesIn: c.bytes_in, bytesOut: c.bytes_out,
      handlerErrors: c.handler_errors, pingTimeouts: c.ping_timeouts,
      published: status.topics?.published ?? 0, delivered: status.topics?.delivered ?? 0,
    },
    reasons: {
      closed: c.closed_by_reason, refused: c.refused_by_reason, failed: c.handshake_failures_by_reason,
    },
  };
}

/** The last ten minutes. */
export class History {
  constructor() {
    /** @type {Sample[]} ascending in time. */
    this.samples = [];
    /** Of the samples, so that a chart knows whether anything is new. */
    this.version = 0;
  }

  /**
   * Add a state.
   * @param {number} at epoch, seconds.
   * @param {Object} status the document.
   * @returns {boolean} whether it was news.
   */
  add(at, status) {
    const last = this.last;
    if (last && at === last.at) return false;
    // The clock was set back: what was remembered has no place on the same axis.
    if (last && at < last.at) this.samples.length = 0;
    const before = this.last;
    const broken = !before || at - before.at > HOLE || status.started_at !== before.started;
    const made = sample(at, status, broken);
    this.samples.push(made);
    const kept = this.samples.findIndex((one) => one.at > at - KEPT);
    this.samples.splice(0, Math.max(0, kept - 1));
    made.pingRecent = this.#pings(made);
    this.version += 1;
    return true;
  }

  /** The newest sample. */
  get last() {
    return this.samples.at(-1);
  }

  /** The oldest sample that is at most so old and of the same start of the instance. */
  since(seconds) {
    const { last } = this;
    return this.samples.find((one) => one.at >= last.at - seconds - 0.5 && one.started === last.started);
  }

  /**
   * The change of a counter per second between each two samples.
   * @param {string} key of a sample's totals.
   * @returns {(number|null)[]} as long as the samples; null where nothing is known.
   */
  rates(key) {
    return this.samples.map((one, index) => {
      const before = this.samples[index - 1];
      if (!before || one.gap) return null;
      return Math.max(0, (one.totals[key] - before.totals[key]) / (one.at - before.at));
    });
  }

  /** The change of a counter per second, over the last few seconds; null if it is not known. */
  rate(key) {
    const first = this.since(NOW);
    return !first || first === this.last
      ? null
      : Math.max(0, (this.last.totals[key] - first.totals[key]) / (this.last.at - first.at));
  }

  /** By how much a counter rose within the last so many seconds. */
  rise(key, seconds) {
    const first = this.since(seconds);
    return first ? Math.max(0, this.last.totals[key] - first.totals[key]) : 0;
  }

  /**
   * By how much each of the counters of a kind rose.
   * @param {"closed"|"refused"|"failed"} kind of the reasons.
   * @param {number} seconds over which.
   * @returns {Object<string, number>}
   */
  rises(kind, seconds) {
    const first = this.since(seconds);
    return Object.fromEntries(
      Object.entries(this.last.reasons[kind]).map(([name, value]) =>
        [name, first ? Math.max(0, value - (first.reasons[kind][name] ?? 0)) : 0]),
    );
  }

  #pings(made) {
    if (!made.ping) return null;
    const first = this.since(RECENT);
    if (!first?.ping || first === made) return null;
    const counts = made.ping.counts.map((value, index) => value - first.ping.counts[index]);
    const bounds = made.ping.bounds_ms;
    const middle = quantile(bounds, counts, 0.5);
    return middle === null ? null : { p50: middle, p99: quantile(bounds, counts, 0.99) };
  }
}
