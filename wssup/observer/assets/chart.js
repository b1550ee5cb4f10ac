// A chart over time: lines or stacked areas, a legend that says the values at the moment pointed at,
// and the same as a table. Drawn as SVG, anew with each state.

import { el, list, say, set, svg } from "./dom.js";
import { clock, compact, ticks } from "./figures.js";
import * as geometry from "./geometry.js";

const MARGIN = { left: 46, right: 10, top: 16, bottom: 22 };
/** Pixels that a mark's words need beside the next mark. */
const MARK_ROOM = 72;
/** Rows of a chart's table. */
const ROWS = 10;

/**
 * @typedef {Object} Series
 * @property {string} key
 * @property {string} name in the legend.
 * @property {string} look class that gives it its colour.
 * @property {(number|null)[]} values one for each sample.
 */

/** A chart in a <figure> that has a caption. */
export class TimeChart {
  #series = [];
  #size = [0, 0];
  #seen = "";

  /**
   * @param {HTMLElement} figure
   * @param {Object} how
   * @param {import("./history.js").History} how.history
   * @param {import("./view.js").View} how.view
   * @param {function(): Series[]} how.series what it shows now.
   * @param {function(number): string} [how.format] a value in words.
   * @param {boolean} [how.stacked] areas upon each other instead of lines.
   * @param {boolean} [how.log] a logarithmic scale.
   * @param {string} [how.empty] what it says if there is nothing to show.
   * @param {boolean} [how.told] whether marks have their words.
   */
  constructor(figure, how) {
    this.how = { format: compact, axis: how.format ?? compact, ...how };
    this.title = figure.querySelector("figcaption").textContent;
    this.legend = el("ul", { class: "legend" });
    this.drawing = svg("svg", { "aria-hidden": "true" });
    this.plot = el("div", {
      class: "plot", tabindex: 0, role: "slider", "aria-orientation": "horizontal",
      "aria-label": `${this.title}: moment`, "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-valuetext": "now",
    }, this.drawing);
    this.head = el("tr");
    this.body = el("tbody");
    this.details = el("details", { class: "figures" }, el("summary", {}, "Table"),
      el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${this.title}: table` },
        el("table", {}, el("thead", {}, this.head), this.body)));
    figure.append(this.legend, this.plot, this.details);
    this.layers = ["gaps", "grid", "shapes", "marks", "axis", "cursor"].map((name) => svg("g", { class: name }));
    this.drawing.append(...this.layers);
    this.details.addEventListener("toggle", () => this.draw(true));
    new ResizeObserver(() => this.draw(true)).observe(this.plot);
    how.view.listen(() => this.draw(true));
    this.#follow();
  }

  /** Draw what is known now. */
  draw(force = false) {
    const { history, view } = this.how;
    const size = [this.plot.clientWidth, this.plot.clientHeight];
    if (!history.last || !size[0]) return;
    const seen = `${history.version} ${size}`;
    if (!force && seen === this.#seen) return;
    this.#seen = seen;
    this.#size = size;
    set(this.drawing, "viewBox", `0 0 ${size[0]} ${size[1]}`);
    this.#series = this.how.series();
    const { samples } = history;
    const [from, to] = view.domain(history);
    const [width, height] = size;
    const x = (at) => MARGIN.left + ((at - from) / (to - from)) * (width - MARGIN.left - MARGIN.right);
    const first = Math.max(0, samples.findIndex((one) => one.at >= from) - 1);
    const scale = this.#scale(first, height);
    const [gaps, grid, shapes, marks, axis, cursor] = this.layers;
    gaps.replaceChildren(...geometry.gaps(samples, from).map(([start, end]) =>
      svg("rect", { x: x(start), y: MARGIN.top, width: Math.max(1, x(end) - x(start)), height: height - MARGIN.top - MARGIN.bottom, fill: "url(#gap)" })));
    grid.replaceChildren(...scale.ticks.map((value) =>
      svg("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: scale.y(value), y2: scale.y(value) })));
    axis.replaceChildren(...this.#axes(scale, x, from, to));
    marks.replaceChildren(...this.#marks(x, from));
    const place = (index) => Math.max(MARGIN.left, x(samples[index].at));
    shapes.replaceChildren(...(this.how.stacked ? this.#stack(place, scale.y, from) : this.#lines(place, scale.y, from)));
    if (!this.#series.some((one) => one.values.some((value, index) => index >= first && known(value)))) {
      shapes.append(svg("text", { x: (MARGIN.left + width) / 2, y: height / 2, "text-anchor": "middle" }, this.how.empty ?? "nothing yet"));
    }
    cursor.replaceChildren(...this.#cursor(x, scale.y));
    this.#tell(from);
    if (this.details.open) this.#table(first);
  }

  #scale(first, height) {
    const { samples } = this.how.history;
    const seen = [];
    for (let index = first; index < samples.length; index += 1) {
      const values = this.#series.map((one) => one.values[index]).filter((value) => value !== null && value !== undefined);
      if (this.how.stacked) seen.push(values.reduce((sum, value) => sum + value, 0));
      else seen.push(...values);
    }
    const bottom = height - MARGIN.bottom;
    const room = bottom - MARGIN.top;
    if (this.how.log) {
      const { low, high } = geometry.decades(seen);
      const y = (value) => bottom - ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * room;
      const step = high - low > 5 ? 2 : 1;
      const marks = Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, index) => 10 ** (low + index * step));
      return { y, ticks: marks };
    }
    const marks = ticks(seen.reduce((a, b) => Math.max(a, b), 0));
    return { y: (value) => bottom - (value / marks.at(-1)) * room, ticks: marks };
  }

  #axes(scale, x, from, to) {
    const height = this.#size[1];
    const { found, seconds } = geometry.times(from, to);
    return [
      ...scale.ticks.map((value) => svg("text", { x: MARGIN.left - 6, y: scale.y(value) + 3.5, "text-anchor": "end" }, this.how.axis(value))),
      ...found.map((at) => svg("text", {
        x: x(at), y: height - 6,
        "text-anchor": x(at) > this.#size[0] - 30 ? "end" : x(at) < MARGIN.left + 16 ? "start" : "middle",
      }, clock(at, { seconds }))),
    ];
  }

  #marks(x, from) {
    const height = this.#size[1];
    let free = Infinity;
    // The latest is the one that is told; an earlier one that has no room is a line alone.
    return this.how.view.marks.filter((one) => one.at >= from).reverse().flatMap((one) => {
      const place = x(one.at);
      const made = [svg("line", { class: one.level, x1: place, x2: place, y1: MARGIN.top - 4, y2: height - MARGIN.bottom })];
      if (this.how.told && one.text && place < free - MARK_ROOM) {
        const end = place > this.#size[0] - MARK_ROOM;
        made.push(svg("text", { x: place, y: 9, "text-anchor": end ? "end" : "start" }, one.text));
        free = end ? place - MARK_ROOM : place;
      }
      return made;
    });
  }

  #lines(place, y, from) {
    const { samples } = this.how.history;
    return this.#series.flatMap((one) => {
      const spans = geometry.runs(samples, from, (index) => known(one.values[index]));
      const value = (index) => y(one.values[index]);
      const made = [svg("path", { class: `line ${one.look}`, d: geometry.line(spans, place, value) })];
      if (one.filled) made.unshift(svg("path", { class: `area ${one.look}`, d: geometry.area(spans, place, () => y(0), value) }));
      return made;
    });
  }

  #stack(place, y, from) {
    const { samples } = this.how.history;
    const below = new Array(samples.length).fill(0);
    return this.#series.map((one) => {
      const spans = geometry.runs(samples, from, (index) => known(one.values[index]));
      const base = [...below];
      for (const [index, value] of one.values.entries()) below[index] += value ?? 0;
      return svg("path", { class: `stack ${one.look}`, d: geometry.area(spans, place, (index) => y(base[index]), (index) => y(base[index] + one.values[index])) });
    });
  }

  #cursor(x, y) {
    const { history, view } = this.how;
    if (!view.points) return [];
    const index = view.index(history);
    const place = x(history.samples[index].at);
    if (place < MARGIN.left) return [];
    const bottom = this.#size[1] - MARGIN.bottom;
    const label = Math.min(this.#size[0] - 30, Math.max(MARGIN.left + 28, place));
    const made = [
      svg("line", { x1: place, x2: place, y1: MARGIN.top, y2: bottom + 3 }),
      svg("rect", { x: label - 28, y: bottom + 3, width: 56, height: 17, rx: 4 }),
      svg("text", { x: label, y: bottom + 15.5, "text-anchor": "middle" }, clock(history.samples[index].at)),
    ];
    let sum = 0;
    for (const one of this.#series) {
      const value = one.values[index];
      if (!known(value)) continue;
      sum += value;
      made.push(svg("circle", { class: one.look, cx: place, cy: y(this.how.stacked ? sum : value), r: 3.5 }));
    }
    return made;
  }

  /** The legend, and what a screen reader says of the moment. */
  #tell() {
    const { history, view, format } = this.how;
    const index = view.index(history);
    list(this.legend, this.#series, (one) => one.key,
      (one) => el("li", {}, el("span", { class: `swatch ${one.look}` }), el("span", { class: "name" }), el("b")),
      (node, one) => {
        say(node.children[1], one.name);
        say(node.children[2], format(one.values[index]));
      });
    // Who listens hears of a moment when pointing at it, not each second.
    if (view.points) this.#moment(index, clock(history.samples[index].at));
  }

  #moment(index, when) {
    const { history, format } = this.how;
    set(this.plot, "aria-valuemax", history.samples.length - 1);
    set(this.plot, "aria-valuenow", index);
    set(this.plot, "aria-valuetext", `${when}: ${this.#series.map((one) => `${one.name} ${format(one.values[index])}`).join(", ")}`);
  }

  #table(first) {
    const { history, format } = this.how;
    const { samples } = history;
    const step = Math.max(1, Math.ceil((samples.length - first) / ROWS));
    const rows = [];
    for (let index = samples.length - 1; index >= first; index -= step) rows.push(index);
    list(this.head, ["Time", ...this.#series.map((one) => one.name)], (name) => name,
      () => el("th", { scope: "col" }), (node, name) => say(node, name));
    list(this.body, rows.map((index, place) => [place, index]), ([place]) => place, () => el("tr"), (row, [, index]) => {
      const cells = [clock(samples[index].at), ...this.#series.map((one) => format(one.values[index]))];
      list(row, cells.map((text, place) => [place, text]), ([place]) => place,
        ([place]) => (place ? el("td") : el("th", { scope: "row" })), (cell, [, text]) => say(cell, text));
    });
  }

  #follow() {
    const { view, history } = this.how;
    const point = (event) => {
      const box = this.plot.getBoundingClientRect();
      view.pointAt((event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right));
    };
    this.plot.addEventListener("focus", () => {
      if (history.last) this.#moment(history.samples.length - 1, "now");
    });
    this.plot.addEventListener("pointermove", point);
    this.plot.addEventListener("pointerdown", point);
    this.plot.addEventListener("pointerleave", () => view.point(null));
    this.plot.addEventListener("blur", () => view.point(null));
    this.plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") view.point(null);
      if (step === undefined || !history.last) return;
      event.preventDefault();
      const [from] = view.domain(history);
      const lowest = Math.max(0, history.samples.findIndex((one) => one.at >= from));
      const index = Math.min(history.samples.length - 1, Math.max(lowest, view.index(history) + step));
      view.point(history.samples[index].at);
    });
  }
}

const known = (value) => value !== null && value !== undefined;
