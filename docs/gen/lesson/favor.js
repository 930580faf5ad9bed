/** FAVOR+: random features whose products estimate softmax's kernel (Choromanski et al. 2020). */

import { rowProducts } from "./products.js";

/**
 * φ(x) = exp(w·x' - |x'|²/2) / √features with x' = x / head_dim^¼; divided by the largest of each query, or of all keys.
 * @param {Float64Array} x (tokens, size)
 * @param {Float64Array} projection w, (features, size)
 * @param {number} size head_dim
 * @param {boolean} isQuery
 * @returns {Float64Array} (tokens, features)
 */
export function favorFeatures(x, projection, size, isQuery) {
  const count = projection.length / size;
  const scale = size ** -0.25;
  const norm = count ** -0.5;
  const scaled = x.map((value) => value * scale);
  const found = rowProducts(scaled, projection, size);
  const tops = new Float64Array(x.length / size).fill(-Infinity);
  for (let t = 0; t < tops.length; t++) {
    let squares = 0;
    for (let c = t * size; c < (t + 1) * size; c++) squares += scaled[c] ** 2;
    for (let i = t * count; i < (t + 1) * count; i++) {
      found[i] -= squares / 2;
      if (found[i] > tops[t]) tops[t] = found[i];
    }
  }
  if (!isQuery) tops.fill(tops.reduce((a, b) => Math.max(a, b)));
  for (let t = 0; t < tops.length; t++) {
    for (let i = t * count; i < (t + 1) * count; i++) found[i] = Math.exp(found[i] - tops[t]) * norm;
  }
  return found;
}

/** Numbers from 0 to 1 that follow from a seed (mulberry32).
 * @param {number} seed */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Numbers of the normal distribution (Box and Muller).
 * @param {() => number} draw */
function normal(draw) {
  return Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
}

/**
 * Random directions, orthogonal within each block of `size` rows, each times the norm of a Gaussian vector of its own
 * (Choromanski et al. 2020, section 2.4).
 * @param {number} count
 * @param {number} size
 * @param {number} seed
 */
export function orthogonalProjection(count, size, seed) {
  const draw = uniform(seed);
  const found = new Float64Array(count * size);
  for (let row = 0; row < count; row++) {
    const own = found.subarray(row * size, (row + 1) * size).map(() => normal(draw));
    for (let other = row - (row % size); other < row; other++) {
      const before = found.subarray(other * size, (other + 1) * size);
      const along = before.reduce((sum, value, c) => sum + value * own[c], 0);
      for (let c = 0; c < size; c++) own[c] -= along * before[c];
    }
    const length = Math.hypot(...own);
    found.set(own.map((value) => value / length), row * size);
  }
  for (let row = 0; row < count; row++) {
    const length = Math.hypot(...Array.from({ length: size }, () => normal(draw)));
    for (let c = 0; c < size; c++) found[row * size + c] *= length;
  }
  return found;
}

/** ‖found - exact‖ / ‖exact‖
 * @param {ArrayLike<number>} found
 * @param {ArrayLike<number>} exact */
export function relativeError(found, exact) {
  let apart = 0;
  let whole = 0;
  for (let i = 0; i < exact.length; i++) {
    apart += (found[i] - exact[i]) ** 2;
    whole += exact[i] ** 2;
  }
  return Math.sqrt(apart / whole);
}
