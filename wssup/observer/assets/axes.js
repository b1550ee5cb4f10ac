// The frame of a chart: scales, grid, labels, gaps, and marks of what happened.

import { svg } from "./dom.js";
import { clock, ticks } from "./figures.js";
import * as geometry from "./geometry.js";

/** Pixels that a mark's words need beside the next mark. */
const MARK_ROOM = 72;
/** So many decades are labelled one by one. */
const DECADES = 5;

/**
 * @typedef {{left: number, right: number, top: number, bottom: number}} Frame in pixels.
 * @typedef {{y: function(number): number, ticks: number[]}} Scale of values, upwards.
 */

/** A scale from zero. */
export function linear(values, frame) {
  const marks = ticks(values.reduce((a, b) => Math.max(a, b), 0));
  const y = (value) => frame.bottom - (value / marks.at(-1)) * (frame.bottom - frame.top);
  return { y, ticks: marks };
}

/** A scale of whole decades. */
export function logarithmic(values, frame) {
  const { low, high } = geometry.decades(values);
  const share = (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
  const y = (value) => frame.bottom - share(value) * (frame.bottom - frame.top);
  const step = high - low > DECADES ? 2 : 1;
  const steps = Math.floor((high - low) / step) + 1;
  return { y, ticks: Array.from({ length: steps }, (_, index) => 10 ** (low + index * step)) };
}

/** A line for each tick. */
export function grid(frame, scale) {
  return scale.ticks.map((value) => {
    const y = scale.y(value);
    return svg("line", { x1: frame.left, x2: frame.right, y1: y, y2: y });
  });
}

/** The words beside the ticks, and the times below. */
export function labels(frame, scale, format, x, [from, to]) {
  const { found, seconds } = geometry.times(from, to);
  const values = scale.ticks.map((value) => {
    const place = { x: frame.left - 6, y: scale.y(value) + 3.5, "text-anchor": "end" };
    return svg("text", place, format(value));
  });
  const times = found.map((at) => {
    const place = x(at);
    // The outermost do not stick out.
    const anchor = place > frame.right - 20 ? "end" : place < frame.left + 16 ? "start" : "middle";
    const where = { x: place, y: frame.bottom + 16, "text-anchor": anchor };
    return svg("text", where, clock(at, { seconds }));
  });
  return [...values, ...times];
}

/** The times of which nothing is known. */
export function gaps(frame, spans, x) {
  return spans.map(([start, end]) =>
    svg("rect", {
      x: x(start),
      y: frame.top,
      width: Math.max(1, x(end) - x(start)),
      height: frame.bottom - frame.top,
      fill: "url(#gap)",
    }),
  );
}

/**
 * A line for each thing that happened, with its words if there is room for them.
 * @param {Frame} frame
 * @param {{at: number, level: string, text: string}[]} marks ascending in time.
 * @param {function(number): number} x the place of a time.
 * @param {boolean} told whether there are words.
 */
export function flags(frame, marks, x, told) {
  let free = Infinity;
  // The latest is the one that is told; an earlier one that has no room is a line alone.
  return [...marks].reverse().flatMap((one) => {
    const place = x(one.at);
    const ends = { x1: place, x2: place, y1: frame.top - 4, y2: frame.bottom };
    const made = [svg("line", { class: one.level, ...ends })];
    if (told && one.text && place < free - MARK_ROOM) {
      const end = place > frame.right - MARK_ROOM + 10;
      const where = { x: place, y: frame.top - 7, "text-anchor": end ? "end" : "start" };
      made.push(svg("text", where, one.text));
      free = end ? place - MARK_ROOM : place;
    }
    return made;
  });
}
