/** The mixing matrix A of each mixer, and its gradient with respect to q and k. */

import { favorFeatures } from "./favor.js";
import { rowProducts } from "./products.js";

/** @typedef {import("./vit.js").Model} Model */

/**
 * @typedef {object} Mixer
 * @property {(model: Model, block: number, qkv: Float64Array) => {matrix: Float64Array, kept: any}} matrix
 *   A, (heads, tokens, tokens), and what `back` needs
 * @property {(model: Model, block: number, layer: import("./vit.js").Layer, dA: Float64Array) => Float64Array} back
 *   the gradient of q and k, laid out as qkv
 */

/** Where q (0), k (1) or v (2) of a token's head begins.
 * @param {Model} model
 * @param {number} part
 * @param {number} token
 * @param {number} head */
export function place({ dim, heads }, part, token, head) {
  return (token * 3 + part) * dim + head * (dim / heads);
}

/**
 * softmax of one row in place, over the places that are not -∞.
 * @param {Float64Array} matrix
 * @param {number} from
 * @param {number} count
 */
function softmaxRow(matrix, from, count) {
  let most = -Infinity;
  for (let j = from; j < from + count; j++) if (matrix[j] > most) most = matrix[j];
  let total = 0;
  for (let j = from; j < from + count; j++) total += matrix[j] = Math.exp(matrix[j] - most);
  for (let j = from; j < from + count; j++) matrix[j] /= total;
}

/** softmax(q kᵀ / √d) (Vaswani et al. 2017, eq. 1).
 * @type {Mixer} */
const attention = {
  matrix(model, _, qkv) {
    const { dim, heads } = model;
    const tokens = qkv.length / (3 * dim);
    const size = dim / heads;
    const scale = size ** -0.5;
    const matrix = new Float64Array(heads * tokens * tokens);
    for (let h = 0; h < heads; h++) {
      const q = headOf(model, qkv, 0, h).map((value) => value * scale);
      matrix.set(rowProducts(q, headOf(model, qkv, 1, h), size), h * tokens * tokens);
    }
    for (let at = 0; at < matrix.length; at += tokens) softmaxRow(matrix, at, tokens);
    return { matrix, kept: null };
  },
  back(model, _, { qkv, matrix }, dA) {
    return softmaxBack(model, qkv, matrix, dA, () => null);
  },
};

/**
 * From dA to dq and dk, where A is a softmax of (q_i · (k_j + r_ij)) / √d.
 * @param {Model} model
 * @param {Float64Array} qkv
 * @param {Float64Array} matrix
 * @param {Float64Array} dA
 * @param {(i: number, j: number) => Float64Array | null} offset r_ij
 */
function softmaxBack(model, qkv, matrix, dA, offset) {
  const { dim, heads } = model;
  const tokens = qkv.length / (3 * dim);
  const size = dim / heads;
  const scale = size ** -0.5;
  const dQkv = new Float64Array(qkv.length);
  for (let h = 0, at = 0; h < heads; h++) {
    for (let i = 0; i < tokens; i++, at += tokens) {
      let along = 0;
      for (let j = at; j < at + tokens; j++) along += matrix[j] * dA[j];
      const q = place(model, 0, i, h);
      for (let j = 0; j < tokens; j++) {
        const d = matrix[at + j] * (dA[at + j] - along) * scale;
        if (d === 0) continue;
        const k = place(model, 1, j, h);
        const r = offset(i, j);
        for (let c = 0; c < size; c++) {
          dQkv[q + c] += d * (qkv[k + c] + (r ? r[c] : 0));
          dQkv[k + c] += d * qkv[q + c];
        }
      }
    }
  }
  return dQkv;
}

/**
 * The embedding of the offset from pixel i to pixel j: one half of the row offset's, one of the column offset's.
 * @param {Model} model
 * @param {number} block
 */
function offsets(model, block) {
  const { side, window, weights } = model;
  const [rows, columns] = ["rel_rows", "rel_cols"].map((name) => weights[`blocks.${block}.mixer.${name}`]);
  const table = Array.from({ length: window * window }, (_, place) => {
    const [down, right] = [Math.floor(place / window), place % window];
    const [ofRows, ofColumns] = [rows.length / window, columns.length / window];
    return Float64Array.of(
      ...rows.subarray(down * ofRows, (down + 1) * ofRows),
      ...columns.subarray(right * ofColumns, (right + 1) * ofColumns),
    );
  });
  const radius = (window - 1) / 2;
  /** @param {number} i
   * @param {number} j */
  return (i, j) => {
    const down = Math.floor(j / side) - Math.floor(i / side) + radius;
    const right = (j % side) - (i % side) + radius;
    return table[down * window + right];
  };
}

/** softmax((q·k + q·r) / √d) over the window around each pixel (Ramachandran et al. 2019, eq. 3).
 * @type {Mixer} */
