// Numbers as people read them, and quantiles of histograms. Pure functions.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const DASH = "–";

/** Whether there is a number to show. */
export const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A whole number with its thousands apart: 1,001,700. */
export const count = (value) => (known(value) ? WHOLE.format(value) : DASH);

/** A number in three digits or so: 0.25, 8.4, 312, 1.28k, 34.1M. */
export function compact(value) {
  if (!known(value)) return DASH;
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    // What would round up to 1000 of the unit below is one of this.
    if (size >= unit * 0.9995) return digits(value / unit) + letter;
  }
  return size >= 99.95 || Number.isInteger(value) ? WHOLE.format(value) : digits(value);
}

function digits(value) {
  const size = Math.abs(value);
  return value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** Bytes in units of 1000: 812 B, 3.1 kB, 41 MB. */
export function bytes(value) {
  if (!known(value)) return DASH;
  let [amount, unit] = [value, 0];
  const units = ["B", "kB", "MB", "GB", "TB"];
  while (Math.abs(amount) >= 999.5 && unit < units.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  return `${digits(unit ? amount : Math.round(amount))} ${units[unit]}`;
}

/** Milliseconds, or a larger unit if there are many: 0.08 ms, 12 ms, 1.4 s. */
export function milliseconds(value) {
  if (!known(value)) return DASH;
  return value >= 999.5 ? `${digits(value / 1000)} s` : `${digits(value)} ms`;
}

/** A span of seconds in its two largest units: 12s, 3h 05m, 2d 04h. */
export function span(seconds) {
  if (!known(seconds)) return DASH;
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes, rest] = [
    Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60,
  ];
  const two = (value) => String(value).padStart(2, "0");
  if (days) return `${days}d ${two(hours)}h`;
  if (hours) return `${hours}h ${two(minutes)}m`;
  return minutes ? `${minutes}m ${two(rest)}s` : `${rest}s`;
}

/** A span of seconds in one unit: 1 s, 17 min, 4.6 h, 1.5 d. */
export function about(seconds) {
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return `${digits(seconds / unit)} ${name}`;
  }
  return `${digits(seconds)} s`;
}

/** A share in percent: 4.7%, 93%; less than a thousandth is named so. */
export function percent(share) {
  if (!known(share)) return DASH;
  if (share > 0 && share < 0.001) return "<0.1%";
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)}%`;
}

/** The time of day of an epoch time in seconds, in the browser's time zone. */
export function clock(at, { seconds = true } = {}) {
  const time = new Date(at * 1000);
  const parts = [time.getHours(), time.getMinutes(), ...(seconds ? [time.getSeconds()] : [])];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}

/** A name of the document in words: slow_client is slow client. */
export const words = (name) => String(name).replaceAll("_", " ");

/** A number with its noun: 1 slot, 4 slots. */
export const plural = (number, noun, many = `${noun}s`) => `${count(number)} ${number === 1 ? noun : many}`;

/**
 * The value that a share of a histogram does not exceed, interpolated within its bucket. Above the
 * last bound the answer is that bound, as in Prometheus's histogram_quantile.
 * @param {number[]} bounds upper bounds of the buckets; one more bucket lies above.
 * @param {number[]} counts of each bucket.
 * @param {number} share 0 to 1.
 * @returns {number|null} null if nothing was counted.
 */
export function quantile(bounds, counts, share) {
  const total = counts.reduce((sum, some) => sum + some, 0);
  if (!total) return null;
  let rank = share * total;
  for (const [index, some] of counts.entries()) {
    if (some && rank <= some) {
      if (index >= bounds.length) return bounds.at(-1);
      const low = index ? bounds[index - 1] : 0;
      return low + ((bounds[index] - low) * rank) / some;
    }
    rank -= some;
  }
  return bounds.at(-1);
}

/**
 * Round values for an axis from zero.
 * @param {number} most the largest value shown.
 * @param {number} wanted about how many ticks above zero.
 * @returns {number[]} ascending, from 0 to at least `most`.
 */
export function ticks(most, wanted = 4) {
  if (!(most > 0)) return [0, 1];
  const rough = most / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
  const found = [];
  for (let index = 0; index === 0 || found.at(-1) < most * 0.999; index += 1) {
    found.push(Number((index * step).toPrecision(12)));
  }
  return found;
}
