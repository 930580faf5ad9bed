/** (c) The N² wall: image side and patch size. */

import { matrixBytes, OPERATIONS, short } from "./costs.js";
import { drawn, fill, numberAt, tell, the, whenMoved } from "./dom.js";
import { changed, part } from "./parts.js";

const [WIDTH, HEIGHT] = [360, 220];
const SIDES = [2, 512]; // tokens along a side, from and to
const POWERS = [5, 15]; // of ten, of the operations

export function beginWall() {
  whenMoved(["side", "patch"], () => changed("wall"));
  part("wall", draw);
}

/** @param {number} tokens
 * @param {number} operations */
function place(tokens, operations) {
  const [from, to] = SIDES.map((side) => Math.log(side ** 2));
  const x = ((Math.log(tokens) - from) / (to - from)) * WIDTH;
  const y = HEIGHT - ((Math.log10(operations) - POWERS[0]) / (POWERS[1] - POWERS[0])) * HEIGHT;
  return { x, y };
}

function draw() {
  const [image, patch] = [numberAt("side"), 2 ** numberAt("patch")];
  const side = image / patch;
  const tokens = side ** 2;
  tell("side", `${image} pixels`);
  tell("patch", `${patch} pixels`);
  the("wall-told").textContent =
    `${side} × ${side} patches are N = ${tokens.toLocaleString("en")} tokens. The attention matrices of one layer, ` +
    `12 heads in float32, would take ${short(matrixBytes(side))}B.`;
  fill("costs", Object.entries(OPERATIONS).map(([name, count]) => [
    name, short(count(side)), `${(count(side) / OPERATIONS.attention(side)).toPrecision(2)} ×`,
  ]));
  const lines = Object.entries(OPERATIONS).flatMap(([name, count], i) => {
    const points = [];
    for (let at = SIDES[0]; at <= SIDES[1]; at *= 2) points.push(place(at ** 2, count(at)));
    const end = points[points.length - 1];
    const here = place(tokens, count(side));
    return [
      drawn("polyline", { points: points.map(({ x, y }) => `${x},${y}`).join(" "), class: `curve c${i}` }),
      drawn("text", { x: end.x + 5, y: end.y + 4 + [0, 6, -6, 4, 4][i] }, name),
      drawn("circle", { cx: here.x, cy: here.y, r: 4, class: `dot c${i}` }),
    ];
  });
  const { x } = place(tokens, 1);
  the("wall-lines").replaceChildren(drawn("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "axis" }), ...lines);
}
