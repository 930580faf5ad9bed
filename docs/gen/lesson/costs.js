/** What mixers of a ViT-B cost for N tokens: operations (a multiply and an add are two), and bytes of N × N. */

const DIM = 768;
const HEADS = 12;
const WINDOW = 7;
const FEATURES = 2 * (DIM / HEADS);
const HIDDEN = DIM / 2;

/** Of attention, local and performer: q, k, v and the output.
 * @param {number} n */
const projections = (n) => 8 * n * DIM ** 2;

/** Operations of one layer, for a square of so many tokens along a side.
 * @type {Record<string, (side: number) => number>} */
export const OPERATIONS = {
  attention: (side) => projections(side ** 2) + 4 * side ** 4 * DIM,
  local: (side) => projections(side ** 2) + 4 * side ** 2 * Math.min(WINDOW, side) ** 2 * DIM + 2 * side ** 2 * WINDOW * DIM,
  performer: (side) => projections(side ** 2) + 8 * side ** 2 * FEATURES * DIM + 2 * side ** 2 * FEATURES * HEADS,
  fourier: (side) => Math.round(5 * side ** 2 * DIM * Math.log2(side ** 2 * DIM)),
  mlp: (side) => 4 * DIM * side ** 2 * HIDDEN,
};

/** Of the matrices of all heads in float32.
 * @param {number} side */
export function matrixBytes(side) {
  return HEADS * side ** 4 * 4;
}

/**
 * 1234567 -> "1.2 M"
 * @param {number} value
 */
export function short(value) {
  const step = Math.min(Math.max(Math.floor(Math.log10(Math.max(value, 1)) / 3), 0), 5);
  const part = value / 1000 ** step;
  return `${part < 9.95 && step ? part.toFixed(1) : part.toFixed(0)} ${["", "k", "M", "G", "T", "P"][step]}`.trim();
}
