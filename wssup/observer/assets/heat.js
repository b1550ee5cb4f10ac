// A map of many slots over time: a line for each slot, the brighter the more connections it has.

import { clock, count } from "./figures.js";
import * as geometry from "./geometry.js";
import { say } from "./dom.js";

const MARGIN = { left: 30, bottom: 20 };
/** Pixels of a slot's line, at least and at most. */
const LINE = [3, 14];

/** The map, on a canvas. */
export class HeatMap {
  /**
   * @param {HTMLElement} plot with a canvas in it.
   * @param {HTMLElement} legend what it says at the moment pointed at.
   * @param {import("./history.js").History} history
   * @param {import("./view.js").View} view
   */
  constructor(plot, legend, history, view) {
    Object.assign(this, { plot, legend, history, view, canvas: plot.querySelector("canvas"), image: document.createElement("canvas") });
    const point = (event) => {
      const box = plot.getBoundingClientRect();
      view.pointAt((event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left));
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", () => view.point(null));
  }

  /** Draw what is known now. */
  draw(slots) {
    const { history, view, canvas } = this;
    const { samples } = history;
    const line = Math.min(LINE[1], Math.max(LINE[0], Math.floor(260 / slots)));
    const [width, height] = [this.plot.clientWidth, slots * line + MARGIN.bottom];
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    const wanted = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) {
      [canvas.width, canvas.height] = wanted;
      canvas.style.height = `${height}px`;
    }
    const [from, to] = view.domain(history);
    const first = Math.max(0, samples.findIndex((one) => one.at >= from) - 1);
    const rows = [];
    let most = 1;
    for (let index = first; index < samples.length; index += 1) {
      const sums = Array.from({ length: slots }, (_, slot) => {
        const parts = samples[index].slots[slot];
        return parts?.length ? parts.reduce((sum, [, some]) => sum + some, 0) : null;
      });
      rows.push(sums);
      most = Math.max(most, ...sums);
    }
    this.#paint(rows, most, slots);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    const x = (at) => MARGIN.left + ((at - from) / (to - from)) * (width - MARGIN.left);
    for (let index = first; index < samples.length; index += 1) {
      const one = samples[index];
      const start = one.gap || index === first ? one.at - 1 : samples[index - 1].at;
      const left = Math.max(MARGIN.left, x(start));
      const right = x(one.at);
      if (right > left) context.drawImage(this.image, index - first, 0, 1, slots, left, 0, right - left + 0.3, slots * line);
    }
    this.#label(context, slots, line, from, to, x, height);
    this.#tell(rows, first, context, x, slots * line);
  }

  #paint(rows, most, slots) {
    const { image } = this;
    image.width = rows.length;
    image.height = slots;
    const context = image.getContext("2d");
    const pixels = context.createImageData(rows.length, slots);
    const scale = this.#colours();
    rows.forEach((sums, column) => sums.forEach((value, slot) => {
      if (value === null) return;
      const colour = scale[Math.round((value / most) * (scale.length - 1))];
      pixels.data.set(colour, (slot * rows.length + column) * 4);
    }));
    context.putImageData(pixels, 0, 0);
  }

  /** 64 colours between those that the style sheet names. */
  #colours() {
    const style = getComputedStyle(this.plot);
    const stops = [0, 1, 2].map((index) => rgb(style.getPropertyValue(`--heat-${index}`)));
    return Array.from({ length: 64 }, (_, index) => {
      const place = (index / 63) * (stops.length - 1);
      const low = Math.min(stops.length - 2, Math.floor(place));
      return [...stops[low].map((value, part) => Math.round(value + (stops[low + 1][part] - value) * (place - low))), 255];
    });
  }

  #label(context, slots, line, from, to, x, height) {
    const style = getComputedStyle(this.plot);
    context.font = `11px ${style.fontFamily}`;
    context.fillStyle = style.color;
    const step = [1, 2, 4, 8, 16, 32].find((some) => some * line >= 18) ?? 64;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (let slot = 0; slot < slots; slot += step) context.fillText(slot, MARGIN.left - 6, (slot + 0.5) * line + (line < 10 ? 3 : 0));
    const { found, seconds } = geometry.times(from, to);
    context.textBaseline = "alphabetic";
    for (const at of found) {
      const place = x(at);
      context.textAlign = place > this.plot.clientWidth - 30 ? "right" : place < MARGIN.left + 16 ? "left" : "center";
      context.fillText(clock(at, { seconds }), place, height - 4);
    }
  }

  #tell(rows, first, context, x, bottom) {
    const { history, view } = this;
    const index = view.index(history);
    const sums = (rows[index - first] ?? []).filter((value) => value !== null).sort((a, b) => a - b);
    const values = [sums[0], sums[Math.floor((sums.length - 1) / 2)], sums.at(-1)];
    values.forEach((value, place) => {
      say(this.legend.children[place].lastElementChild, count(value));
    });
    if (!view.points) return;
    const place = Math.round(x(history.samples[index].at)) - 0.5;
    context.strokeStyle = getComputedStyle(this.plot).color;
    context.beginPath();
    context.moveTo(place, 0);
    context.lineTo(place, bottom);
    context.stroke();
  }
}

/** The three parts of #rrggbb. */
function rgb(text) {
  const value = Number.parseInt(text.trim().slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
