/** (b) Soft retrieval: a table of films, a query, a temperature. */

import { percent } from "../../../src/regard/explain/page/maths.js";
import { drawn, fill, numberAt, slider, tell, the, whenMoved, within } from "./dom.js";
import { ARROWS } from "./heat.js";
import { changed, part } from "./parts.js";
import { softmax } from "./vit.js";

/** Title, love, speed, minutes. The features are our judgement, the minutes are the films'. */
export const FILMS = /** @type {[string, number, number, number][]} */ ([
  ["Casablanca", 0.9, -0.6, 102],
  ["Some Like It Hot", 0.5, 0.1, 121],
  ["Titanic", 0.9, 0.4, 194],
  ["Amélie", 0.6, -0.2, 122],
  ["Alien", -0.8, 0.1, 117],
  ["Die Hard", -0.4, 0.9, 132],
  ["The Matrix", -0.1, 0.8, 136],
  ["2001: A Space Odyssey", -0.9, -0.9, 149],
]);
const HALF = 110; // of the plane's side, in units of the drawing

/**
 * Attention of one query: weights softmax(q · k / T), and their mean of the values.
 * @param {number[]} query
 * @param {number[][]} keys
 * @param {number[]} values
 * @param {number} temperature
 */
export function retrieve(query, keys, values, temperature) {
  const weights = softmax(keys.map((key) => key.reduce((sum, k, d) => sum + k * query[d], 0) / temperature));
  return { weights, value: weights.reduce((sum, weight, i) => sum + weight * values[i], 0) };
}

export function beginRetrieval() {
  whenMoved(["love", "speed", "temperature"], () => changed("retrieval"));
  const plane = the("plane");
  /** @param {PointerEvent} event */
  const point = (event) => {
    const area = plane.getBoundingClientRect();
    go(((event.clientX - area.left) / area.width) * 2.4 - 1.2, 1.2 - ((event.clientY - area.top) / area.height) * 2.4);
  };
  plane.addEventListener("pointerdown", (event) => {
    plane.setPointerCapture(event.pointerId);
    point(event);
  });
  plane.addEventListener("pointermove", (event) => {
    if (event.buttons) point(event);
  });
  plane.addEventListener("keydown", (event) => {
    const move = ARROWS[event.key];
    if (!move) return;
    event.preventDefault();
    go(numberAt("love") + 0.05 * move[0], numberAt("speed") - 0.05 * move[1]);
  });
  part("retrieval", draw);
}

/** @param {number} love
 * @param {number} speed */
function go(love, speed) {
  slider("love").value = String(within(love, -1, 1));
  slider("speed").value = String(within(speed, -1, 1));
  changed("retrieval");
}

function draw() {
  const query = [numberAt("love"), numberAt("speed")];
  const temperature = 10 ** numberAt("temperature");
  const { weights, value } = retrieve(query, FILMS.map((film) => [film[1], film[2]]), FILMS.map((film) => film[3]), temperature);
  tell("temperature", temperature.toPrecision(2));
  tell("love", query[0].toFixed(2));
  tell("speed", query[1].toFixed(2));
  fill("films", FILMS.map(([title, love, speed, minutes], i) => [
    title, love.toFixed(1), speed.toFixed(1), `${minutes}`, percent(weights[i]),
  ]));
  [...the("films").children].forEach((row, i) => row.classList.toggle("strong", weights[i] > 0.25));
  the("retrieved").textContent = `The query takes ${value.toFixed(0)} minutes, of ${effective(weights)}.`;
  const place = (/** @type {number} */ x, /** @type {number} */ y) => ({ x: x * HALF, y: -y * HALF });
  const marks = FILMS.flatMap(([title, love, speed], i) => {
    const { x, y } = place(love, speed);
    const end = x > HALF / 4;
    return [
      drawn("circle", { cx: x, cy: y, r: 3 + 16 * Math.sqrt(weights[i]), class: "film" }),
      drawn("text", { x: x + (end ? 6 : -6), y: y - 6 - 16 * Math.sqrt(weights[i]), "text-anchor": end ? "end" : "start" }, title),
    ];
  });
  const { x, y } = place(query[0], query[1]);
  the("plane-marks").replaceChildren(
    ...marks,
    drawn("line", { x1: 0, y1: 0, x2: x, y2: y, class: "query" }),
    drawn("circle", { cx: x, cy: y, r: 8, class: "query" }),
  );
}

/** Over how many films the weights are spread: 2 to the power of their entropy.
 * @param {number[]} weights */
function effective(weights) {
  const entropy = weights.reduce((sum, weight) => sum - (weight > 0 ? weight * Math.log2(weight) : 0), 0);
  const count = 2 ** entropy;
  return count < 1.05 ? "one film" : `about ${count.toFixed(1)} films`;
}
