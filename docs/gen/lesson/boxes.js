/** (g) Hungarian matching: drag predicted boxes, and see costs and assignment. */

import { drawn, made, numberAt, tell, the, whenMoved, within } from "./dom.js";
import { ARROWS } from "./heat.js";
import { assignment, costMatrix, greedy, total } from "./matching.js";
import { changed, part } from "./parts.js";

/** @typedef {import("./matching.js").Box} Box */

const CLASSES = ["cat", "dog", "cup"];
const OBJECTS = /** @type {{box: Box, label: number}[]} */ ([
  { box: [0.26, 0.36, 0.3, 0.4], label: 0 },
  { box: [0.66, 0.4, 0.36, 0.5], label: 1 },
  { box: [0.5, 0.82, 0.18, 0.2], label: 2 },
]);
/** The last chance is that of "no object". */
const PREDICTIONS = /** @type {{name: string, box: Box, chances: number[]}[]} */ ([
  { name: "A", box: [0.32, 0.4, 0.3, 0.38], chances: [0.6, 0.3, 0.02, 0.08] },
  { name: "B", box: [0.5, 0.42, 0.36, 0.48], chances: [0.3, 0.6, 0.02, 0.08] },
  { name: "C", box: [0.8, 0.74, 0.2, 0.22], chances: [0.05, 0.05, 0.7, 0.2] },
  { name: "D", box: [0.15, 0.8, 0.22, 0.26], chances: [0.1, 0.1, 0.1, 0.7] },
]);
const SIZE = 320; // units of the drawing
const CORNER = 0.05; // how near to the corner a box is stretched

/** @type {{number: number, x: number, y: number, isCorner: boolean} | null} */
let held = null;

export function beginBoxes() {
  whenMoved(["label-weight", "l1-weight", "giou-weight"], () => changed("matching"));
  const scene = the("scene");
  PREDICTIONS.forEach((prediction, number) => {
    const group = drawn("g", { tabindex: 0, role: "application", id: `box-${prediction.name}`, class: "prediction" });
    group.append(drawn("rect"), drawn("text"), drawn("rect", { class: "corner" }));
    group.addEventListener("pointerdown", (event) => {
      const { x, y } = place(/** @type {PointerEvent} */ (event));
      const [cx, cy, width, height] = prediction.box;
      const isCorner = Math.abs(x - cx - width / 2) < CORNER && Math.abs(y - cy - height / 2) < CORNER;
      held = { number, x, y, isCorner };
      scene.setPointerCapture(/** @type {PointerEvent} */ (event).pointerId);
    });
    group.addEventListener("keydown", (event) => {
      const { key, shiftKey } = /** @type {KeyboardEvent} */ (event);
      const move = ARROWS[key];
      if (!move) return;
      event.preventDefault();
      change(number, 0.02 * move[0], 0.02 * move[1], shiftKey);
    });
    the("predictions").append(group);
  });
  scene.addEventListener("pointermove", (event) => {
    if (!held) return;
    const { x, y } = place(event);
    change(held.number, x - held.x, y - held.y, held.isCorner);
    Object.assign(held, { x, y });
  });
  for (const kind of ["pointerup", "pointercancel"]) scene.addEventListener(kind, () => (held = null));
  part("matching", draw);
}

/** @param {PointerEvent} event */
function place(event) {
  const area = the("scene").getBoundingClientRect();
  return { x: (event.clientX - area.left) / area.width, y: (event.clientY - area.top) / area.height };
}

/** Moves a box, or stretches it.
 * @param {number} number
 * @param {number} right
 * @param {number} down
 * @param {boolean} isStretched */
function change(number, right, down, isStretched) {
  const box = PREDICTIONS[number].box;
  if (isStretched) {
    [box[2], box[3]] = [within(box[2] + right, 0.06, 1), within(box[3] + down, 0.06, 1)];
    [box[0], box[1]] = [box[0] + right / 2, box[1] + down / 2];
  } else [box[0], box[1]] = [box[0] + right, box[1] + down];
  [box[0], box[1]] = [within(box[0], 0, 1), within(box[1], 0, 1)];
  changed("matching");
}

