// A matrix of groups on groups: cells of colours, chosen by click or by keys.

import { diverging, onTop } from "./colors.js";
import { draw, inks, isDark, rove } from "./elements.js";

/** @typedef {import("./sample_api.js").Matrix} Matrix */
/** @typedef {{fill: string, text: string, said: string}} Cell colour, number, and both in words */

const CHARACTER = 7.5;
const [MOST_LEFT, MOST_BELOW, TITLE] = [110, 90, 20];
const DIGIT = 6;
const LARGEST_CELL = 64;

/**
 * @param {HTMLElement} parent
 * @param {{names: string[], rows: string, columns: string, label: string, cells: Cell[][],
 *   chosen: [number, number] | null, choose: (row: number, column: number) => void}} what
 */
export function drawMatrix(parent, { names, rows, columns, label, cells, chosen, choose }) {
  const { ink, faint } = inks();
  const n = names.length;
  const longest = CHARACTER * Math.max(...names.map((name) => name.length)) + 8;
  const left = TITLE + Math.min(MOST_LEFT, longest);
  const size = Math.min(LARGEST_CELL, Math.max(4, (parent.clientWidth - left - 2) / n));
  const isUpright = longest <= size;
  const below = TITLE + (isUpright ? 16 : Math.min(MOST_BELOW, longest));
  const [width, height] = [left + n * size + 2, n * size + below + 2];

  const figure = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  figure.setAttribute("font-family", "system-ui, sans-serif");
  figure.setAttribute("font-size", "12");
  const write = (/** @type {import("./elements.js").Attributes} */ where, /** @type {string} */ text, fill = faint) => {
    figure.append(draw("text", { fill, ...where }, text));
  };

  names.forEach((name, k) => {
    const middle = (k + 0.5) * size;
    // Where cells are small, only some of the names fit.
    if (k % Math.ceil(14 / size)) return;
    write({ x: left - 5, y: middle + 4, "text-anchor": "end" }, short(name, left - TITLE), ink);
    const at = `translate(${left + middle},${n * size + 14})`;
    if (isUpright) write({ transform: at, "text-anchor": "middle" }, name, ink);
    else write({ transform: `${at} rotate(-90) translate(8,4)`, "text-anchor": "end" }, short(name, below - TITLE), ink);
  });
  write({ transform: `translate(12,${(n * size) / 2}) rotate(-90)`, "text-anchor": "middle" }, rows);
  write({ x: left + (n * size) / 2, y: height - 5, "text-anchor": "middle" }, columns);

  // Where cells are small their colours say it, and their titles.
  const characters = Math.max(...cells.flat().map(({ text }) => text.length));
  const hasText = DIGIT * characters + 4 <= size;
  for (let row = 0; row < n; row += 1) {
    for (let column = 0; column < n; column += 1) {
      const isChosen = chosen !== null && chosen[0] === row && chosen[1] === column;
      figure.append(cellOf(cells[row][column], { x: left + column * size, y: row * size + 1, size, hasText, isChosen }));
    }
  }
  const places = /** @type {HTMLElement[]} */ ([...figure.querySelectorAll(".cell")]);
  const first = chosen === null ? 0 : chosen[0] * n + chosen[1];
  places.forEach((place, k) => {
    place.setAttribute("tabindex", k === first ? "0" : "-1");
    place.addEventListener("click", () => choose(Math.floor(k / n), k % n));
    place.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(Math.floor(k / n), k % n);
    });
  });
  rove(figure, ".cell", (at, key) => {
    if (key === "ArrowLeft") return at % n ? at - 1 : null;
    if (key === "ArrowRight") return (at + 1) % n ? at + 1 : null;
    return { ArrowUp: at - n, ArrowDown: at + n }[key] ?? null;
  });

  // The cell that had the focus keeps it when the matrix is drawn again.
  const focused = [...parent.querySelectorAll(".cell")].findIndex((place) => place === document.activeElement);
  parent.replaceChildren(figure);
  if (focused >= 0) places[focused]?.focus();
}

/**
 * @param {Cell} cell
 * @param {{x: number, y: number, size: number, hasText: boolean, isChosen: boolean}} looks
 */
function cellOf({ fill, text, said }, { x, y, size, hasText, isChosen }) {
  const { ink, paper } = inks();
  const place = draw("g", { class: "cell", role: "button", "aria-pressed": String(isChosen) });
  const stroke = isChosen ? { stroke: ink, "stroke-width": 3 } : { stroke: paper, "stroke-width": 1 };
  const inset = isChosen ? 1.5 : 0.5;
  const side = size - 2 * inset;
  place.append(draw("title", {}, said));
  place.append(draw("rect", { x: x + inset, y: y + inset, width: side, height: side, fill, ...stroke }));
  if (hasText) {
    const middle = { x: x + size / 2, y: y + size / 2 + 4, "text-anchor": "middle" };
    place.append(draw("text", { ...middle, fill: onTop(bytes(fill)), "font-size": size < 44 ? 10 : 12 }, text));
  }
  return place;
}

/** As much of a name as fits. */
function short(/** @type {string} */ name, /** @type {number} */ room) {
  const most = Math.floor(room / CHARACTER);
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

/** The bytes of #rrggbb. */
function bytes(/** @type {string} */ hex) {
  return [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
}

function hex(/** @type {ArrayLike<number>} */ colour) {
  return `#${Array.from(colour, (byte) => Math.round(byte).toString(16).padStart(2, "0")).join("")}`;
}

/**
 * Colours of counts: from the paper to the accent, by a share between 0 and 1.
 * @returns {(share: number) => string}
 */
export function shades() {
  const { paper, accent } = inks();
  const [from, to] = [bytes(paper), bytes(accent)];
  // A few among many are to be seen too.
  return (share) => hex(from.map((byte, k) => byte + Math.sqrt(share) * (to[k] - byte)));
}

/**
 * Colours of signed numbers, logarithmic over three decades.
 * @param {number} limit
 * @returns {(value: number | null) => string}
 */
export function signedColours(limit) {
  const scale = diverging(limit, "log", isDark());
  const { paper } = inks();
  return (value) => {
    if (value === null) return paper;
    const step = 3 * scale.step(value);
    return hex(scale.colors.subarray(step, step + 3));
  };
}
