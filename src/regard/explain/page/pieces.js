/** The pieces of the file: deflated, base64. */

import { fromHalf } from "./maths.js";

/** The file does not hold what it was written with. */
export class Damaged extends Error {}

/** @type {Map<string, Float32Array>} */
const known = new Map();

/**
 * @param {string} id of the element that holds it
 * @returns {Promise<Uint8Array>}
 */
export async function inflated(id) {
  const text = document.getElementById(id)?.textContent ?? "";
  try {
    const letters = atob(text);
    const packed = new Uint8Array(letters.length);
    for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new Damaged(`${id}: ${error}`);
  }
}

/**
 * Reads the numbers of some layers, once.
 * @param {import("./maths.js").Layer[]} layers
 */
export async function prepare(layers) {
  for (const layer of layers) {
    if (!known.has(layer.piece)) known.set(layer.piece, fromHalf(await inflated(layer.piece)));
  }
}

/**
 * @param {import("./maths.js").Layer} layer one that was prepared
 * @returns {Float32Array}
 */
export function numbersOf(layer) {
  return /** @type {Float32Array} */ (known.get(layer.piece));
}
