/** Deletion: patches leave the image in an order, and the class's probability falls (Petsiuk et al. 2018). */

import { forward, softmax } from "./vit.js";
import { uniform } from "./favor.js";

export const STEPS = 16;
export const NUM_RANDOM = 8;
// A map beats chance by so many deviations of the random orders below their mean, and the centre by a tenth of one.
const [BEYOND, BEYOND_CENTRE] = [1.25, 0.1];

/** The pixels of a map, the largest value first.
 * @param {ArrayLike<number>} values */
export function orderOf(values) {
  return Array.from(values, (_, at) => at).sort((a, b) => values[b] - values[a]);
}

/** A map that knows nothing but the centre.
 * @param {number} side */
export function centreMap(side) {
  const middle = (side - 1) / 2;
  return Array.from({ length: side * side }, (_, at) => -Math.hypot(Math.floor(at / side) - middle, (at % side) - middle));
}

/** One random order, each begun an eighth further on, so that every pixel has its turn early and late.
 * @param {number} count
 * @param {number} seed */
export function randomOrders(count, seed) {
  const draw = uniform(seed);
  const base = Array.from({ length: count }, (_, at) => at);
  for (let at = count - 1; at > 0; at--) {
    const other = Math.floor(draw() * (at + 1));
    [base[at], base[other]] = [base[other], base[at]];
  }
  return Array.from({ length: NUM_RANDOM }, (_, number) => {
    const from = Math.floor((number * count) / NUM_RANDOM);
    return [...base.slice(from), ...base.slice(0, from)];
  });
}

/** The image without the first pixels of an order; they get its mean.
 * @param {ArrayLike<number>} pixels
 * @param {number[]} order
 * @param {number} step of STEPS */
export function without(pixels, order, step) {
  const left = Float64Array.from(pixels);
  const mean = left.reduce((a, b) => a + b, 0) / left.length;
  for (const pixel of order.slice(0, Math.round((step * left.length) / STEPS))) left[pixel] = mean;
  return left;
}

/**
 * The probability of a class after each step.
 * @param {import("./vit.js").Model} model
 * @param {ArrayLike<number>} pixels
 * @param {number[]} order
 * @param {number} label
 * @returns {Generator<void, number[]>}
 */
export function* deletionCurve(model, pixels, order, label) {
  const curve = [];
  for (let step = 0; step <= STEPS; step++) {
    curve.push(softmax(forward(model, without(pixels, order, step)).logits)[label]);
    yield;
  }
  return curve;
}

/** The area under a curve, by trapezoids.
 * @param {number[]} curve */
export function area(curve) {
  return curve.slice(1).reduce((sum, value, i) => sum + (value + curve[i]) / 2, 0) / (curve.length - 1);
}

/**
 * "beats both", "no better than the centre" or "no better than random".
 * @param {number} deletion
 * @param {number[]} random areas
 * @param {number} centre
 */
export function verdict(deletion, random, centre) {
  const mean = random.reduce((a, b) => a + b, 0) / random.length;
  const deviation = Math.sqrt(random.reduce((sum, value) => sum + (value - mean) ** 2, 0) / random.length);
  if (!(deletion < mean - BEYOND * deviation)) return "no better than random";
  return deletion < centre - BEYOND_CENTRE * deviation ? "beats both" : "no better than the centre";
}
