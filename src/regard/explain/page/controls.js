/** Buttons, keys, slider and pointer: how the view is changed. */

import { boxesOf, save } from "./panels.js";
import { about, go, made, methodsOf, picture, place, the, view } from "./state.js";
import { within } from "./view.js";

/** @typedef {import("./state.js").Picture} Picture */

const OF_ROWS = ["left", "up", "down", "right", "class", "layer-", "slider", "layer+", "head-", "head+"];

/** Shows in buttons and slider what is looked at.
 * @param {Picture} now */
export function showControls(now) {
  const layer = now.layers[place()];
  const isRow = view.method === "row";
  the("layer").textContent = isRow && layer ? layer.name : "all layers";
  the("head").textContent = !isRow ? "all heads" : view.head < 0 ? "mean over heads" : `head ${view.head}`;
  for (const id of OF_ROWS) /** @type {HTMLButtonElement} */ (the(id)).disabled = !isRow;
  const slider = /** @type {HTMLInputElement} */ (the("slider"));
  slider.hidden = now.layers.length < 2;
  slider.max = String(now.layers.length - 1);
  slider.value = String(place());
  slider.setAttribute("aria-valuetext", layer?.name ?? "");
  moves(now.boxes.length > 0);
  the("class").hidden = !now.grid.prefix;
  the("compare").hidden = about.runs.length < 2;
  the("compare").setAttribute("aria-pressed", String(view.compare));
  the("methods").hidden = methodsOf().length < 2;
  choices("methods", methodsOf(), view.method, (name) => go({ method: name }));
  for (const [i, button] of [...the("images").children].entries()) {
    button.setAttribute("aria-pressed", String(i === view.image));
  }
}

/** @param {boolean} isBoxes the arrows go from box to box, not from patch to patch */
function moves(isBoxes) {
  the("up").hidden = the("down").hidden = isBoxes;
  the("moves").setAttribute("aria-label", isBoxes ? "Box" : "Patch");
  the("left").setAttribute("aria-label", isBoxes ? "The box before" : "One patch to the left");
  the("right").setAttribute("aria-label", isBoxes ? "The next box" : "One patch to the right");
}

/**
 * Buttons of which one is pressed. They stay the same elements, so that the focus does.
 * @param {string} id
 * @param {string[]} names
 * @param {string} pressed
 * @param {(name: string) => void} choose
 */
function choices(id, names, pressed, choose) {
  const group = the(id);
  if ([...group.children].map((one) => one.textContent).join() !== names.join()) {
    group.replaceChildren(
      ...names.map((name) => {
        const button = made("button", name);
        button.addEventListener("click", () => choose(name));
        return button;
      }),
    );
  }
  for (const button of group.children) button.setAttribute("aria-pressed", String(button.textContent === pressed));
}

/**
 * @param {number} down
 * @param {number} right
 */
function move(down, right) {
  if (view.method !== "row") return;
  const { grid, boxes } = picture();
  if (boxes.length) return go({ token: within(view.token + down + right, 0, boxes.length - 1) });
  const at = view.token - grid.prefix;
  if (at < 0) return go({ token: grid.prefix });
  const row = within(Math.floor(at / grid.width) + down, 0, grid.height - 1);
  const column = within((at % grid.width) + right, 0, grid.width - 1);
  go({ token: grid.prefix + row * grid.width + column });
}

/** @param {number} number */
function toLayer(number) {
  const { layers } = picture();
  if (view.method === "row" && layers.length) go({ layer: layers[within(number, 0, layers.length - 1)].name });
}

/** @param {number} by */
function toHead(by) {
  if (view.method === "row") go({ head: within(view.head + by, -1, (picture().layers[place()]?.heads ?? 1) - 1) });
}

function nextMethod() {
  const methods = methodsOf();
  go({ method: methods[(methods.indexOf(view.method) + 1) % methods.length] });
}

function help() {
  /** @type {HTMLDialogElement} */ (the("keys")).showModal();
}

function toggle() {
  if (about.runs.length > 1) go({ compare: !view.compare });
}

/** Goes to the patch, or to the box, under the pointer.
 * @param {PointerEvent} event */
function point(event) {
  const now = picture();
  const area = /** @type {HTMLElement} */ (event.currentTarget).getBoundingClientRect();
  const x = (event.clientX - area.left) / area.width;
  const y = (event.clientY - area.top) / area.height;
  if (now.boxes.length) {
    const token = boxAt(now, x * now.width, y * now.height);
    if (token >= 0) go({ token, method: "row" });
  } else if (now.layers.length) {
    const row = within(Math.floor(y * now.grid.height), 0, now.grid.height - 1);
    const column = within(Math.floor(x * now.grid.width), 0, now.grid.width - 1);
    go({ token: now.grid.prefix + row * now.grid.width + column, method: "row" });
  }
}

/**
 * The smallest box around a point, -1 where there is none.
 * @param {Picture} now
 * @param {number} x in pixels as seen
 * @param {number} y
 */
function boxAt(now, x, y) {
  const around = boxesOf(now)
    .map(({ corners: [left, top, right, bottom] }, token) => ({ left, top, right, bottom, token }))
    .filter((box) => x >= box.left && x <= box.right && y >= box.top && y <= box.bottom)
    .sort((a, b) => (a.right - a.left) * (a.bottom - a.top) - (b.right - b.left) * (b.bottom - b.top));
  return around.length ? around[0].token : -1;
}

/** @type {Record<string, () => void>} */
const KEYS = {
  ArrowLeft: () => move(0, -1),
  ArrowRight: () => move(0, 1),
  ArrowUp: () => move(-1, 0),
  ArrowDown: () => move(1, 0),
  "[": () => toLayer(place() - 1),
  "]": () => toLayer(place() + 1),
  "-": () => toHead(-1),
  "=": () => toHead(1),
  m: nextMethod,
  c: toggle,
  s: save,
  "?": help,
};

/** @type {Record<string, () => void>} */
const BUTTONS = {
  left: KEYS.ArrowLeft,
  right: KEYS.ArrowRight,
  up: KEYS.ArrowUp,
  down: KEYS.ArrowDown,
  class: () => go({ token: 0 }),
  "layer-": KEYS["["],
  "layer+": KEYS["]"],
  "head-": KEYS["-"],
  "head+": KEYS["="],
  compare: toggle,
  save,
  help,
};

/** @param {KeyboardEvent} event */
function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /** @type {HTMLDialogElement} */ (the("keys")).open) return;
  const act = KEYS[event.key];
  // On the slider the arrows move the slider.
  if (!act || (event.target === the("slider") && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  act();
}

/** Makes buttons, slider, keys and pointer act. */
export function listen() {
  for (const [id, act] of Object.entries(BUTTONS)) the(id).addEventListener("click", act);
  const slider = /** @type {HTMLInputElement} */ (the("slider"));
  slider.addEventListener("input", () => toLayer(Number(slider.value)));
  for (const id of ["heat", "heat2", "heat3"]) {
    the(id).addEventListener("pointerdown", point);
    the(id).addEventListener("pointermove", (event) => {
      if (event.buttons) point(event);
    });
  }
  document.addEventListener("keydown", press);
}
