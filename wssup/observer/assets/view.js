// What all charts share: the span of time they show, and the moment that is pointed at.

/** Seconds that a chart may show. */
export const SPANS = [60, 300, 600];

/** The shared view; charts are told of each change. */
export class View {
  #listeners = [];
  /** Seconds that the charts show at most. */
  span = 300;
  #at = null;
  #share = null;
  #asked = false;
  /** The moments with a mark: {at, level, text}. */
  marks = [];

  /** Call this on each change. */
  listen(listener) {
    this.#listeners.push(listener);
  }

  /** Show so many seconds. */
  setSpan(seconds) {
    this.span = seconds;
    this.#tell();
  }

  /** Point at a moment: epoch, seconds; or at now with null. */
  point(at) {
    if (at === null && !this.points) return;
    this.#at = at;
    this.#share = null;
    this.#tell();
  }

  /** Point at a place between the left edge (0) and the right (1): the moment under it passes on. */
  pointAt(share) {
    this.#at = null;
    this.#share = Math.min(1, Math.max(0, share));
    this.#tell();
  }

  /** Whether a moment is pointed at. */
  get points() {
    return this.#at !== null || this.#share !== null;
  }

  /**
   * The times of the left and right edge. A page that was opened just now does not show a chart
   * that is empty but for its edge: the span grows with what is known.
   * @param {import("./history.js").History} history
   * @returns {[number, number]}
   */
  domain(history) {
    const { samples, last } = history;
    const known = last.at - samples[0].at;
    return [last.at - Math.min(this.span, Math.max(SPANS[0], known)), last.at];
  }

  /** The index of the sample that is pointed at; the newest if none is. */
  index(history) {
    const { samples } = history;
    if (!this.points) return samples.length - 1;
    const [from, to] = this.domain(history);
    const wanted = this.#at ?? from + this.#share * (to - from);
    let [low, high] = [0, samples.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (samples[middle].at < wanted) low = middle + 1;
      else high = middle;
    }
    const before = samples[low - 1];
    return before && wanted - before.at < samples[low].at - wanted ? low - 1 : low;
  }

  /** Tell the charts, once for all changes until the next frame. */
  #tell() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => {
      this.#asked = false;
      for (const listener of this.#listeners) listener();
    });
  }
}
