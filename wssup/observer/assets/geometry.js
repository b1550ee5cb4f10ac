// From samples to the paths of a chart. Pure functions.

const round = (value) => Math.round(value * 10) / 10;

/**
 * The runs of indices within which everything is known.
 * @param {import("./history.js").Sample[]} samples
 * @param {number} from the first time that is shown, epoch seconds.
 * @param {function(number): boolean} has whether there is a value at an index.
 * @returns {[number, number][]} first and last index of each run.
 */
export function runs(samples, from, has) {
  const found = [];
  let start = null;
  // One sample before the edge, so that a line comes in from there.
  let index = Math.max(0, samples.findIndex((one) => one.at >= from) - 1);
  for (; index < samples.length; index += 1) {
    const there = has(index);
    if (start !== null && (!there || samples[index].gap)) {
      found.push([start, index - 1]);
      start = null;
    }
    if (there && start === null) start = index;
  }
  if (start !== null) found.push([start, samples.length - 1]);
  return found;
}

/** The path of a line through x(index), y(index), in runs. A run of one is a dot. */
export function line(spans, x, y) {
  return spans.map(([first, last]) => {
    const points = [];
    for (let index = first; index <= last; index += 1) points.push(`${round(x(index))} ${round(y(index))}`);
    if (first === last) points.push(`${round(x(first)) + 0.1} ${round(y(first))}`);
    return `M${points.join("L")}`;
  }).join("");
}

/** The path of an area between y0(index) and y1(index), in runs. */
export function area(spans, x, y0, y1) {
  return spans.filter(([first, last]) => last > first).map(([first, last]) => {
    const points = [];
    for (let index = first; index <= last; index += 1) points.push(`${round(x(index))} ${round(y1(index))}`);
    for (let index = last; index >= first; index -= 1) points.push(`${round(x(index))} ${round(y0(index))}`);
    return `M${points.join("L")}Z`;
  }).join("");
}

/**
 * The gaps within what is shown: from the last thing known before to the first after.
 * @returns {[number, number][]} times, epoch seconds.
 */
export function gaps(samples, from) {
  const found = [];
  for (let index = 1; index < samples.length; index += 1) {
    const { at, gap } = samples[index];
    if (gap && at > from) found.push([Math.max(from, samples[index - 1].at), at]);
  }
  return found;
}

/** The times of an axis in whole steps, and whether they need seconds. */
export function times(from, to) {
  const step = [5, 15, 30, 60, 120, 300].find((seconds) => (to - from) / seconds <= 6) ?? 600;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return { found, seconds: step % 60 !== 0 };
}

/**
 * A logarithmic scale in whole decades around what is shown.
 * @param {number[]} values above zero.
 * @returns {{low: number, high: number}} powers of ten.
 */
export function decades(values) {
  const seen = values.filter((value) => value > 0);
  const least = seen.length ? Math.min(...seen) : 1;
  const most = seen.length ? Math.max(...seen) : 1;
  const low = Math.max(-2, Math.floor(Math.log10(least)));
  return { low, high: Math.max(low + 2, Math.ceil(Math.log10(most))) };
}
