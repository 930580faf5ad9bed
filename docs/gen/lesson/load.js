/** What the page carries: the models, and some digits. */

import { fromHalf } from "../../../src/regard/explain/page/maths.js";

/** @typedef {import("./vit.js").Model} Model */
/** @typedef {Omit<Model, "weights"> & {shapes: Record<string, number[]>}} Kept */

/**
 * A model, of what is known about it and its half floats in the order of the shapes: all lower bytes, then all higher.
 * @param {Kept} kept
 * @param {Uint8Array} bytes
 * @returns {Model}
 */
export function modelOf(kept, bytes) {
  const half = bytes.length / 2;
  const numbers = Float64Array.from(fromHalf(bytes.map((_, i) => bytes[(i % 2) * half + (i >> 1)])));
  /** @type {Record<string, Float64Array>} */
  const weights = {};
  let from = 0;
  for (const [name, shape] of Object.entries(kept.shapes)) {
    const end = from + shape.reduce((a, b) => a * b, 1);
    weights[name] = numbers.subarray(from, end);
    from = end;
  }
  return { ...kept, weights };
}

/** The pixels, from 0 to 1, of a digit whose ink is counted in squares of 4 × 4: 0 to 16.
 * @param {ArrayLike<number>} counts */
export function pixelsOf(counts) {
  return Float64Array.from(counts, (count) => Math.round((count * 255) / 16) / 255);
}
