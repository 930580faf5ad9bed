/** Products of matrices, which take most of the time. */

/**
 * y = x Wᵀ + b on each token. Two tokens and four outputs at a time: each number that is read is used more than once, and
 * the processor need not wait for one sum. The last tile lies over the one before where they don't divide.
 * @param {Float64Array} x (tokens, inputs)
 * @param {Float64Array} w (outputs, inputs); there are at least four outputs
 * @param {Float64Array} b
 */
export function linear(x, w, b) {
  const outputs = b.length;
  const inputs = w.length / outputs;
  const tokens = x.length / inputs;
  const y = new Float64Array(tokens * outputs);
  for (let t = 0; t < tokens; t += 2) {
    const u = Math.min(t + 1, tokens - 1);
    for (let block = 0; block < outputs; block += 4) {
      const o = Math.min(block, outputs - 4);
      let w0 = o * inputs;
      let w1 = w0 + inputs;
      let w2 = w1 + inputs;
      let w3 = w2 + inputs;
      let t0 = b[o];
      let t1 = b[o + 1];
      let t2 = b[o + 2];
      let t3 = b[o + 3];
      let u0 = t0;
      let u1 = t1;
      let u2 = t2;
      let u3 = t3;
      for (let i = t * inputs, j = u * inputs; i < (t + 1) * inputs; i++, j++, w0++, w1++, w2++, w3++) {
        const a = x[i];
        const c = x[j];
        t0 += a * w[w0];
        u0 += c * w[w0];
        t1 += a * w[w1];
        u1 += c * w[w1];
        t2 += a * w[w2];
        u2 += c * w[w2];
        t3 += a * w[w3];
        u3 += c * w[w3];
      }
      const to = t * outputs + o;
      y[to] = t0;
      y[to + 1] = t1;
      y[to + 2] = t2;
      y[to + 3] = t3;
      const beside = u * outputs + o;
      y[beside] = u0;
      y[beside + 1] = u1;
      y[beside + 2] = u2;
      y[beside + 3] = u3;
    }
  }
  return y;
}

/**
 * The gradient of `linear` with respect to x: dy W.
 * @param {Float64Array} dy (tokens, outputs)
 * @param {Float64Array} w (outputs, inputs)
 * @param {number} outputs
 */
export function linearBack(dy, w, outputs) {
  const inputs = w.length / outputs;
  const dx = new Float64Array((dy.length / outputs) * inputs);
  for (let at = 0, to = 0; at < dy.length; at += outputs, to += inputs) {
    for (let o = 0, row = 0; o < outputs; o++, row += inputs) {
      const value = dy[at + o];
      if (value === 0) continue;
      for (let i = 0; i < inputs; i++) dx[to + i] += value * w[row + i];
    }
  }
  return dx;
}

/** x yᵀ: the product of each row of x with each of y, of which there are at least four.
 * @param {Float64Array} x (rows, size)
 * @param {Float64Array} y (others, size)
 * @param {number} size */
export function rowProducts(x, y, size) {
  return linear(x, y, new Float64Array(y.length / size));
}

/** Rows for columns.
 * @param {Float64Array} x (rows, columns)
 * @param {number} columns */
export function transposed(x, columns) {
  const rows = x.length / columns;
  return x.map((_, at) => x[(at % rows) * columns + Math.floor(at / rows)]);
}
