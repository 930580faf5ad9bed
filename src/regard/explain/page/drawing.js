/** Photograph, heat, thumbnails, curves. */

/** @typedef {{values: ArrayLike<number>, rows: number, columns: number, signed: boolean}} Heat */

/**
 * The largest size of a map's values; 1 where all are zero.
 * @param {ArrayLike<number>} values
 */
function strongest(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most || 1;
}

/**
 * A map as an image of one pixel a patch: opacity is the square root of the strength.
 * @param {Heat} heat
 * @param {boolean} solid on black, without a photograph
 */
function painted(heat, solid) {
  const canvas = document.createElement("canvas");
  canvas.width = heat.columns;
  canvas.height = heat.rows;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const pixels = context.createImageData(heat.columns, heat.rows);
  const most = strongest(heat.values);
  for (let i = 0; i < heat.rows * heat.columns; i++) {
    const strength = Math.sqrt(Math.abs(heat.values[i]) / most);
    const isAgainst = heat.signed && heat.values[i] < 0;
    const colour = isAgainst ? [40, 130, 255] : [255, 110 + 120 * strength * strength, 20];
    pixels.data.set(solid ? colour.map((part) => part * strength) : colour, 4 * i);
    pixels.data[4 * i + 3] = solid ? 255 : 190 * strength;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** @type {WeakMap<HTMLImageElement, HTMLCanvasElement>} */
const dimmed = new WeakMap();

/**
 * The photograph, darker and greyer, in the size of the canvas; made once.
 * @param {HTMLImageElement} photograph
 * @param {number} width
 * @param {number} height
 * @param {boolean} smooth
 */
function ground(photograph, width, height, smooth) {
  let canvas = dimmed.get(photograph);
  if (!canvas || canvas.width !== width || canvas.height !== height) {
    canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.imageSmoothingEnabled = smooth;
    context.drawImage(photograph, 0, 0, width, height);
    // Less colour, then less light. Safari has no `filter`.
    context.globalCompositeOperation = "saturation";
    context.fillStyle = "rgba(128, 128, 128, 0.6)";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-over";
    context.fillStyle = "rgba(0, 0, 0, 0.4)";
    context.fillRect(0, 0, width, height);
    dimmed.set(photograph, canvas);
  }
  return canvas;
}

/**
 * The photograph, darker and grey, with a map over it.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLImageElement} photograph
 * @param {{width: number, height: number}} size of the image as seen
 * @param {Heat | null} heat
 * @param {{row: number, column: number, rows: number, columns: number} | null} cross the patch that is looked from
 * @param {{corners: number[], name: string, chosen: boolean}[]} boxes in pixels as seen
 */
export function drawHeat(canvas, photograph, size, heat, cross, boxes) {
  const scale = Math.max(1, Math.ceil(720 / Math.max(size.width, size.height)));
  const width = size.width * scale;
  const height = size.height * scale;
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(ground(photograph, width, height, scale < 4), 0, 0);
  context.imageSmoothingEnabled = false;
  if (heat) context.drawImage(painted(heat, false), 0, 0, width, height);
  const line = Math.max(2, width / 300);
  for (const box of [...boxes].sort((a, b) => Number(a.chosen) - Number(b.chosen))) {
    const [left, top, right, bottom] = box.corners.map((value) => value * scale);
    const colour = box.chosen ? "#ffe14d" : "#ffffff";
    frame(context, left, top, right - left, bottom - top, line, colour);
    label(context, box.name, left, top, colour);
  }
  if (cross) {
    const w = width / cross.columns;
    const h = height / cross.rows;
    const x = cross.column * w;
    const y = cross.row * h;
    context.lineWidth = 1;
    context.strokeStyle = "rgba(255,255,255,.55)";
    context.beginPath();
    for (const [from, to] of [[[0, y + h / 2], [x, y + h / 2]], [[x + w, y + h / 2], [width, y + h / 2]], [[x + w / 2, 0], [x + w / 2, y]], [[x + w / 2, y + h], [x + w / 2, height]]]) {
      context.moveTo(from[0], from[1]);
      context.lineTo(to[0], to[1]);
    }
    context.stroke();
    frame(context, x, y, w, h, line, "#5cf2ff");
  }
}

/**
 * A frame that is seen on any ground.
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} w
 * @param {number} h
 * @param {number} line
 * @param {string} colour
 */
function frame(context, x, y, w, h, line, colour) {
  context.lineWidth = 2.4 * line;
  context.strokeStyle = "rgba(0,0,0,.75)";
  context.strokeRect(x, y, w, h);
  context.lineWidth = line;
  context.strokeStyle = colour;
  context.strokeRect(x, y, w, h);
}

/**
 * A name on a box's upper left corner, inside the picture.
 * @param {CanvasRenderingContext2D} context
 * @param {string} name
 * @param {number} x
 * @param {number} y
 * @param {string} colour
 */
function label(context, name, x, y, colour) {
  const { width } = context.canvas;
  const size = Math.round(width / 36);
  context.font = `600 ${size}px system-ui, sans-serif`;
  const wide = context.measureText(name).width + size * 0.6;
  const left = Math.max(0, Math.min(x, width - wide));
  const top = Math.max(0, y - size * 1.3);
  context.fillStyle = colour;
  context.fillRect(left, top, wide, size * 1.3);
  context.fillStyle = "#000";
  context.fillText(name, left + size * 0.3, top + size);
}

/**
 * Small maps in a matrix: a line for each layer.
 * @param {HTMLCanvasElement} canvas
 * @param {Heat[][]} lines
 * @param {number} columns
 * @param {number} width of a map
 * @param {number} height of a map
 * @param {number} gap
 */
export function drawSmall(canvas, lines, columns, width, height, gap) {
  canvas.width = columns * (width + gap) - gap;
  canvas.height = Math.max(lines.length * (height + gap) - gap, 1);
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingEnabled = false;
  lines.forEach((line, y) => {
    line.forEach((heat, x) =>
      context.drawImage(painted(heat, true), x * (width + gap), y * (height + gap), width, height),
    );
  });
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * Curves of deletion: of the map, of chance and of the centre.
 * @param {number[]} fractions
 * @param {{name: string, values: number[]}[]} curves
 * @param {string} label
 * @returns {SVGElement}
 */
export function curvesOf(fractions, curves, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 300 130");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const highest = Math.max(...curves.flatMap((curve) => curve.values), 1e-9);
  const lowest = Math.min(...curves.flatMap((curve) => curve.values), 0);
  /** @param {string} name @param {Record<string, string | number>} values @param {string} [text] */
  const add = (name, values, text) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, String(value));
    if (text) element.textContent = text;
    svg.append(element);
  };
  const y = (/** @type {number} */ value) => 108 - (100 * (value - lowest)) / (highest - lowest);
  add("path", { d: "M34 8V108H214", class: "axis" });
  add("text", { x: 30, y: 14, "text-anchor": "end" }, highest.toFixed(2));
  add("text", { x: 30, y: 110, "text-anchor": "end" }, lowest.toFixed(2));
  add("text", { x: 124, y: 124, "text-anchor": "middle" }, "patches taken away");
  curves.forEach((curve, number) => {
    const points = curve.values.map((value, i) => `${34 + 180 * fractions[i]},${y(value).toFixed(1)}`).join(" ");
    add("polyline", { points, class: `curve c${number}` });
    add("path", { d: `M222 ${20 + 22 * number}h20`, class: `curve c${number}` });
    add("text", { x: 246, y: 24 + 22 * number }, curve.name);
  });
  return svg;
}
