/** A ViT in plain JavaScript: forward, one pass backward, and what is read off them. The names are the package's. */

import { headOf, MIXERS } from "./mixers.js";
import { linear, linearBack, rowProducts, transposed } from "./products.js";

/**
 * @typedef {object} Model
 * @property {string} mixer "attention", "local" or "performer"
 * @property {number} side patches along a side of the grid; each patch is one pixel
 * @property {number} prefix 1 with a class token, which the head then reads; 0: the head reads the mean of the patches
 * @property {number} dim
 * @property {number} heads
 * @property {number} depth
 * @property {number} window of `local`
 * @property {number} mean of the pixels, which are from 0 to 1
 * @property {number} std
 * @property {Record<string, Float64Array>} weights by the package's names
 */

/** @typedef {{xhat: Float64Array, scale: Float64Array}} Normed of each value, and 1 / deviation of each token */

/**
 * @typedef {object} Layer what a block leaves behind
 * @property {Normed} norm1
 * @property {Float64Array} qkv (tokens, 3, heads, head_dim)
 * @property {Float64Array} matrix A, (heads, tokens, tokens)
 * @property {any} kept what the mixer needs on the way back
 * @property {Normed} norm2
 * @property {Float64Array} hidden before the activation
 */

/** @typedef {{logits: Float64Array, layers: Layer[], tokens: number, norm: Normed}} Trace */

const EPS = 1e-6;

/**
 * (x - mean) / √(variance + ε) of each token; weight and bias are left to `affine`.
 * @param {Float64Array} x
 * @param {number} dim
 * @returns {Normed}
 */
function normed(x, dim) {
  const xhat = new Float64Array(x.length);
  const scale = new Float64Array(x.length / dim);
  for (let t = 0, at = 0; t < scale.length; t++, at += dim) {
    let sum = 0;
    for (let i = at; i < at + dim; i++) sum += x[i];
    const mean = sum / dim;
    let squares = 0;
    for (let i = at; i < at + dim; i++) squares += (x[i] - mean) ** 2;
    scale[t] = 1 / Math.sqrt(squares / dim + EPS);
    for (let i = at; i < at + dim; i++) xhat[i] = (x[i] - mean) * scale[t];
  }
  return { xhat, scale };
}

/**
 * @param {Float64Array} xhat
 * @param {Float64Array} weight
 * @param {Float64Array} bias
 */
function affine(xhat, weight, bias) {
  const dim = weight.length;
  const y = new Float64Array(xhat.length);
  for (let at = 0; at < y.length; at += dim) {
    for (let i = 0; i < dim; i++) y[at + i] = xhat[at + i] * weight[i] + bias[i];
  }
  return y;
}

/** A layer norm as a whole.
 * @param {Float64Array} x
 * @param {Float64Array} weight
 * @param {Float64Array} bias */
export function affineNorm(x, weight, bias) {
  return affine(normed(x, weight.length).xhat, weight, bias);
}

/**
 * The gradient of a layer norm with respect to its input.
 * @param {Float64Array} dy
 * @param {Normed} norm
 * @param {Float64Array} weight
 */
function normBack(dy, { xhat, scale }, weight) {
  const dim = weight.length;
  const dx = new Float64Array(dy.length);
  for (let t = 0, at = 0; t < scale.length; t++, at += dim) {
    let mean = 0;
    let along = 0;
    for (let i = 0; i < dim; i++) {
      const d = dy[at + i] * weight[i];
      mean += d / dim;
      along += (d * xhat[at + i]) / dim;
    }
    for (let i = 0; i < dim; i++) dx[at + i] = scale[t] * (dy[at + i] * weight[i] - mean - xhat[at + i] * along);
  }
  return dx;
}

/** The distribution of the normal curve, to 7.5e-8 (Abramowitz and Stegun, 26.2.17).
 * @param {number} x */
function normalCdf(x) {
  const t = 1 / (1 + 0.2316419 * Math.abs(x));
  const series = t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  const tail = 0.3989422804014327 * Math.exp((-x * x) / 2) * series;
  return x > 0 ? 1 - tail : tail;
}

/** @param {number} x */
export function gelu(x) {
  return x * normalCdf(x);
}

/** @param {number} x */
function geluSlope(x) {
  return normalCdf(x) + 0.3989422804014327 * x * Math.exp((-x * x) / 2);
}

/** @param {Float64Array} a
 * @param {Float64Array} b */
function sum(a, b) {
  return a.map((value, i) => value + b[i]);
}

/**
 * The tokens before the first block: W pixel + b, the class token before them, and the positions.
 * @param {Model} model
 * @param {ArrayLike<number>} pixels from 0 to 1
 */
