/** Mixers without attention: Fourier, and an MLP across tokens; and how far a change of one token spreads. */

import { linear, transposed } from "./products.js";
import { affineNorm, embed, gelu, mixBlock } from "./vit.js";

/** @typedef {import("./vit.js").Model} Model */

/**
 * The real part of the 2-D Fourier transform over tokens and channels (Lee-Thorp et al. 2021, eq. 3).
 * @param {Float64Array} x (tokens, dim)
 * @param {number} dim
 * @param {number} scale
 */
export function fourierMixing(x, dim, scale = 1) {
  const tokens = x.length / dim;
  const [ofTokens, ofChannels] = [waves(tokens), waves(dim)];
  // Over the channels first: real numbers in, a real and an imaginary part out.
  const [real, imaginary] = [new Float64Array(x.length), new Float64Array(x.length)];
  for (let t = 0; t < tokens; t++) {
    for (let c = 0; c < dim; c++) {
      for (let d = 0; d < dim; d++) {
        real[t * dim + c] += x[t * dim + d] * ofChannels.cos[(c * d) % dim];
        imaginary[t * dim + c] -= x[t * dim + d] * ofChannels.sin[(c * d) % dim];
      }
    }
  }
  const y = new Float64Array(x.length);
  for (let i = 0; i < tokens; i++) {
    for (let t = 0; t < tokens; t++) {
      const [cos, sin] = [ofTokens.cos[(i * t) % tokens] * scale, ofTokens.sin[(i * t) % tokens] * scale];
      for (let c = 0; c < dim; c++) y[i * dim + c] += cos * real[t * dim + c] + sin * imaginary[t * dim + c];
    }
  }
  return y;
}

/** One turn in so many steps.
 * @param {number} count */
function waves(count) {
  const angles = Float64Array.from({ length: count }, (_, i) => (2 * Math.PI * i) / count);
  return { cos: angles.map(Math.cos), sin: angles.map(Math.sin) };
}

/**
 * One MLP across the tokens, the same for each channel (Tolstikhin et al. 2021, eq. 1).
 * @param {Model} model
 * @param {Float64Array} x (tokens, dim)
 */
export function tokenMlp({ weights, dim }, x) {
  /** @param {string} name */
  const w = (name) => weights[`blocks.0.mixer.mlp.${name}`];
  const hidden = linear(transposed(x, dim), w("fc1.weight"), w("fc1.bias")).map(gelu);
  return transposed(linear(hidden, w("fc2.weight"), w("fc2.bias")), x.length / dim);
}

/**
 * How much each pixel's token changes behind the first layer's mixer when one pixel of the image does: ‖y'_i - y_i‖.
 * @param {Record<string, Model>} models
 * @param {string} mixer "fourier" takes the tokens of the model with an MLP across tokens
 * @param {ArrayLike<number>} before pixels
 * @param {ArrayLike<number>} after
 */
export function spread(models, mixer, before, after) {
  const model = models[mixer === "fourier" ? "mlp" : mixer];
  /** @param {ArrayLike<number>} pixels */
  const mixed = (pixels) => {
    const x = embed(model, pixels);
    if (mixer !== "fourier" && mixer !== "mlp") return mixBlock(model, 0, x).mixed;
    const normed = affineNorm(x, model.weights["blocks.0.norm1.weight"], model.weights["blocks.0.norm1.bias"]);
    return mixer === "mlp" ? tokenMlp(model, normed) : fourierMixing(normed, model.dim, normed.length ** -0.5);
  };
  const [old, young] = [mixed(before), mixed(after)];
  const sizes = new Float64Array(old.length / model.dim);
  for (let at = 0; at < old.length; at++) sizes[Math.floor(at / model.dim)] += (young[at] - old[at]) ** 2;
  return sizes.map(Math.sqrt).slice(model.prefix);
}