const local = {
  matrix(model, block, qkv) {
    const { dim, heads, side } = model;
    const tokens = side * side;
    const size = dim / heads;
    const scale = size ** -0.5;
    const radius = (model.window - 1) / 2;
    const matrix = new Float64Array(heads * tokens * tokens).fill(-Infinity);
    const offset = offsets(model, block);
    for (let h = 0, at = 0; h < heads; h++) {
      for (let i = 0; i < tokens; i++, at += tokens) {
        const [y, x] = [Math.floor(i / side), i % side];
        const q = place(model, 0, i, h);
        for (let row = Math.max(y - radius, 0); row <= Math.min(y + radius, side - 1); row++) {
          for (let column = Math.max(x - radius, 0); column <= Math.min(x + radius, side - 1); column++) {
            const j = row * side + column;
            const k = place(model, 1, j, h);
            const r = offset(i, j);
            let sum = 0;
            for (let d = 0; d < size; d++) sum += qkv[q + d] * (qkv[k + d] + r[d]);
            matrix[at + j] = sum * scale;
          }
        }
        softmaxRow(matrix, at, tokens);
      }
    }
    return { matrix, kept: null };
  },
  back(model, block, { qkv, matrix }, dA) {
    return softmaxBack(model, qkv, matrix, dA, offsets(model, block));
  },
};

/** φ(q)·φ(k) / Σ_j φ(q)·φ(k_j) (Choromanski et al. 2020). 65 tokens are few enough to write the matrix down.
 * @type {Mixer} */
const performer = {
  matrix(model, block, qkv) {
    const { dim, heads, weights } = model;
    const tokens = qkv.length / (3 * dim);
    const size = dim / heads;
    const projection = weights[`blocks.${block}.mixer.projection`];
    const matrix = new Float64Array(heads * tokens * tokens);
    const kept = [];
    for (let h = 0; h < heads; h++) {
      const q = favorFeatures(headOf(model, qkv, 0, h), projection, size, true);
      const k = favorFeatures(headOf(model, qkv, 1, h), projection, size, false);
      const found = quotients(q, k, tokens);
      matrix.set(found.matrix, h * tokens * tokens);
      kept.push({ q, k, totals: found.totals });
    }
    return { matrix, kept };
  },
  back(model, block, { qkv, matrix, kept }, dA) {
    const { dim, heads, weights } = model;
    const tokens = qkv.length / (3 * dim);
    const projection = weights[`blocks.${block}.mixer.projection`];
    const dQkv = new Float64Array(qkv.length);
    for (let h = 0; h < heads; h++) {
      const { q, k, totals } = kept[h];
      const count = q.length / tokens;
      const [dQ, dK] = [new Float64Array(q.length), new Float64Array(k.length)];
      for (let i = 0, at = h * tokens * tokens; i < tokens; i++, at += tokens) {
        let along = 0;
        for (let j = at; j < at + tokens; j++) along += matrix[j] * dA[j];
        for (let j = 0; j < tokens; j++) {
          const d = (dA[at + j] - along) / totals[i];
          for (let f = 0; f < count; f++) {
            dQ[i * count + f] += d * k[j * count + f];
            dK[j * count + f] += d * q[i * count + f];
          }
        }
      }
      featuresBack(model, qkv, dQkv, 0, h, projection, q, dQ);
      featuresBack(model, qkv, dQkv, 1, h, projection, k, dK);
    }
    return dQkv;
  },
};

/**
 * φ(q) φ(k)ᵀ divided by its sums over keys, and the sums.
 * @param {Float64Array} q
 * @param {Float64Array} k
 * @param {number} tokens
 */
export function quotients(q, k, tokens) {
  const matrix = rowProducts(q, k, q.length / tokens);
  const totals = new Float64Array(tokens);
  for (let i = 0, at = 0; i < tokens; i++, at += tokens) {
    for (let j = at; j < at + tokens; j++) totals[i] += matrix[j];
    for (let j = at; j < at + tokens; j++) matrix[j] /= totals[i];
  }
  return { matrix, totals };
}

/**
 * q or k of one head, (tokens, head_dim).
 * @param {Model} model
 * @param {Float64Array} qkv
 * @param {number} part
 * @param {number} head
 */
export function headOf(model, qkv, part, head) {
  const size = model.dim / model.heads;
  const tokens = qkv.length / (3 * model.dim);
  const found = new Float64Array(tokens * size);
  for (let t = 0; t < tokens; t++) {
    const from = place(model, part, t, head);
    found.set(qkv.subarray(from, from + size), t * size);
  }
  return found;
}

/**
 * From the gradient of exp(w·x' - |x'|²/2) to that of x; the stabiliser cancels in the quotient.
 * @param {Model} model
 * @param {Float64Array} qkv
 * @param {Float64Array} dQkv where it goes
 * @param {number} part
 * @param {number} head
 * @param {Float64Array} projection
 * @param {Float64Array} features
 * @param {Float64Array} dFeatures
 */
function featuresBack(model, qkv, dQkv, part, head, projection, features, dFeatures) {
  const size = model.dim / model.heads;
  const tokens = qkv.length / (3 * model.dim);
  const count = features.length / tokens;
  const scale = size ** -0.25;
  for (let t = 0; t < tokens; t++) {
    const at = place(model, part, t, head);
    for (let f = 0; f < count; f++) {
      const d = features[t * count + f] * dFeatures[t * count + f];
      for (let c = 0; c < size; c++) dQkv[at + c] += d * scale * (projection[f * size + c] - scale * qkv[at + c]);
    }
  }
}

/** @type {Record<string, Mixer>} */
export const MIXERS = { attention, local, performer };
