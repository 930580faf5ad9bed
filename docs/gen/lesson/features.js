/** (e) Performer: how near random features come to attention, beside the mean of the values. */

import { percent } from "../../../src/regard/explain/page/maths.js";
import { counts, models, pixelName, state, traceOf } from "./digit.js";
import { canvas, drawn, numberAt, tell, the, whenMoved } from "./dom.js";
import { favorFeatures, orthogonalProjection, relativeError } from "./favor.js";
import { drawMap, pickable } from "./heat.js";
import { headOf, quotients } from "./mixers.js";
import { changed, part } from "./parts.js";
import { only, rowOf, weighted } from "./vit.js";

/** @typedef {import("./vit.js").Model} Model */

const [LEAST, MOST] = [3, 10]; // powers of two
const [WIDTH, HEIGHT] = [300, 150];
let seed = 1;

/**
 * The matrices of all heads by features, in place of softmax.
 * @param {Model} model
 * @param {Float64Array} qkv
 * @param {Float64Array} projection
 */
export function estimate(model, qkv, projection) {
  const size = model.dim / model.heads;
  const tokens = qkv.length / (3 * model.dim);
  const matrix = new Float64Array(model.heads * tokens * tokens);
  for (let h = 0; h < model.heads; h++) {
    const q = favorFeatures(headOf(model, qkv, 0, h), projection, size, true);
    const k = favorFeatures(headOf(model, qkv, 1, h), projection, size, false);
    matrix.set(quotients(q, k, tokens).matrix, h * tokens * tokens);
  }
  return matrix;
}

/**
 * The relative errors of a matrix times the values, and of the mean of the values in its place.
 * @param {Model} model
 * @param {Float64Array} qkv
 * @param {Float64Array} exact
 * @param {Float64Array} found
 */
export function errors(model, qkv, exact, found) {
  const tokens = qkv.length / (3 * model.dim);
  const output = weighted(model, exact, qkv);
  const mean = new Float64Array(exact.length).fill(1 / tokens);
  return {
    features: relativeError(weighted(model, found, qkv), output),
    mean: relativeError(weighted(model, mean, qkv), output),
  };
}

export function beginFeatures() {
  for (const id of ["exact", "estimate"]) pickable(canvas(id));
  whenMoved(["power", "features-layer"], () => changed("features"));
  the("redraw").addEventListener("click", () => {
    seed += 1;
    changed("features");
  });
  part("features", draw);
}

function* draw() {
  const model = models.attention;
  const [power, layer] = [numberAt("power"), numberAt("features-layer") - 1];
  const trace = traceOf("attention");
  const { qkv, matrix } = trace.layers[layer];
  const from = only(trace.tokens, state.pixel + 1);
  /** @param {number} power */
  const at = (power) => estimate(model, qkv, orthogonalProjection(2 ** power, model.dim / model.heads, seed));
  const found = at(power);
  const row = rowOf({ ...model }, { ...trace, layers: [{ ...trace.layers[layer], matrix: found }] }, from, 0, -1);
  const now = errors(model, qkv, matrix, found);
  const ink = counts();
  drawMap(canvas("exact"), rowOf(model, trace, from, layer, -1).slice(1), ink, state.pixel);
  drawMap(canvas("estimate"), row.slice(1), ink, state.pixel);
  tell("power", (2 ** power).toLocaleString("en"));
  tell("features-layer", `${layer + 1} of ${model.depth}`);
  the("features-told").textContent =
    `The row of the pixel in ${pixelName()}. Over all tokens, ${(2 ** power).toLocaleString("en")} features miss attention by ` +
    `${percent(now.features)}; the mean of the values, which looks at nothing, misses it by ${percent(now.mean)}.`;
  yield;
  const points = [];
  for (let other = LEAST; other <= MOST; other++) {
    points.push(errors(model, qkv, matrix, other === power ? found : at(other)).features);
    yield;
  }
  curve(points, now.mean, power);
}

/**
 * @param {number[]} points
 * @param {number} mean
 * @param {number} power
 */
function curve(points, mean, power) {
  const top = 1.15 * Math.max(...points, mean);
  const place = (/** @type {number} */ i, /** @type {number} */ error) => ({
    x: (i / (MOST - LEAST)) * WIDTH,
    y: HEIGHT - (error / top) * HEIGHT,
  });
  const placed = points.map((error, i) => place(i, error));
  const level = place(0, mean).y;
  the("features-lines").replaceChildren(
    drawn("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis" }),
    drawn("line", { x1: 0, x2: WIDTH, y1: level, y2: level, class: "curve c1" }),
    drawn("text", { x: WIDTH, y: level - 6, "text-anchor": "end" }, "the mean of the values"),
    drawn("polyline", { points: placed.map(({ x, y }) => `${x},${y}`).join(" "), class: "curve c0" }),
    ...placed.map(({ x, y }, i) => drawn("circle", { cx: x, cy: y, r: i + LEAST === power ? 6 : 3, class: "dot c0" })),
    ...placed.map(({ x }, i) => drawn("text", { x, y: HEIGHT + 16, "text-anchor": "middle" }, String(2 ** (i + LEAST)))),
    drawn("text", { x: 0, y: -6 }, `error, from 0 to ${percent(top)}`),
  );
}
