/** What the model answers, and whether the map is true. */

import { curvesOf } from "./drawing.js";
import { percent } from "./maths.js";
import { go, made, place, the, view } from "./state.js";

/** @typedef {import("./state.js").Picture} Picture */

/** @param {Picture} now */
export function showAnswer(now) {
  bars(now);
  judged(now);
  const found = now.maps.find((one) => one.method === view.method);
  const says = view.method === "row" ? [layerSays(now)] : (found?.says ?? []);
  the("says").replaceChildren(...says.map((text) => made("p", text)));
  the("notes").replaceChildren(...now.notes.map((note) => made("li", note)));
}

/** @param {Picture} now */
function layerSays(now) {
  const layer = now.layers[place()];
  if (!layer) return "";
  const what = layer.kind === "influence" ? "how much a token depends on each" : "a row of its mixing matrix";
  return `${layer.name}, ${layer.mixer}: ${what}`;
}

let answered = "";

/** @param {Picture} now */
function bars(now) {
  const isBoxes = now.boxes.length > 0;
  const lines = isBoxes ? now.boxes.map((box) => ({ ...box, value: box.score })) : now.bars;
  const key = `${view.run} ${view.image}`;
  if (answered !== key) {
    answered = key;
    the("answer-title").textContent = isBoxes ? "Boxes" : "Answer";
    const none = made("p", "The model gives features: it has no classes.");
    const made_ = lines.map((line, i) => bar(line.name, line.value, isBoxes ? i : -1));
    the("answer").replaceChildren(...(lines.length ? made_ : [none]));
  }
  if (!isBoxes) return;
  for (const [i, line] of [...the("answer").children].entries()) {
    line.setAttribute("aria-pressed", String(i === view.token));
  }
}

/**
 * @param {string} name
 * @param {number} value
 * @param {number} box -1: of no box
 */
function bar(name, value, box) {
  const line = made(box < 0 ? "div" : "button", "");
  line.className = "bar";
  const filled = made("i", "");
  filled.style.width = `${100 * value}%`;
  const track = made("span", "");
  track.className = "track";
  track.append(filled);
  line.append(made("span", name), track, made("b", box < 0 ? percent(value) : value.toFixed(2)));
  if (box >= 0) line.addEventListener("click", () => go({ token: box, method: "row" }));
  return line;
}

/** The strip of faithfulness: of the map that is shown, or of what the head takes in the last layer.
 * @param {Picture} now */
function judged(now) {
  const isRow = view.method === "row";
  const found = now.maps.find((one) => (isRow ? one.method === "rows" : one.method === view.method));
  the("judged").hidden = !found?.verdict;
  if (!found) return;
  const isMeasured = found.deletion.length > 0;
  the("verdict").textContent = (isRow && isMeasured ? "What the head takes in the last layer: " : "") + found.verdict;
  const { random = [], centre = [] } = now.shared;
  const curves = [
    { name: "this map", values: found.deletion },
    { name: "chance", values: random },
    { name: "centre", values: centre },
  ];
  const label = `${found.measured} as patches are taken away: ${found.verdict}`;
  the("curves").replaceChildren(...(isMeasured ? [curvesOf(found.fractions, curves, label)] : []));
}
