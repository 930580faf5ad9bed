/** What the file holds, what of it is looked at, and how to look at something else. */

import { inflated } from "./pieces.js";
import { within } from "./view.js";

/**
 * @typedef {{method: string, says: string[], rows: number, columns: number, signed: boolean, values: number[],
 *   verdict: string, fractions: number[], deletion: number[], measured: string}} Found
 * @typedef {{name: string, src: string, width: number, height: number, grid: import("./maths.js").Grid,
 *   layers: import("./maths.js").Layer[], bars: {name: string, value: number}[],
 *   boxes: {name: string, score: number, layers: number[][]}[], maps: Found[],
 *   shared: {random?: number[], centre?: number[]}, notes: string[]}} Picture
 */

/** @type {{runs: {name: string, images: Picture[]}[]}} */
export const about = { runs: [] };

/** @type {import("./view.js").View} */
export const view = { run: 0, image: 0, layer: "", head: -1, token: 0, method: "row", compare: false };

/** Reads what the file holds, but for the numbers of its layers. */
export async function load() {
  Object.assign(about, JSON.parse(new TextDecoder().decode(await inflated("about"))));
}

/** @param {string} id */
export function the(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {string} id */
export function canvas(id) {
  return /** @type {HTMLCanvasElement} */ (the(id));
}

/**
 * @param {string} tag
 * @param {string} text
 */
export function made(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

/** @param {number} [run] */
export function picture(run = view.run) {
  return about.runs[run].images[view.image];
}

/** @param {Picture} [of] */
export function methodsOf(of = picture()) {
  const others = of.maps.map((found) => found.method).filter((name) => name !== "rows" && name !== "influence");
  return of.layers.length ? ["row", ...others] : others;
}

/** The layer's place among those of a picture; the last where there is no such layer.
 * @param {Picture} [of] */
export function place(of = picture()) {
  const found = of.layers.findIndex((layer) => layer.name === view.layer);
  return found < 0 ? of.layers.length - 1 : found;
}

/** Makes the view one that is there. */
export function settle() {
  view.run = within(view.run, 0, about.runs.length - 1);
  view.image = within(view.image, 0, about.runs[view.run].images.length - 1);
  const now = picture();
  const methods = methodsOf();
  if (!methods.includes(view.method)) view.method = methods[0] ?? "";
  const layer = now.layers[place()];
  view.layer = layer?.name ?? "";
  view.head = layer && layer.heads > 1 ? within(view.head, -1, layer.heads - 1) : -1;
  view.token = within(view.token, 0, (layer?.queries ?? 1) - 1);
  view.compare = view.compare && about.runs.length > 1;
}

/** @type {() => void} */
let changed = () => {};

/** @param {() => void} draw called after each change of the view */
export function whenChanged(draw) {
  changed = draw;
}

/** Goes to another view.
 * @param {Partial<import("./view.js").View>} changes */
export function go(changes) {
  Object.assign(view, changes);
  changed();
}
