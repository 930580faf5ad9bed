/** Elements: to find them, to make them, and what several parts draw. */

/** @param {string} id */
export function the(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {string} id */
export function canvas(id) {
  return /** @type {HTMLCanvasElement} */ (the(id));
}

/** @param {string} id */
export function slider(id) {
  return /** @type {HTMLInputElement} */ (the(id));
}

/** The number that a slider stands at.
 * @param {string} id */
export function numberAt(id) {
  return Number(slider(id).value);
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {string} [text]
 */
export function made(tag, attributes = {}, text = "") {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.textContent = text;
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {string} [text]
 */
export function drawn(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.textContent = text;
  return element;
}

/** Puts in words where a slider stands.
 * @param {string} id
 * @param {string} words */
export function tell(id, words) {
  slider(id).setAttribute("aria-valuetext", words);
  the(`${id}-told`).textContent = words;
}

/** Calls `act` when one of some sliders moves.
 * @param {string[]} ids
 * @param {() => void} act */
export function whenMoved(ids, act) {
  for (const id of ids) the(id).addEventListener("input", act);
}

/** @param {number} value
 * @param {number} least
 * @param {number} most */
export function within(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

/** A colour of the style sheet, which has one for light and one for dark.
 * @param {string} name */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Rows of a name, a bar and a number, in place of what an element holds.
 * @param {string} id
 * @param {{name: string, part: number, says: string, strong?: boolean}[]} rows part: of the whole width */
export function bars(id, rows) {
  const list = the(id);
  while (list.children.length > rows.length) list.lastChild?.remove();
  while (list.children.length < rows.length) {
    const row = made("li");
    const track = made("span", { class: "track" });
    track.append(made("i"));
    row.append(made("span"), track, made("b"));
    list.append(row);
  }
  rows.forEach(({ name, part, says, strong }, i) => {
    const row = list.children[i];
    const [label, track, number] = row.children;
    row.className = strong ? "strong" : "";
    label.textContent = name;
    /** @type {HTMLElement} */ (track.firstElementChild).style.width = `${100 * within(part, 0, 1)}%`;
    number.textContent = says;
  });
}

/** A table's rows: the first cell of each is its head.
 * @param {string} id of the tbody
 * @param {string[][]} rows */
export function fill(id, rows) {
  const lines = rows.map(([head, ...cells]) => {
    const line = made("tr");
    line.append(made("th", { scope: "row" }, head), ...cells.map((cell) => made("td", {}, cell)));
    return line;
  });
  the(id).replaceChildren(...lines);
}
