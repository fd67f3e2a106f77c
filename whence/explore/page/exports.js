// Files: tables as CSV, figures as SVG and PNG.

import { draw, inks, make } from "./elements.js";

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

/** What the page's styles say of a figure's parts, which a file of its own does not know. */
const LOOKS = ["fill", "stroke", "stroke-width", "font-size", "font-family", "text-anchor"];

/** A figure as the text of a file that stands alone. */
function textOf(/** @type {SVGElement} */ figure) {
  const copy = /** @type {SVGElement} */ (figure.cloneNode(true));
  const { width, height } = figure.getBoundingClientRect();
  copy.setAttribute("width", String(width));
  copy.setAttribute("height", String(height));
  const copies = copy.querySelectorAll("*");
  figure.querySelectorAll("*").forEach((part, k) => {
    const style = getComputedStyle(part);
    for (const look of LOOKS) copies[k].setAttribute(look, style.getPropertyValue(look));
  });
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
  if (figure) await savePixels(textOf(figure), name);
}

/** Save what the text of an SVG file shows as pixels, twice as fine as the page. */
async function savePixels(/** @type {string} */ text, /** @type {string} */ name) {
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
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

/**
 * What a panel saves: the pixels of a canvas, a figure, or the text of an SVG file, and a table.
 * @typedef {{
 *   canvas?: HTMLCanvasElement, figure?: () => SVGElement | null, svg?: () => string,
 *   csv?: () => (string | number)[][],
 * }} Saved
 */

/**
 * Buttons that save a panel.
 * @param {HTMLElement} parent
 * @param {string} name of the files
 * @param {Saved} saved
 */
export function offerExports(parent, name, { canvas, figure, svg, csv: table }) {
  const offer = (/** @type {string} */ kind, /** @type {() => unknown} */ action) => {
    const title = kind.toUpperCase();
    const button = make("button", { [`data-${kind}`]: name, "aria-label": `save ${name} as ${title}` }, title);
    button.addEventListener("click", () => void action());
    parent.append(button);
  };
  if (canvas) offer("png", () => saveCanvas(canvas, `${name}.png`));
  if (figure) offer("png", () => savePng(figure(), `${name}.png`));
  if (svg && !canvas) offer("png", () => savePixels(svg(), `${name}.png`));
  if (figure) offer("svg", () => saveSvg(figure(), `${name}.svg`));
  if (svg) offer("svg", () => save(svg(), `${name}.svg`, "image/svg+xml"));
  if (table) offer("csv", () => save(csv(table()), `${name}.csv`));
}
