/** Opens the page, and draws the view after each change. */

import { showAnswer } from "./answer.js";
import { listen, showControls } from "./controls.js";
import { drawMatrix } from "./matrix.js";
import { drawPanels } from "./panels.js";
import { Damaged, prepare } from "./pieces.js";
import { about, go, load, made, picture, settle, the, view, whenChanged } from "./state.js";
import { fromHash, toHash } from "./view.js";

/** @type {HTMLImageElement[]} */
const photographs = [];

/** How much of the view stands: nothing, "map", or "all", the small maps too. */
const page = document.documentElement.dataset;

let latest = 0;

/** Draws what depends on the view. */
async function show() {
  const turn = ++latest;
  settle();
  const runs = view.compare ? [...about.runs.keys()] : [view.run];
  await Promise.all(runs.map((run) => prepare(picture(run).layers)));
  if (turn !== latest) return; // another view was asked for meanwhile
  address();
  const now = picture();
  drawPanels(photographs[view.image]);
  showControls(now);
  showAnswer(now);
  const isRow = view.method === "row" && now.layers.length > 0;
  the("layers").hidden = !isRow;
  page.drawn = isRow ? "map" : "all";
  if (isRow) small();
}

let waiting = false;

/** Draws once a frame at most. */
function redraw() {
  latest++;
  delete page.drawn;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    show().catch(fail);
  });
}

let drawing = 0;

/** Draws the small maps after the frame in which the map changes, which so does not wait for them. */
function small() {
  clearTimeout(drawing);
  drawing = setTimeout(() => {
    if (page.drawn !== "map") return;
    drawMatrix(picture());
    page.drawn = "all";
  }, 30);
}

let written = 0;
let writing = 0;

/** Holds the view in the address; not more often than browsers allow, which is some seven times a second. */
function address() {
  clearTimeout(writing);
  const write = () => {
    written = performance.now();
    history.replaceState(null, "", `#${toHash(view)}`);
  };
  writing = setTimeout(write, Math.max(0, written + 200 - performance.now()));
}

/** The images in the header, each a button. */
async function decode() {
  for (const one of about.runs[0].images) {
    const image = new Image();
    image.src = one.src;
    image.alt = "";
    await image.decode().catch((error) => {
      throw new Damaged(String(error));
    });
    photographs.push(image);
  }
  the("images").hidden = photographs.length < 2;
  the("images").replaceChildren(
    ...about.runs[0].images.map((one, i) => {
      const button = made("button", "");
      button.title = one.name;
      button.setAttribute("aria-label", one.name);
      button.append(photographs[i].cloneNode());
      button.addEventListener("click", () => go({ image: i }));
      return button;
    }),
  );
}

async function begin() {
  await load();
  await decode();
  listen();
  whenChanged(redraw);
  addEventListener("hashchange", () => go(fromHash(location.hash)));
  addEventListener("resize", redraw);
  const { grid, boxes } = picture();
  const centre = Math.floor(grid.height / 2) * grid.width + Math.floor(grid.width / 2);
  view.token = grid.prefix || boxes.length ? 0 : centre;
  Object.assign(view, fromHash(location.hash));
  the("page").hidden = false;
  await show();
}

/** Says in place of the page that the file is damaged.
 * @param {unknown} error */
function fail(error) {
  if (!(error instanceof Damaged)) throw error;
  the("page").hidden = true;
  the("damaged").hidden = false;
}

// trouble.js stands before this one, and has looked at the browser.
if (the("old").hidden) begin().catch(fail);
