/** (h) Is it true? Patches leave by a map, by chance, from the centre, and the probability falls. */

import { percent } from "../../../src/regard/explain/page/maths.js";
import { area, centreMap, deletionCurve, orderOf, randomOrders, STEPS, verdict, without } from "./deletion.js";
import { models, pixels, SIDE, state, traceOf } from "./digit.js";
import { canvas, drawn, numberAt, tell, the, whenMoved } from "./dom.js";
import { drawGrey } from "./heat.js";
import { changed, part } from "./parts.js";
import { headQuery, relevance, rowOf, softmax } from "./vit.js";

const [WIDTH, HEIGHT] = [320, 170];
const NAMES = { relevance: "relevance", row: "the row of the last layer", centre: "from the centre", random: "by chance" };
/** @typedef {keyof typeof NAMES} Way */
const WAYS = /** @type {Way[]} */ (Object.keys(NAMES));
const CLASSES = { relevance: "c0", row: "c3", centre: "c2", random: "c1" };

/** What was measured last, so that the slider need not measure again.
 * @type {{key: string, orders: Record<Way, number[]>, curves: Record<Way, number[]>, told: string} | null} */
let known = null;

export function beginTruth() {
  whenMoved(["step"], () => changed("truth"));
  part("truth", draw);
}

function* draw() {
  const model = models[state.mixer];
  const image = pixels();
  const chances = softmax(traceOf(state.mixer).logits);
  const label = chances.indexOf(Math.max(...chances));
  const key = `${state.mixer} ${image.join()}`;
  if (known?.key !== key) {
    the("truth-told").textContent = "Some two hundred answers of the model are being computed.";
    known = { key, ...(yield* measured(model, image, label)) };
  }
  show(known, image, label);
}

/**
 * @param {import("./vit.js").Model} model
 * @param {Float64Array} image
 * @param {number} label
 */
function* measured(model, image, label) {
  const trace = traceOf(state.mixer);
  const maps = {
    relevance: relevance(model, trace, label).slice(model.prefix),
    row: rowOf(model, trace, headQuery(model), model.depth - 1, -1).slice(model.prefix),
    centre: centreMap(SIDE),
  };
  const random = randomOrders(SIDE * SIDE, 1);
  const orders = { relevance: orderOf(maps.relevance), row: orderOf(maps.row), centre: orderOf(maps.centre), random: random[0] };
  const curves = {
    relevance: yield* deletionCurve(model, image, orders.relevance, label),
    row: yield* deletionCurve(model, image, orders.row, label),
    centre: yield* deletionCurve(model, image, orders.centre, label),
    random: /** @type {number[]} */ ([]),
  };
  /** @type {number[][]} */
  const by_chance = [];
  for (const order of random) by_chance.push(yield* deletionCurve(model, image, order, label));
  curves.random = by_chance[0].map((_, step) => by_chance.reduce((sum, curve) => sum + curve[step], 0) / by_chance.length);
  const areas = by_chance.map(area);
  const told = (/** @type {"relevance" | "row"} */ way) =>
    `${NAMES[way]} ${area(curves[way]).toFixed(2)} (${verdict(area(curves[way]), areas, area(curves.centre))})`;
  return {
    orders,
    curves,
    told:
      `Area under the curve for “${label}”, less is better: ${told("relevance")}; ${told("row")}; ` +
      `centre ${area(curves.centre).toFixed(2)}; chance ${area(curves.random).toFixed(2)}.`,
  };
}

/**
 * @param {NonNullable<typeof known>} found
 * @param {Float64Array} image
 * @param {number} label
 */
function show({ orders, curves, told }, image, label) {
  const step = numberAt("step");
  const gone = Math.round((step * image.length) / STEPS);
  tell("step", `${gone} of 64 pixels`);
  the("truth-told").textContent = told;
  const place = (/** @type {number} */ step, /** @type {number} */ value) => ({ x: (step / STEPS) * WIDTH, y: (1 - value) * HEIGHT });
  const { x } = place(step, 0);
  const lines = WAYS.flatMap((way) => {
    const points = curves[way].map((value, i) => place(i, value));
    const here = points[step];
    return [
      drawn("polyline", { points: points.map(({ x, y }) => `${x},${y}`).join(" "), class: `curve ${CLASSES[way]}` }),
      drawn("circle", { cx: here.x, cy: here.y, r: 4, class: `dot ${CLASSES[way]}` }),
    ];
  });
  the("truth-lines").replaceChildren(
    drawn("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis" }),
    drawn("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "axis" }),
    ...lines,
    drawn("text", { x: 0, y: -6 }, `probability of “${label}”, from 0 to 1`),
    drawn("text", { x: WIDTH, y: HEIGHT + 16, "text-anchor": "end" }, "all pixels gone"),
  );
  for (const way of WAYS) {
    drawGrey(canvas(`left-${way}`), without(image, orders[way], step));
    the(`left-${way}-told`).textContent = `${NAMES[way]}: ${percent(curves[way][step])}`;
  }
}
