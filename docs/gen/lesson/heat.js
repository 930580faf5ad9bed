/** Maps over the digit's 8 × 8 pixels, and how a pixel is chosen in one. */

import { choose, SIDE, state } from "./digit.js";
import { colour, within } from "./dom.js";

const CELL = 24; // canvas pixels of a cell

/**
 * Draws a map: the deeper a cell's colour, the more; strength is the square root of the share of the largest. In each
 * cell a square shows the ink.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values of the pixels; none draws the ink alone
 * @param {ArrayLike<number>} ink 0 to 16
 * @param {number} [chosen] a pixel with a frame around it
 */
export function drawMap(canvas, values, ink, chosen = -1) {
  const context = begun(canvas);
  const most = Math.max(...Array.from(values), 1e-12);
  for (let at = 0; at < SIDE * SIDE; at++) {
    const [x, y] = [(at % SIDE) * CELL, Math.floor(at / SIDE) * CELL];
    context.fillStyle = colour("heat");
    context.globalAlpha = values.length ? Math.sqrt(Math.max(values[at], 0) / most) : 0;
    context.fillRect(x, y, CELL, CELL);
    context.fillStyle = colour("ink");
    context.globalAlpha = 0.75;
    const size = (CELL - 8) * Math.sqrt(ink[at] / 16);
    context.fillRect(x + (CELL - size) / 2, y + (CELL - size) / 2, size, size);
    context.globalAlpha = 1;
  }
  if (chosen >= 0) frame(context, chosen);
}

/** The digit in grey, as a model sees it.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} pixels from 0 to 1 */
export function drawGrey(canvas, pixels) {
  const context = begun(canvas);
  for (let at = 0; at < SIDE * SIDE; at++) {
    const grey = Math.round(255 * pixels[at]);
    context.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
    context.fillRect((at % SIDE) * CELL, Math.floor(at / SIDE) * CELL, CELL, CELL);
  }
}

/** @param {HTMLCanvasElement} canvas */
function begun(canvas) {
  canvas.width = canvas.height = SIDE * CELL;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = colour("panel");
  context.fillRect(0, 0, canvas.width, canvas.height);
  return context;
}

/** @param {CanvasRenderingContext2D} context
 * @param {number} pixel */
function frame(context, pixel) {
  context.strokeStyle = colour("centre");
  context.lineWidth = 4;
  context.strokeRect((pixel % SIDE) * CELL + 2, Math.floor(pixel / SIDE) * CELL + 2, CELL - 4, CELL - 4);
}

/** Moves of the arrow keys, as (right, down).
 * @type {Record<string, [number, number]>} */
export const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Lets pointer and arrow keys choose a pixel in a map.
 * @param {HTMLCanvasElement} canvas */
export function pickable(canvas) {
  /** @param {PointerEvent} event */
  const point = (event) => {
    const area = canvas.getBoundingClientRect();
    const column = within(Math.floor(((event.clientX - area.left) / area.width) * SIDE), 0, SIDE - 1);
    const row = within(Math.floor(((event.clientY - area.top) / area.height) * SIDE), 0, SIDE - 1);
    choose(row * SIDE + column);
  };
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) point(event);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = ARROWS[event.key];
    if (!move) return;
    event.preventDefault();
    const column = within((state.pixel % SIDE) + move[0], 0, SIDE - 1);
    const row = within(Math.floor(state.pixel / SIDE) + move[1], 0, SIDE - 1);
    choose(row * SIDE + column);
  });
}
