/** The digit on the page, the pixel that is chosen in it, and the models' answers to it. */

import { modelOf, pixelsOf } from "./load.js";
import { changed } from "./parts.js";
import { forward } from "./vit.js";

/** @typedef {import("./vit.js").Model} Model */

export const SIDE = 8;
/** A digit is drawn in black and white, then its ink is counted in squares of 4 × 4, as those of the data set were. */
export const FINE = 32;
const SQUARE = FINE / SIDE;
const PEN = 2.1; // radius of the pen

/** @type {Record<string, Model>} */
export const models = {};
/** @type {{label: number, counts: number[]}[]} */
export const examples = [];

export const state = { ink: new Uint8Array(FINE * FINE), pixel: 27, mixer: "attention" };

/**
 * @param {{models: import("./load.js").Kept[], examples: {label: number, counts: number[]}[]}} about
 * @param {Record<string, Uint8Array>} bytes of the models
 */
export function begin(about, bytes) {
  for (const kept of about.models) models[kept.mixer] = modelOf(kept, bytes[kept.mixer]);
  examples.push(...about.examples);
  fillIn(examples[3].counts);
}

/** The ink in each square, 0 to 16. */
export function counts() {
  const found = new Array(SIDE * SIDE).fill(0);
  state.ink.forEach((ink, at) => {
    const [y, x] = [Math.floor(at / FINE), at % FINE];
    found[Math.floor(y / SQUARE) * SIDE + Math.floor(x / SQUARE)] += ink;
  });
  return found;
}

/** Puts a digit of the data set in place of what was drawn.
 * @param {number[]} amounts */
export function show(amounts) {
  fillIn(amounts);
  forget();
}

/** So much ink in each square, from its middle outwards.
 * @param {number[]} amounts */
function fillIn(amounts) {
  const middle = (SQUARE - 1) / 2;
  const order = Array.from({ length: SQUARE * SQUARE }, (_, at) => [Math.floor(at / SQUARE), at % SQUARE]).sort(
    (a, b) => Math.hypot(a[0] - middle, a[1] - middle) - Math.hypot(b[0] - middle, b[1] - middle),
  );
  state.ink.fill(0);
  amounts.forEach((amount, square) => {
    const [top, left] = [Math.floor(square / SIDE) * SQUARE, (square % SIDE) * SQUARE];
    for (const [y, x] of order.slice(0, amount)) state.ink[(top + y) * FINE + left + x] = 1;
  });
}

export function clear() {
  state.ink.fill(0);
  forget();
}

/**
 * A stroke of the pen, or of the rubber, from one place to another in fine pixels.
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 * @param {boolean} isRubber
 */
export function stroke(x0, y0, x1, y1, isRubber) {
  const steps = Math.ceil(2 * Math.hypot(x1 - x0, y1 - y0)) + 1;
  for (let step = 0; step <= steps; step++) {
    const [x, y] = [x0 + ((x1 - x0) * step) / steps, y0 + ((y1 - y0) * step) / steps];
    for (let row = Math.max(0, Math.floor(y - PEN)); row <= Math.min(FINE - 1, y + PEN); row++) {
      for (let column = Math.max(0, Math.floor(x - PEN)); column <= Math.min(FINE - 1, x + PEN); column++) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= PEN) state.ink[row * FINE + column] = isRubber ? 0 : 1;
      }
    }
  }
  forget();
}

/** @type {Map<string, import("./vit.js").Trace>} */
const traces = new Map();

function forget() {
  traces.clear();
  changed();
}

/** What the digit becomes for a model. */
export function pixels() {
  return pixelsOf(counts());
}

/** A model's forward pass on the digit, computed once.
 * @param {string} mixer */
export function traceOf(mixer) {
  const known = traces.get(mixer) ?? forward(models[mixer], pixels());
  traces.set(mixer, known);
  return known;
}

/** @param {number} pixel */
export function choose(pixel) {
  state.pixel = pixel;
  changed("windows", "features", "mixing");
}

/** @param {number} [pixel] */
export function pixelName(pixel = state.pixel) {
  return `row ${Math.floor(pixel / SIDE) + 1}, column ${(pixel % SIDE) + 1}`;
}
