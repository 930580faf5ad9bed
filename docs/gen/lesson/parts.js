/** The parts of the page: each draws itself again when something has changed and it can be seen. */

/** @typedef {() => void | Generator<void>} Draw a generator is run a piece at a time, and dropped when things change */
/** @typedef {{element: HTMLElement, draw: Draw, isSeen: boolean, isStale: boolean, running: Generator<void> | null}} Part */

/** @type {Map<string, Part>} */
const parts = new Map();
const SLICE = 20; // milliseconds of work before the browser may draw
let isAsked = false;

/** Begins with a part: the element that it lies in, and what draws it.
 * @param {string} id
 * @param {Draw} draw */
export function part(id, draw) {
  const element = /** @type {HTMLElement} */ (document.getElementById(id));
  /** @type {Part} */
  const one = { element, draw, isSeen: false, isStale: true, running: null };
  parts.set(id, one);
  new IntersectionObserver((entries) => {
    one.isSeen = entries[entries.length - 1].isIntersecting;
    if (one.isSeen && (one.isStale || one.running)) document.documentElement.dataset.drawn = "no";
    ask();
  }, { rootMargin: "100px" }).observe(element);
}

/** What these parts show has changed; all of them, unless some are named.
 * @param {string[]} ids */
export function changed(...ids) {
  for (const id of ids.length ? ids : parts.keys()) {
    const one = /** @type {Part} */ (parts.get(id));
    one.isStale = true;
    one.running = null;
    one.element.dataset.drawn = "no";
  }
  document.documentElement.dataset.drawn = "no";
  ask();
}

function ask() {
  if (!isAsked) requestAnimationFrame(work);
  isAsked = true;
}

function work() {
  isAsked = false;
  const end = performance.now() + SLICE;
  const seen = [...parts.values()].filter((one) => one.isSeen);
  for (const one of seen) {
    if (one.isStale) {
      one.isStale = false;
      one.running = one.draw() ?? null;
    }
    while (one.running && performance.now() < end) if (one.running.next().done) one.running = null;
    if (!one.running) one.element.dataset.drawn = "yes";
  }
  if (seen.some((one) => one.running)) ask();
  else if (seen.length) document.documentElement.dataset.drawn = "all";
}
