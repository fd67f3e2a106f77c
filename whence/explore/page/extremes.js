// The most helpful and the most harmful training samples of one test sample.

import { make } from "./elements.js";
import { labelName, signed, targetWord } from "./labels.js";
import { cells, columns, image } from "./pictures.js";

/** @typedef {import("./sample_api.js").Model} Model */
/** @typedef {{index: number, group: number, label: number, influence: number}} Extreme */

const [CELL, PIXELS, TEXT] = [76, 64, 34];

/**
 * The places of the largest or the smallest values of one sign among some.
 * @param {Float64Array} values
 * @param {1 | -1} sign
 * @param {number} k
 * @param {(i: number) => boolean} isWanted
 * @returns {number[]}
 */
export function extremes(values, sign, k, isWanted) {
  const places = [];
  for (let i = 0; i < values.length; i += 1) {
    if (sign * values[i] > 0 && isWanted(i)) places.push(i);
  }
  places.sort((a, b) => sign * (values[b] - values[a]) || a - b);
  return places.slice(0, k);
}

/**
 * @param {HTMLElement} parent
 * @param {Model} model
 * @param {Extreme[]} samples
 * @param {Float64Array[]} inputs
 * @param {(sample: Extreme) => boolean} isAlike whether a sample has the label of the target
 */
export function showExtremes(parent, model, samples, inputs, isAlike) {
  if (!samples.length) {
    parent.replaceChildren(make("p", {}, "None."));
    return;
  }
  if (model.input.kind === "image") {
    const cards = samples.map((sample, k) => {
      const card = make("div", { class: isAlike(sample) ? "card alike" : "card", title: labelName(model, sample), "data-training": sample.index });
      card.append(image(model.input, inputs[k]), make("span", {}, labelName(model, sample)));
      card.append(make("small", {}, `nr ${sample.index}`), make("small", {}, signed(sample.influence)));
      return card;
    });
    parent.replaceChildren(make("div", { class: "cards" }, ...cards));
    return;
  }
  const names = ["influence", targetWord(model), "nr", ...columns(model.input)];
  const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  const rows = samples.map((sample, k) => {
    const texts = [signed(sample.influence), labelName(model, sample), String(sample.index)];
    const row = make("tr", { class: isAlike(sample) ? "alike" : "", "data-training": sample.index });
    row.append(...texts.map((text) => make("td", {}, text)), ...cells(model.input, inputs[k]));
    return row;
  });
  parent.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}

/**
 * A picture of both rows of images, as they are on the page.
 * @param {HTMLElement[]} parents
 * @param {string[]} titles
 * @returns {HTMLCanvasElement}
 */
export function sheet(parents, titles) {
  const most = Math.max(1, ...parents.map((parent) => parent.querySelectorAll(".card").length));
  const canvas = make("canvas", { width: 2 * (most * CELL + 16), height: 2 * parents.length * (CELL + TEXT + 40) });
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.body);
  pen.scale(2, 2);
  pen.fillStyle = style.backgroundColor;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = style.color;
  pen.imageSmoothingEnabled = false;
  parents.forEach((parent, row) => {
    const top = row * (CELL + TEXT + 40);
    pen.textAlign = "left";
    pen.font = "bold 13px system-ui, sans-serif";
    pen.fillText(titles[row], 8, top + 18);
    pen.textAlign = "center";
    pen.font = "11px system-ui, sans-serif";
    parent.querySelectorAll(".card").forEach((card, k) => {
      const picture = /** @type {HTMLCanvasElement} */ (card.querySelector("canvas"));
      pen.drawImage(picture, 8 + k * CELL, top + 28, PIXELS, PIXELS);
      const lines = [...card.querySelectorAll("span, small")].map((part) => part.textContent ?? "");
      lines.forEach((line, place) => pen.fillText(line, 8 + k * CELL + PIXELS / 2, top + 28 + PIXELS + 13 * (place + 1), CELL - 4));
    });
  });
  return canvas;
}
