// What the points of each term do to the loss of each, as a table of colours and numbers.

import { diverging, onTop } from "./colors.js";
import { inks, make } from "./elements.js";
import { format } from "./numbers.js";
import { SvgContext } from "./svg.js";

const TITLE = "loss of ↓ without points of →";
/** Pixels of a letter, and of a cell's height, in a saved figure. */
const [LETTER, ROW] = [7.5, 28];

/**
 * @param {HTMLElement} parent
 * @param {string[]} names of rows and columns
 * @param {Float64Array} values row by row: losses, then the terms whose points are removed
 * @param {boolean} isDark
 */
export function drawTerms(parent, names, values, isDark) {
  const n = names.length;
  const table = make("table", { class: "matrix" });
  table.append(row("th", [TITLE, ...names]));
  for (let i = 0; i < n; i += 1) {
    const ofRow = values.subarray(i * n, (i + 1) * n);
    const colors = colorsOfRow(ofRow, isDark);
    const line = row("td", ["", ...Array.from(ofRow, format)]);
    line.replaceChild(make("th", { scope: "row" }, names[i]), line.children[0]);
    colors.forEach(({ ground, text }, j) => {
      const cell = /** @type {HTMLElement} */ (line.children[j + 1]);
      cell.style.background = ground;
      cell.style.color = text;
    });
    table.append(line);
  }
  parent.replaceChildren(table);
}

/** The colours of a row's cells. Losses differ by decades: each row has colours of its own. */
function colorsOfRow(/** @type {Float64Array} */ ofRow, /** @type {boolean} */ isDark) {
  const scale = diverging(Math.max(...ofRow.map(Math.abs)), "log", isDark);
  return Array.from(ofRow, (value) => {
    const color = 3 * scale.step(value);
    const [r, g, b] = scale.colors.subarray(color, color + 3);
    return { ground: `rgb(${r}, ${g}, ${b})`, text: onTop([r, g, b]) };
  });
}

/**
 * The same as an SVG file.
 * @param {string[]} names
 * @param {Float64Array} values
 * @param {boolean} isDark
 */
export function termSvg(names, values, isDark) {
  const n = names.length;
  const longest = Math.max(9, ...names.map((name) => name.length));
  const [left, width] = [LETTER * Math.max(TITLE.length, longest) + 10, LETTER * longest + 16];
  const context = new SvgContext(left + n * width, ROW * (n + 1));
  const { paper, ink } = inks();
  const write = (/** @type {string} */ text, /** @type {number} */ x, /** @type {number} */ line, /** @type {"center" | "right"} */ align) => {
    context.textAlign = align;
    context.fillText(text, x, ROW * (line + 0.5));
  };

  context.fillStyle = paper;
  context.fillRect(0, 0, left + n * width, ROW * (n + 1));
  context.fillStyle = ink;
  write(TITLE, left - 8, 0, "right");
  names.forEach((name, k) => {
    write(name, left + (k + 0.5) * width, 0, "center");
    write(name, left - 8, k + 1, "right");
  });
  for (let i = 0; i < n; i += 1) {
    const ofRow = values.subarray(i * n, (i + 1) * n);
    colorsOfRow(ofRow, isDark).forEach(({ ground, text }, j) => {
      context.fillStyle = ground;
      context.fillRect(left + j * width, ROW * (i + 1), width - 1, ROW - 1);
      context.fillStyle = text;
      write(format(ofRow[j]), left + (j + 0.5) * width, i + 1, "center");
    });
  }
  return context.text();
}

/**
 * @param {"th" | "td"} kind
 * @param {string[]} texts
 */
function row(kind, texts) {
  const cells = texts.map((text) => make(kind, kind === "th" ? { scope: "col" } : {}, text));
  return make("tr", {}, ...cells);
}

/**
 * @param {string[]} names
 * @param {Float64Array} values
 * @returns {string[][]}
 */
export function termRows(names, values) {
  const n = names.length;
  const rows = names.map((name, i) => [name, ...Array.from(values.subarray(i * n, (i + 1) * n), String)]);
  return [["loss_of", ...names], ...rows];
}
