// What the points of each term do to the loss of each, as a table of colours and numbers.

import { diverging, onTop } from "./colors.js";
import { make } from "./elements.js";
import { format } from "./numbers.js";

/**
 * @param {HTMLElement} parent
 * @param {string[]} names of rows and columns
 * @param {Float64Array} values row by row: losses, then the terms whose points are removed
 * @param {boolean} isDark
 */
export function drawTerms(parent, names, values, isDark) {
  const n = names.length;
  const table = make("table", { class: "matrix" });
  table.append(row("th", ["loss of ↓ without points of →", ...names]));
  for (let i = 0; i < n; i += 1) {
    const ofRow = values.subarray(i * n, (i + 1) * n);
    // Losses differ by decades: each row has colours of its own.
    const scale = diverging(Math.max(...ofRow.map(Math.abs)), "log", isDark);
    const line = row("td", ["", ...Array.from(ofRow, format)]);
    line.replaceChild(make("th", { scope: "row" }, names[i]), line.children[0]);
    ofRow.forEach((value, j) => {
      const color = 3 * scale.step(value);
      const [r, g, b] = scale.colors.subarray(color, color + 3);
      const cell = /** @type {HTMLElement} */ (line.children[j + 1]);
      cell.style.background = `rgb(${r}, ${g}, ${b})`;
      cell.style.color = onTop([r, g, b]);
    });
    table.append(line);
  }
  parent.replaceChildren(table);
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
