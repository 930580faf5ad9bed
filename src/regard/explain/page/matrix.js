/** Small maps of all layers and heads, each a button. */

import { drawSmall } from "./drawing.js";
import { rowOf } from "./maths.js";
import { onGrid } from "./panels.js";
import { numbersOf } from "./pieces.js";
import { canvas, go, made, the, view } from "./state.js";

/** @typedef {import("./state.js").Picture} Picture */

const GAP = 4;
/** Pixels of a small map's longer side at most, and of its shorter side at least. */
const LONGEST = 80;
const SHORTEST = 20;
/** Pixels of the window in height that are not the small maps'. */
const ROOM = 270;

let celled = "";

/** @param {Picture} now */
export function drawMatrix(now) {
  const heads = Math.max(...now.layers.map((layer) => layer.heads));
  const columns = heads > 1 ? heads + 1 : 1;
  const lines = now.layers.map((layer) => {
    const rows = Array.from({ length: layer.heads }, (_, head) => rowOf(layer, numbersOf(layer), head, view.token));
    if (rows.length > 1) {
      rows.unshift(rows[0].map((_, j) => rows.reduce((sum, row) => sum + row[j], 0) / layer.heads));
    }
    return rows.map((row) => onGrid(row, now.grid));
  });
  const [width, height] = sizeOf(now.grid, columns, lines.length);
  drawSmall(canvas("small"), lines, columns, width, height, GAP);
  const [first, last] = [now.layers[0].name, now.layers[now.layers.length - 1].name];
  const across = columns > 1 ? `; from the left the mean over heads, then heads 0 to ${heads - 1}` : "";
  the("matrix-told").textContent = (first === last ? first : `From the top ${first} to ${last}`) + across;
  cells(now, lines, columns);
}

/**
 * Width and height of a small map, in the shape of the grid, so that all are seen at once where they can.
 * @param {import("./maths.js").Grid} grid
 * @param {number} columns
 * @param {number} rows
 */
function sizeOf(grid, columns, rows) {
  const wide = the("layers").clientWidth / columns - GAP;
  const tall = Math.max(innerHeight - ROOM, 300) / rows - GAP;
  const pixels = Math.min(wide / grid.width, tall / grid.height, LONGEST / Math.max(grid.width, grid.height));
  const scale = Math.max(pixels, SHORTEST / Math.min(grid.width, grid.height));
  return [Math.round(scale * grid.width), Math.round(scale * grid.height)];
}

/**
 * @param {Picture} now
 * @param {unknown[][]} lines
 * @param {number} columns
 */
function cells(now, lines, columns) {
  const key = `${view.run} ${view.image}`;
  const group = the("cells");
  if (celled !== key) {
    celled = key;
    group.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    group.replaceChildren(
      ...now.layers.flatMap((layer, y) => lines[y].map((_, x) => cell(layer.name, columns > 1 ? x - 1 : -1, y, x))),
    );
  }
  for (const button of /** @type {NodeListOf<HTMLElement>} */ (group.querySelectorAll("button"))) {
    button.setAttribute("aria-pressed", String(button.dataset.at === `${view.layer} ${view.head}`));
  }
}

/**
 * @param {string} layer
 * @param {number} head
 * @param {number} y
 * @param {number} x
 */
function cell(layer, head, y, x) {
  const button = made("button", "");
  button.style.gridArea = `${y + 1} / ${x + 1}`;
  button.title = `${layer}, ${head < 0 ? "mean over heads" : `head ${head}`}`;
  button.setAttribute("aria-label", button.title);
  button.dataset.at = `${layer} ${head}`;
  button.addEventListener("click", () => go({ layer, head }));
  return button;
}
