// The connection to the observer: server-sent events, again and again.

/** Milliseconds until the first try to connect again, and the longest between two. */
const FIRST = 500;
const LONGEST = 15000;
/** Milliseconds without a state after which the connection is taken for dead. One is due each second. */
const SILENCE = 6000;

/**
 * @typedef {Object} Hearing what a page is told.
 * @property {function(Object): void} state a state: its time and the document.
 * @property {function(Object): void} lifecycle a lifecycle event.
 * @property {function({open: boolean, retryAt: number|null, refused: boolean}): void} changed whether
 *   it is connected, when it tries again (performance.now()), and whether it was answered and refused.
 */

/** Stays connected for as long as the page is open. */
export class Stream {
  #url;
  #hearing;
  #source = null;
  #delay = FIRST;
  #retry = 0;
  #silence = 0;

  /**
   * @param {string} url of the events.
   * @param {Hearing} hearing who is told.
   */
  constructor(url, hearing) {
    this.#url = url;
    this.#hearing = hearing;
    // A phone that was asleep, or a network that is back, need not wait.
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#hurry();
    });
  }

  /** Connect now, whatever is under way. */
  connect() {
    clearTimeout(this.#retry);
    this.#retry = 0;
    this.#source?.close();
    const source = new EventSource(this.#url);
    this.#source = source;
    source.addEventListener("state", (event) => {
      this.#alive();
      this.#delay = FIRST;
      this.#hearing.changed({ open: true, retryAt: null, refused: false });
      this.#hearing.state(JSON.parse(event.data));
    });
    source.addEventListener("lifecycle", (event) => this.#hearing.lifecycle(JSON.parse(event.data)));
    // Its own way to connect again gives up on an answer that is no stream, and never waits longer.
    source.addEventListener("error", () => this.#lost(source));
    this.#alive();
  }

  #alive() {
    clearTimeout(this.#silence);
    const source = this.#source;
    this.#silence = setTimeout(() => this.#lost(source), SILENCE);
  }

  #lost(source) {
    if (source !== this.#source || this.#retry) return;
    clearTimeout(this.#silence);
    // A connection that breaks is about to be tried again; one that got another answer is not.
    const refused = source.readyState === EventSource.CLOSED;
    source.close();
    // Dashboards of one observer do not come back in one wave.
    const wait = this.#delay * (0.5 + Math.random());
    this.#delay = Math.min(LONGEST, this.#delay * 2);
    this.#retry = setTimeout(() => this.connect(), wait);
    this.#hearing.changed({ open: false, retryAt: performance.now() + wait, refused });
  }

  #hurry() {
    if (this.#retry) this.connect();
  }
}