/** @param {Box} box */
function corners([cx, cy, width, height]) {
  return { x: (cx - width / 2) * SIZE, y: (cy - height / 2) * SIZE, width: width * SIZE, height: height * SIZE };
}

function draw() {
  const weights = { label: numberAt("label-weight"), l1: numberAt("l1-weight"), giou: numberAt("giou-weight") };
  for (const [name, value] of Object.entries(weights)) tell(`${name}-weight`, String(value));
  const cost = costMatrix(OBJECTS, PREDICTIONS, weights);
  const chosen = assignment(cost);
  const first = greedy(cost);
  drawScene(chosen);
  drawTable(cost, chosen);
  const pairs = chosen.map((column, row) => `${CLASSES[row]} to ${PREDICTIONS[column].name}`);
  const [least, cheapest] = [total(cost, chosen), total(cost, first)];
  the("matching-told").textContent =
    `${pairs.join(", ")}: the sum is ${least.toFixed(2)}. Taking the cheapest pair first ` +
    (cheapest - least > 0.005 ? `would cost ${cheapest.toFixed(2)}.` : "comes to the same here.");
}

/** @param {number[]} chosen */
function drawScene(chosen) {
  the("objects").replaceChildren(
    ...OBJECTS.flatMap(({ box, label }) => {
      const { x, y, width, height } = corners(box);
      return [drawn("rect", { x, y, width, height, class: "object" }), drawn("text", { x: x + 4, y: y + 14 }, CLASSES[label])];
    }),
  );
  the("matches").replaceChildren(
    ...chosen.map((column, row) => {
      const [from, to] = [OBJECTS[row].box, PREDICTIONS[column].box].map(([x, y]) => ({ x: x * SIZE, y: y * SIZE }));
      return drawn("line", { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
    }),
  );
  PREDICTIONS.forEach(({ name, box, chances }, number) => {
    const group = the("predictions").children[number];
    const { x, y, width, height } = corners(box);
    const best = chances.indexOf(Math.max(...chances));
    const what = CLASSES[best] ?? "none";
    const row = chosen.indexOf(number);
    const [rect, text, corner] = group.children;
    for (const [key, value] of Object.entries({ x, y, width, height })) rect.setAttribute(key, String(value));
    for (const [key, value] of Object.entries({ x: x + 4, y: y + height - 6 })) text.setAttribute(key, String(value));
    text.textContent = `${name}: ${what} ${chances[best].toFixed(1)}`;
    const end = { x: x + width - 10, y: y + height - 10, width: 10, height: 10 };
    for (const [key, value] of Object.entries(end)) corner.setAttribute(key, String(value));
    group.classList.toggle("free", row < 0);
    const match = row < 0 ? "matched with no object" : `matched with the ${CLASSES[row]}`;
    group.setAttribute("aria-label", `Prediction ${name}, ${what}, ${match}. Arrow keys move it, with shift they stretch it.`);
  });
}

/** @param {number[][]} cost
 * @param {number[]} chosen */
function drawTable(cost, chosen) {
  the("cost-head").replaceChildren(
    made("th", { scope: "col" }, "object"),
    ...PREDICTIONS.map(({ name }) => made("th", { scope: "col" }, name)),
  );
  the("cost-rows").replaceChildren(
    ...cost.map((line, row) => {
      const tr = made("tr");
      tr.append(
        made("th", { scope: "row" }, CLASSES[row]),
        ...line.map((value, column) => {
          const isChosen = chosen[row] === column;
          return made("td", { class: isChosen ? "chosen" : "" }, `${isChosen ? "✓ " : ""}${value.toFixed(2)}`);
        }),
      );
      return tr;
    }),
  );
}
