// Files: tables as CSV, figures as SVG and PNG.

import { draw, inks } from "./elements.js";

const SHARPNESS = 2;

/**
 * @param {string | Blob} content
 * @param {string} name
 * @param {string} [type]
 */
export function save(content, name, type = "text/csv") {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/**
 * Rows as CSV; a text with a comma, a quote or a new line is put into quotes.
 * @param {(string | number | null | undefined)[][]} rows
 * @returns {string}
 */
export function csv(rows) {
  const field = (/** @type {string | number | null | undefined} */ value) => {
    const text = String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(field).join(",")}\n`).join("");
}

/** A figure as the text of a file that stands alone. */
function textOf(/** @type {SVGElement} */ figure) {
  const copy = /** @type {SVGElement} */ (figure.cloneNode(true));
  // What is drawn for a dark page cannot be read on white paper.
  copy.prepend(draw("rect", { width: "100%", height: "100%", fill: inks().paper }));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  return new XMLSerializer().serializeToString(copy);
}

/**
 * @param {SVGElement | null} figure
 * @param {string} name
 */
export function saveSvg(figure, name) {
  if (figure) save(textOf(figure), name, "image/svg+xml");
}

/**
 * @param {SVGElement | null} figure
 * @param {string} name
 */
export async function savePng(figure, name) {
  if (!figure) return;
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([textOf(figure)], { type: "image/svg+xml" }));
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = SHARPNESS * image.width;
  canvas.height = SHARPNESS * image.height;
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  saveCanvas(canvas, name);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} name
 */
export function saveCanvas(canvas, name) {
  canvas.toBlob((blob) => blob && save(blob, name));
}
