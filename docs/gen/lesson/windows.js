/** (d) Windows: what one pixel takes with attention, and with windows, layer by layer. */

import { percent } from "../../../src/regard/explain/page/maths.js";
import { counts, models, pixelName, SIDE, state, traceOf } from "./digit.js";
import { canvas, numberAt, tell, the, whenMoved } from "./dom.js";
import { drawMap, pickable } from "./heat.js";
import { changed, part } from "./parts.js";
import { only, rollout, rowOf } from "./vit.js";

export function beginWindows() {
  for (const id of ["whole", "window", "reach"]) pickable(canvas(id));
  whenMoved(["window-layer"], () => changed("windows"));
  part("windows", draw);
}

function draw() {
  const layer = numberAt("window-layer") - 1;
  const ink = counts();
  const { attention, local } = models;
  const [whole, windows] = [traceOf("attention"), traceOf("local")];
  const from = only(windows.tokens, state.pixel);
  const all = rowOf(attention, whole, only(whole.tokens, state.pixel + 1), layer, -1);
  const near = rowOf(local, windows, from, layer, -1);
  const reach = rollout(local, windows, from, 0, layer + 1);
  tell("window-layer", `${layer + 1} of ${local.depth}`);
  drawMap(canvas("whole"), all.slice(1), ink, state.pixel);
  drawMap(canvas("window"), near, ink, state.pixel);
  drawMap(canvas("reach"), reach, ink, state.pixel);
  const pixels = SIDE * SIDE;
  the("windows-told").textContent =
    `The pixel in ${pixelName()}, layer ${layer + 1}: with attention ${percent(largest(all.slice(1)))} come from its strongest ` +
    `pixel, of ${pixels}; with windows it takes from ${count(near)} pixels. Through ${layer + 1} ` +
    `${layer ? "layers" : "layer"} of windows it hears of ${count(reach)}.`;
}

/** @param {Float64Array} row */
function largest(row) {
  return Math.max(...row);
}

/** @param {Float64Array} row */
function count(row) {
  return row.filter((value) => value > 0).length;
}
