/** What is looked at, and how the page's address holds it. */

/**
 * @typedef {object} View
 * @property {number} run
 * @property {number} image
 * @property {string} layer
 * @property {number} head -1 is the mean over heads
 * @property {number} token
 * @property {string} method
 * @property {boolean} compare
 */

/**
 * @param {View} view
 * @returns {string} without the #
 */
export function toHash(view) {
  const { run, image, layer, head, token, method } = view;
  const parts = { run, image, layer, head: head < 0 ? "mean" : head, token, method };
  const text = Object.entries(parts).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return text.join("&") + (view.compare ? "&compare=1" : "");
}

/**
 * @param {string} hash with or without the #
 * @returns {Partial<View>} what it names; what it does not, or what is no number, is left out
 */
export function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  /** @type {Partial<View>} */
  const view = {};
  for (const name of /** @type {const} */ (["run", "image", "head", "token"])) {
    const text = given.get(name);
    if (name === "head" && text === "mean") view.head = -1;
    else if (text !== null && /^\d+$/.test(text)) view[name] = Number(text);
  }
  const layer = given.get("layer");
  const method = given.get("method");
  if (layer) view.layer = layer;
  if (method) view.method = method;
  if (given.has("compare")) view.compare = given.get("compare") === "1";
  return view;
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export function within(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
