// What the points of each term do to the loss of each, as a table of colours and numbers.

import { diverging } from "./colors.js";
import { format } from "./numbers.js";

/**
 * @param {HTMLElement} parent
 * @param {string[]} names of rows and columns
 * @param {Float64Array} values row by row: losses, then the terms whose points are removed
 * @param {boolean} isDark
 */
export function drawMatrix(parent, names, values, isDark) {
  const n = names.length;
  const table = document.createElement("table");
  table.className = "matrix";
  table.append(row("th", ["loss of ↓ without points of →", ...names]));
  for (let i = 0; i < n; i += 1) {
    const ofRow = values.subarray(i * n, (i + 1) * n);
    // Losses differ by decades: each row has colours of its own.
    const scale = diverging(Math.max(...ofRow.map(Math.abs)), "log", isDark);
    const line = row("td", ["", ...Array.from(ofRow, format)]);
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = names[i];
    line.replaceChild(head, line.children[0]);
    ofRow.forEach((value, j) => {
      const color = 3 * scale.step(value);
      const [r, g, b] = scale.colors.subarray(color, color + 3);
      const cell = /** @type {HTMLElement} */ (line.children[j + 1]);
      cell.style.background = `rgb(${r}, ${g}, ${b})`;
      // Black or white, whichever stands out (luminance of ITU-R BT.601).
      cell.style.color = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000000" : "#ffffff";
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
  const line = document.createElement("tr");
  for (const text of texts) {
    const cell = document.createElement(kind);
    if (kind === "th") cell.setAttribute("scope", "col");
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

/**
 * @param {string[]} names
 * @param {Float64Array} values
 * @returns {string[][]}
 */
export function matrixRows(names, values) {
  const n = names.length;
  const rows = names.map((name, i) => [name, ...Array.from(values.subarray(i * n, (i + 1) * n), String)]);
  return [["loss_of", ...names], ...rows];
}
