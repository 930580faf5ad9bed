/** (a) Draw a digit: prediction, a row of attention, relevance. */

import { clear, counts, examples, FINE, models, pixels, show, state, stroke, traceOf } from "./digit.js";
import { bars, canvas, colour, made, numberAt, tell, the, whenMoved, within } from "./dom.js";
import { ARROWS, drawGrey, drawMap } from "./heat.js";
import { changed, part } from "./parts.js";
import { headQuery, relevance, rowOf, softmax } from "./vit.js";

const ZOOM = 10; // canvas pixels of a fine pixel
const pen = { x: FINE / 2, y: FINE / 2, isDown: false, isHeld: false, isRubber: false, isShown: false };

/** @param {Record<string, number>} accuracies of the models, on digits held out */
export function beginDrawing(accuracies) {
  const pad = canvas("pad");
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    Object.assign(pen, at(event), { isHeld: true, isShown: false });
    stroke(pen.x, pen.y, pen.x, pen.y, pen.isRubber);
  });
  pad.addEventListener("pointermove", (event) => {
    if (!pen.isHeld) return;
    // Browsers give one event a frame, and in it the places between.
    const between = event.getCoalescedEvents?.() ?? [];
    for (const one of between.length ? between : [event]) moveTo(at(one), true);
  });
  for (const kind of ["pointerup", "pointercancel"]) pad.addEventListener(kind, () => (pen.isHeld = false));
  pad.addEventListener("keydown", press);
  pad.addEventListener("focus", () => showPen(pad.matches(":focus-visible")));
  pad.addEventListener("blur", () => showPen(false));
  the("clear").addEventListener("click", clear);
  the("rubber").addEventListener("click", () => {
    pen.isRubber = !pen.isRubber;
    the("rubber").setAttribute("aria-pressed", String(pen.isRubber));
  });
  for (const { label, counts } of examples) {
    const button = made("button", { "aria-label": `A ${label} of the data set` }, String(label));
    button.addEventListener("click", () => show(counts));
    the("examples").append(button);
  }
  for (const [mixer, accuracy] of Object.entries(accuracies)) {
    const button = made("button", { "aria-pressed": String(mixer === state.mixer) }, `${mixer}, ${(100 * accuracy).toFixed(1)}%`);
    button.addEventListener("click", () => {
      state.mixer = mixer;
      for (const other of the("mixers").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
      changed("drawing", "truth");
    });
    the("mixers").append(button);
  }
  whenMoved(["layer", "head"], () => changed("drawing"));
  part("drawing", draw);
}

/** The place of a pointer in fine pixels.
 * @param {PointerEvent} event */
function at(event) {
  const area = canvas("pad").getBoundingClientRect();
  const place = (/** @type {number} */ part) => within(part * FINE, 0, FINE);
  return { x: place((event.clientX - area.left) / area.width), y: place((event.clientY - area.top) / area.height) };
}

/** @param {{x: number, y: number}} place
 * @param {boolean} isDown */
function moveTo({ x, y }, isDown) {
  if (isDown) stroke(pen.x, pen.y, x, y, pen.isRubber);
  Object.assign(pen, { x, y });
  changed("drawing");
}

/** @param {KeyboardEvent} event */
function press(event) {
  const move = ARROWS[event.key];
  if (move) {
    pen.isShown = true;
    moveTo({ x: within(pen.x + 2 * move[0], 0, FINE), y: within(pen.y + 2 * move[1], 0, FINE) }, pen.isDown);
  } else if (event.key === " ") {
    pen.isDown = !pen.isDown;
    if (pen.isDown) stroke(pen.x, pen.y, pen.x, pen.y, pen.isRubber);
    showPen(true);
  } else if (event.key === "Delete" || event.key === "Backspace") clear();
  else return;
  event.preventDefault();
}

/** @param {boolean} isShown */
function showPen(isShown) {
  pen.isShown = isShown;
  pen.isDown = pen.isDown && isShown;
  changed("drawing");
}

function drawPad() {
  const pad = canvas("pad");
  pad.width = pad.height = FINE * ZOOM;
  const context = /** @type {CanvasRenderingContext2D} */ (pad.getContext("2d"));
  context.fillStyle = colour("panel");
  context.fillRect(0, 0, pad.width, pad.height);
  context.fillStyle = colour("ink");
  state.ink.forEach((ink, place) => {
    if (ink) context.fillRect((place % FINE) * ZOOM, Math.floor(place / FINE) * ZOOM, ZOOM, ZOOM);
  });
  context.strokeStyle = colour("line");
  for (let line = 4; line < FINE; line += 4) {
    context.strokeRect(line * ZOOM, -1, 0, pad.height + 2);
    context.strokeRect(-1, line * ZOOM, pad.width + 2, 0);
  }
  if (!pen.isShown) return;
  context.strokeStyle = colour("centre");
  context.lineWidth = 4;
  context.beginPath();
  context.arc(pen.x * ZOOM, pen.y * ZOOM, 2 * ZOOM, 0, 2 * Math.PI);
  context.stroke();
  if (pen.isDown) context.fillStyle = colour("centre");
  if (pen.isDown) context.fill();
}

/** @param {number} part */
function tenths(part) {
  return `${(100 * part).toFixed(1)}%`;
}

function draw() {
  drawPad();
  const model = models[state.mixer];
  const trace = traceOf(state.mixer);
  const chances = softmax(trace.logits);
  const best = chances.indexOf(Math.max(...chances));
  const [layer, head] = [numberAt("layer") - 1, numberAt("head") - 1];
  bars("answer", chances.map((part, i) => ({ name: String(i), part, says: tenths(part), strong: i === best })));
  const ink = counts();
  drawGrey(canvas("seen"), pixels());
  drawMap(canvas("row"), rowOf(model, trace, headQuery(model), layer, head).slice(model.prefix), ink);
  drawMap(canvas("relevance"), relevance(model, trace, best).slice(model.prefix), ink);
  const whose = head < 0 ? "mean of all heads" : `head ${head + 1}`;
  tell("layer", `${layer + 1} of ${model.depth}`);
  tell("head", head < 0 ? "all, mean" : `${head + 1} of ${model.heads}`);
  the("row-told").textContent = `What ${model.prefix ? "the class token takes" : "all pixels take, on average,"} in layer ${layer + 1}, ${whose}`;
  the("relevance-told").textContent = `Relevance for “${best}”`;
  the("told").textContent = state.ink.some(Boolean)
    ? `The model answers ${best}, with ${tenths(chances[best])}.`
    : `Nothing is drawn; the model still answers ${best}, with ${tenths(chances[best])}.`;
}
