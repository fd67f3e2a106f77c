// A sample's input to look at: pixels, columns, or a sequence of numbers.

import { make } from "./elements.js";
import { format } from "./numbers.js";

/** @typedef {import("./sample_api.js").InputView} InputView */

const FEW_TOKENS = 24;

/**
 * An image drawn from its numbers, its darkest and lightest being those of the data.
 * @param {InputView} view
 * @param {Float64Array} values channel after channel
 * @param {"small" | "large"} [size]
 * @returns {HTMLCanvasElement}
 */
export function image(view, values, size = "small") {
  const [height, width] = view.sizes[size];
  const canvas = make("canvas", { width, height, "aria-hidden": "true", class: "picture" });
  const bytes = new Uint8ClampedArray(4 * width * height);
  const n = width * height;
  const isColour = view.shape[0] === 3;
  const range = view.high - view.low || 1;
  for (let i = 0; i < n; i += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      const value = values[isColour ? channel * n + i : i];
      bytes[4 * i + channel] = (255 * (value - view.low)) / range;
    }
    bytes[4 * i + 3] = 255;
  }
  canvas.getContext("2d")?.putImageData(new ImageData(bytes, width, height), 0, 0);
  return canvas;
}

/**
 * What heads the columns of inputs in a table.
 * @param {InputView} view
 * @returns {string[]}
 */
export function columns(view) {
  if (view.kind === "image") return ["image"];
  if (view.kind === "tokens") return ["sequence"];
  return view.columns;
}

/**
 * A sample's cells under these.
 * @param {InputView} view
 * @param {Float64Array} values
 * @returns {HTMLElement[]}
 */
export function cells(view, values) {
  if (view.kind === "image") return [make("td", {}, image(view, values))];
  if (view.kind === "tokens") return [make("td", { class: "sequence" }, sequence(values))];
  return view.columns.map((_, k) => make("td", {}, format(values[k])));
}

/** The first numbers of a sequence. */
function sequence(/** @type {Float64Array} */ values) {
  const first = [...values.subarray(0, FEW_TOKENS)].join(" ");
  return values.length > FEW_TOKENS ? `${first} …` : first;
}

/**
 * A sample alone: a large image, or a list of names and numbers.
 * @param {InputView} view
 * @param {Float64Array} values
 * @returns {HTMLElement}
 */
export function alone(view, values) {
  if (view.kind === "image") return image(view, values, "large");
  if (view.kind === "tokens") return make("p", { class: "sequence" }, [...values].join(" "));
  const list = make("dl", { class: "columns" });
  view.columns.forEach((name, k) => list.append(make("div", {}, make("dt", {}, name), make("dd", {}, format(values[k])))));
  return list;
}
