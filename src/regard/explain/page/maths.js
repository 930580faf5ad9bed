/** Numbers and words of the page, without a document. */

/** What each of the 65,536 half-precision numbers is: to look a number up is faster than to work it out. */
const HALVES = Float32Array.from({ length: 65536 }, (_, half) => {
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  const normal = exponent < 31 ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction ? NaN : Infinity;
  const size = exponent ? normal : fraction * 2 ** -24;
  return half & 0x8000 ? -size : size;
});

/**
 * Half-precision numbers as they are stored, little-endian, as float32.
 * @param {Uint8Array} bytes
 * @returns {Float32Array}
 */
export function fromHalf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = new Float32Array(bytes.byteLength >> 1);
  for (let i = 0; i < found.length; i++) found[i] = HALVES[view.getUint16(2 * i, true)];
  return found;
}

/**
 * softmax_j(q_i · k_j) of one head. q holds the scale already.
 * @param {Float32Array} q (heads, tokens, size)
 * @param {Float32Array} k (heads, tokens, size)
 * @param {number} tokens
 * @param {number} size values of a token in a head
 * @param {number} head
 * @param {number} token the query i
 * @returns {Float32Array} what it takes from each token
 */
export function softmaxRow(q, k, tokens, size, head, token) {
  const row = new Float32Array(tokens);
  const from = (head * tokens + token) * size;
  let most = -Infinity;
  for (let j = 0, at = head * tokens * size; j < tokens; j++) {
    let sum = 0;
    for (let d = 0; d < size; d++) sum += q[from + d] * k[at++];
    row[j] = sum;
    if (sum > most) most = sum;
  }
  let total = 0;
  for (let j = 0; j < tokens; j++) total += row[j] = Math.exp(row[j] - most);
  for (let j = 0; j < tokens; j++) row[j] /= total;
  return row;
}

/**
 * @typedef {object} Layer
 * @property {string} name
 * @property {string} mixer
 * @property {string} kind "matrix" or "influence"
 * @property {number} heads
 * @property {number} queries
 * @property {number} size of q and k: values of a token in a head; of rows: keys
 * @property {boolean} is_qk
 * @property {number} unit
 * @property {string} piece
 */

/**
 * What a token takes in a layer, in one head or in the mean over heads (-1).
 * @param {Layer} layer
 * @param {Float32Array} numbers
 * @param {number} head
 * @param {number} token
 * @returns {Float32Array}
 */
export function rowOf(layer, numbers, head, token) {
  if (head < 0 && layer.heads > 1) {
    const mean = new Float32Array(layer.is_qk ? layer.queries : layer.size);
    for (let h = 0; h < layer.heads; h++) {
      const row = rowOf(layer, numbers, h, token);
      for (let j = 0; j < row.length; j++) mean[j] += row[j] / layer.heads;
    }
    return mean;
  }
  head = Math.max(head, 0);
  if (layer.is_qk) {
    const half = numbers.length >> 1;
    return softmaxRow(numbers.subarray(0, half), numbers.subarray(half), layer.queries, layer.size, head, token);
  }
  const from = (head * layer.queries + token) * layer.size;
  return numbers.slice(from, from + layer.size).map((value) => value * layer.unit);
}

/** @typedef {{height: number, width: number, prefix: number}} Grid */

/**
 * A token's name, as Python gives it.
 * @param {Grid} grid
 * @param {number} token
 */
export function tokenName(grid, token) {
  if (token < grid.prefix) return token ? `register ${token}` : "class token";
  const place = token - grid.prefix;
  return `patch (${Math.floor(place / grid.width)}, ${place % grid.width})`;
}

/**
 * "patch (3, 4) takes 12% from (3, 5)"
 * @param {Grid} grid
 * @param {string} who
 * @param {ArrayLike<number>} row over all tokens
 * @param {string} kind
 */
export function sentence(grid, who, row, kind) {
  let best = grid.prefix;
  let prefix = 0;
  let total = 0;
  for (let j = 0; j < row.length; j++) {
    total += row[j];
    if (j < grid.prefix) prefix += row[j];
    else if (row[j] > row[best]) best = j;
  }
  const where = tokenName(grid, best).replace("patch ", "");
  if (kind === "influence") return `${who} depends most on ${where}: ${percent(row[best] / total)} of all influence`;
  const others = grid.prefix > 1 ? ` and ${grid.prefix - 1} register${grid.prefix > 2 ? "s" : ""}` : "";
  const first = grid.prefix ? `; the class token${others} ${others ? "give" : "gives"} ${percent(prefix)}` : "";
  return `${who} takes ${percent(row[best])} from ${where}${first}`;
}

/** @param {number} value */
export function percent(value) {
  const hundredths = 100 * value;
  return `${hundredths >= 9.95 ? hundredths.toFixed(0) : Number(hundredths.toPrecision(2))}%`;
}
