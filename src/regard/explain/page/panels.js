/** The photograph with a map over it, and beside another run's. */

import { drawHeat } from "./drawing.js";
import { percent, rowOf, sentence, tokenName } from "./maths.js";
import { numbersOf } from "./pieces.js";
import { about, canvas, picture, place, the, view } from "./state.js";
import { within } from "./view.js";

/**
 * @typedef {import("./drawing.js").Heat} Heat
 * @typedef {import("./state.js").Picture} Picture
 */

/**
 * What is shown of a run: a map on the grid.
 * @param {number} run
 * @returns {Heat & {says: string} | null}
 */
function shown(run) {
  const now = picture(run);
  if (view.method !== "row") {
    const found = now.maps.find((one) => one.method === view.method);
    return found ? { ...found, says: found.says[0] } : null;
  }
  const layer = now.layers[place(now)];
  if (!layer) return null;
  const row = rowOf(layer, numbersOf(layer), within(view.head, -1, layer.heads - 1), view.token);
  return { ...onGrid(row, now.grid), says: told(now, layer, row) };
}

/**
 * @param {Float32Array} row
 * @param {import("./maths.js").Grid} grid
 * @returns {Heat}
 */
export function onGrid(row, grid) {
  return { values: row.subarray(grid.prefix), rows: grid.height, columns: grid.width, signed: false };
}

/**
 * @param {Picture} now
 * @param {import("./maths.js").Layer} layer
 * @param {Float32Array} row
 */
function told(now, layer, row) {
  const box = now.boxes[view.token];
  const who = box ? `the query of ${box.name} ${box.score.toFixed(2)}` : tokenName(now.grid, view.token);
  return sentence(now.grid, who, row, layer.kind);
}

/** The boxes as the decoder's layer gives them that is looked at; as the last gives them beside another method.
 * @param {Picture} now */
export function boxesOf(now) {
  const last = (now.boxes[0]?.layers.length ?? 1) - 1;
  const number = Number(view.layer.split(".").pop());
  const step = Number.isInteger(number) ? within(number, 0, last) : last;
  return now.boxes.map((box, i) => ({ corners: box.layers[step], name: `${box.name} ${box.score.toFixed(2)}`, chosen: i === view.token }));
}

function cross() {
  const { grid, boxes } = picture();
  if (view.method !== "row" || boxes.length || view.token < grid.prefix) return null;
  const at = view.token - grid.prefix;
  return { row: Math.floor(at / grid.width), column: at % grid.width, rows: grid.height, columns: grid.width };
}

/** @param {HTMLImageElement} photograph */
export function drawPanels(photograph) {
  const now = picture();
  const mine = shown(view.run);
  the("page").style.setProperty("--aspect", String(now.width / now.height));
  the("page").classList.toggle("beside", !view.compare);
  drawHeat(canvas("heat"), photograph, now, mine, cross(), boxesOf(now));
  the("told").textContent = mine?.says ?? "There is no map.";
  the("whose").textContent = about.runs.length > 1 ? about.runs[view.run].name : "";
  the("other").hidden = the("apart").hidden = !view.compare;
  the("shown").classList.toggle("three", view.compare);
  if (view.compare) compare(mine, photograph);
}

/**
 * @param {Heat & {says: string} | null} mine
 * @param {HTMLImageElement} photograph
 */
function compare(mine, photograph) {
  const run = 1 - view.run;
  const theirs = shown(run);
  const size = picture(run);
  drawHeat(canvas("heat2"), photograph, size, theirs, cross(), boxesOf(size));
  the("whose2").textContent = `${about.runs[run].name}: ${theirs?.says ?? "it has no such map"}`;
  const fits = mine && theirs && mine.values.length === theirs.values.length;
  const values = fits ? Array.from(mine.values, (value, i) => value - theirs.values[i]) : [];
  const heat = fits ? { ...mine, values, signed: true } : null;
  drawHeat(canvas("heat3"), photograph, size, heat, cross(), []);
  const most = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const much = view.method === "row" ? percent(most) : most.toPrecision(2);
  the("whose3").textContent = fits
    ? `the difference: orange where ${about.runs[view.run].name} has more, blue where it has less; at most ${much}`
    : "there is no difference to show";
}

/** Saves what stands in the panels as one PNG. */
export function save() {
  const panels = ["heat", ...(view.compare ? ["heat2", "heat3"] : [])].map(canvas);
  const whole = document.createElement("canvas");
  whole.width = panels.reduce((sum, one) => sum + one.width, 0);
  whole.height = Math.max(...panels.map((one) => one.height));
  const context = /** @type {CanvasRenderingContext2D} */ (whole.getContext("2d"));
  let x = 0;
  for (const one of panels) {
    context.drawImage(one, x, 0);
    x += one.width;
  }
  const link = document.createElement("a");
  link.download = `${picture().name.replace(/\.\w+$/, "")}-${view.method}.png`;
  link.href = whole.toDataURL("image/png");
  link.click();
}