export function embed({ weights, prefix, dim, mean, std }, pixels) {
  const x = Float64Array.from(weights["pos_embed.table"]);
  if (prefix) for (let d = 0; d < dim; d++) x[d] += weights.cls_token[d];
  const [w, b] = [weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"]];
  for (let t = 0; t < pixels.length; t++) {
    const value = (pixels[t] - mean) / std;
    for (let d = 0; d < dim; d++) x[(prefix + t) * dim + d] += w[d] * value + b[d];
  }
  return x;
}

/**
 * What the mixer of block i makes of the tokens before that block, and what it leaves behind.
 * @param {Model} model
 * @param {number} i
 * @param {Float64Array} x
 */
export function mixBlock(model, i, x) {
  /** @param {string} name */
  const w = (name) => model.weights[`blocks.${i}.${name}`];
  const norm1 = normed(x, model.dim);
  const qkv = linear(affine(norm1.xhat, w("norm1.weight"), w("norm1.bias")), w("mixer.qkv.weight"), w("mixer.qkv.bias"));
  const { matrix, kept } = MIXERS[model.mixer].matrix(model, i, qkv);
  const mixed = linear(weighted(model, matrix, qkv), w("mixer.proj.weight"), w("mixer.proj.bias"));
  return { norm1, qkv, matrix, kept, mixed };
}

/**
 * A v of all heads, (tokens, heads, head_dim).
 * @param {Model} model
 * @param {Float64Array} matrix
 * @param {Float64Array} qkv
 */
export function weighted(model, matrix, qkv) {
  const { dim, heads } = model;
  const tokens = qkv.length / (3 * dim);
  const size = dim / heads;
  const out = new Float64Array(tokens * dim);
  for (let h = 0; h < heads; h++) {
    const v = headOf(model, qkv, 2, h);
    const mixed = rowProducts(matrix.subarray(h * tokens ** 2, (h + 1) * tokens ** 2), transposed(v, size), tokens);
    for (let i = 0; i < tokens; i++) out.set(mixed.subarray(i * size, (i + 1) * size), i * dim + h * size);
  }
  return out;
}

/**
 * Logits of an image, and what the layers leave behind.
 * @param {Model} model
 * @param {ArrayLike<number>} pixels from 0 to 1, row by row
 * @returns {Trace}
 */
export function forward(model, pixels) {
  const { weights, dim, depth, prefix } = model;
  let x = embed(model, pixels);
  /** @type {Layer[]} */
  const layers = [];
  for (let i = 0; i < depth; i++) {
    /** @param {string} name */
    const w = (name) => weights[`blocks.${i}.${name}`];
    const { norm1, qkv, matrix, kept, mixed } = mixBlock(model, i, x);
    x = sum(x, mixed);
    // The head reads the class token alone: the last block need not finish the others.
    if (prefix && i === depth - 1) x = x.slice(0, dim);
    const norm2 = normed(x, dim);
    const hidden = linear(affine(norm2.xhat, w("norm2.weight"), w("norm2.bias")), w("mlp.fc1.weight"), w("mlp.fc1.bias"));
    x = sum(x, linear(hidden.map(gelu), w("mlp.fc2.weight"), w("mlp.fc2.bias")));
    layers.push({ norm1, qkv, matrix, kept, norm2, hidden });
  }
  const norm = normed(x, dim);
  const read = pooled(affine(norm.xhat, weights["norm.weight"], weights["norm.bias"]), dim);
  return { logits: linear(read, weights["head.weight"], weights["head.bias"]), layers, tokens: headQuery(model).length, norm };
}

/** What the head reads, as weights of tokens that sum to one: the class token, or the mean of the patches.
 * @param {Model} model */
export function headQuery({ prefix, side }) {
  const query = new Float64Array(prefix + side * side);
  if (prefix) query[0] = 1;
  else query.fill(1 / query.length);
  return query;
}

/** The mean of the tokens that are left.
 * @param {Float64Array} x
 * @param {number} dim */
function pooled(x, dim) {
  const mean = new Float64Array(dim);
  for (let at = 0; at < x.length; at++) mean[at % dim] += x[at] / (x.length / dim);
  return mean;
}

/**
 * The gradient of a class's logit before each layer's output projection: from the last block to the first.
 * @param {Model} model
 * @param {Trace} trace
 * @param {number} label
 * @returns {Float64Array[]} (tokens, heads, head_dim), by layer
 */
export function gradients(model, trace, label) {
  const { weights, dim, depth } = model;
  const row = weights["head.weight"].subarray(label * dim, (label + 1) * dim);
  const count = trace.norm.scale.length;
  const spread = new Float64Array(count * dim).map((_, at) => row[at % dim] / count);
  let dx = normBack(spread, trace.norm, weights["norm.weight"]);
  /** @type {Float64Array[]} */
  const found = [];
  for (let i = depth - 1; i >= 0; i--) {
    const layer = trace.layers[i];
    /** @param {string} name */
    const w = (name) => weights[`blocks.${i}.${name}`];
    const dHidden = linearBack(dx, w("mlp.fc2.weight"), dim).map((d, at) => d * geluSlope(layer.hidden[at]));
    const dNorm2 = linearBack(dHidden, w("mlp.fc1.weight"), w("mlp.fc1.bias").length);
    dx = sum(dx, normBack(dNorm2, layer.norm2, w("norm2.weight")));
    dx = padded(dx, trace.tokens * dim);
    found[i] = linearBack(dx, w("mixer.proj.weight"), dim);
    if (i === 0) break; // nothing before the first mixer is asked for
    const dNorm1 = linearBack(mixerBack(model, i, layer, found[i]), w("mixer.qkv.weight"), 3 * dim);
    dx = sum(dx, normBack(dNorm1, layer.norm1, w("norm1.weight")));
  }
  return found;
}

/** With zeros behind: the gradient of tokens that the last block did not finish.
 * @param {Float64Array} x
 * @param {number} length */
function padded(x, length) {
  const whole = new Float64Array(length);
  whole.set(x);
  return whole;
}

/**
 * dA_ij = dO_i · v_j of each head.
 * @param {Model} model
 * @param {Layer} layer
 * @param {Float64Array} dOut
 */
function matrixGradient({ dim, heads }, { qkv, matrix }, dOut) {
  const tokens = dOut.length / dim;
  const size = dim / heads;
  const found = new Float64Array(matrix.length);
  for (let h = 0, at = 0; h < heads; h++) {
    for (let i = 0; i < tokens; i++) {
      for (let j = 0; j < tokens; j++, at++) {
        if (matrix[at] === 0) continue;
        const of = i * dim + h * size;
        const from = j * 3 * dim + 2 * dim + h * size;
        let sum = 0;
        for (let d = 0; d < size; d++) sum += dOut[of + d] * qkv[from + d];
        found[at] = sum;
      }
    }
  }
  return found;
}

/**
 * The gradient of q, k and v.
 * @param {Model} model
 * @param {number} i
 * @param {Layer} layer
 * @param {Float64Array} dOut
 */
function mixerBack(model, i, layer, dOut) {
  const { dim, heads } = model;
  const tokens = dOut.length / dim;
  const size = dim / heads;
  const dQkv = MIXERS[model.mixer].back(model, i, layer, matrixGradient(model, layer, dOut));
  for (let h = 0, at = 0; h < heads; h++) {
    for (let i = 0; i < tokens; i++) {
      for (let j = 0; j < tokens; j++, at++) {
        const a = layer.matrix[at];
        const to = j * 3 * dim + 2 * dim + h * size;
        if (a !== 0) for (let d = 0; d < size; d++) dQkv[to + d] += a * dOut[i * dim + h * size + d];
      }
    }
  }
  return dQkv;
}

/**
 * r ← r + r · mean_h (dA_h ∘ A_h)⁺, from the last layer to the first (Chefer et al. 2021, eq. 5 and 6).
 * @param {Model} model
 * @param {Trace} trace
 * @param {number} label
 * @returns {Float64Array} what the head takes from each token for a class
 */
export function relevance(model, trace, label) {
  const found = gradients(model, trace, label);
  let r = headQuery(model);
  for (let i = model.depth - 1; i >= 0; i--) {
    const { matrix } = trace.layers[i];
    const slope = matrixGradient(model, trace.layers[i], found[i]);
    r = sum(r, carried(model, matrix.map((a, at) => Math.max(a * slope[at], 0)), r));
  }
  return r;
}

/**
 * r ← (r + r · mean_h A_h) / 2 through some layers, from the last of them to the first (Abnar and Zuidema 2020).
 * @param {Model} model
 * @param {Trace} trace
 * @param {Float64Array} from weights of the tokens to begin with
 * @param {number} first layer
 * @param {number} end the layer behind the last
 */
export function rollout(model, trace, from, first, end) {
  let r = from;
  for (let i = end - 1; i >= first; i--) r = sum(r, carried(model, trace.layers[i].matrix, r)).map((value) => value / 2);
  return r;
}

/**
 * r · mean_h M_h.
 * @param {Model} model
 * @param {Float64Array} matrix (heads, tokens, tokens)
 * @param {Float64Array} r
 */
function carried({ heads }, matrix, r) {
  const found = new Float64Array(r.length);
  for (let h = 0, at = 0; h < heads; h++) {
    for (let i = 0; i < r.length; i++, at += r.length) {
      if (r[i] !== 0) for (let j = 0; j < r.length; j++) found[j] += (r[i] * matrix[at + j]) / heads;
    }
  }
  return found;
}

/**
 * What some tokens take in one layer, in a head or in the mean over heads (-1).
 * @param {Model} model
 * @param {Trace} trace
 * @param {Float64Array} from weights of the tokens
 * @param {number} layer
 * @param {number} head
 */
export function rowOf(model, trace, from, layer, head) {
  const { matrix } = trace.layers[layer];
  if (head < 0) return carried(model, matrix, from);
  const one = from.length ** 2;
  return carried({ ...model, heads: 1 }, matrix.subarray(head * one, (head + 1) * one), from);
}

/** A token's row as weights to begin with: all of the weight on that token.
 * @param {number} tokens
 * @param {number} token */
export function only(tokens, token) {
  const from = new Float64Array(tokens);
  from[token] = 1;
  return from;
}

/** @param {ArrayLike<number>} logits
 * @returns {number[]} */
export function softmax(logits) {
  const values = Array.from(logits);
  const most = Math.max(...values);
  const exps = values.map((value) => Math.exp(value - most));
  const total = exps.reduce((a, b) => a + b, 0);
  return exps.map((value) => value / total);
}
