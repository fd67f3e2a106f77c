// Test samples to choose from: images side by side, anything else as rows of a table.

import { make, rove } from "./elements.js";
import { isWrong, labelName, predictionName, targetWord } from "./labels.js";
import { format } from "./numbers.js";
import { cells, columns, image } from "./pictures.js";

/** @typedef {import("./sample_api.js").Model} Model */
/** @typedef {import("./sample_api.js").Row} Row */

const SHORT = 6;

export class Gallery {
  /**
   * @param {HTMLElement} parent
   * @param {Model} model
   * @param {(index: number) => void} choose
   */
  constructor(parent, model, choose) {
    this.parent = parent;
    this.model = model;
    this.choose = choose;
    // Names of classes need more room than their numbers.
    parent.classList.toggle("named", model.groups.some((name) => name.length > SHORT / 2));
    const arrive = (/** @type {HTMLElement} */ item) => choose(Number(item.dataset.index));
    rove(parent, "[data-index]", (at, key, n) => this.#moved(at, key, n), arrive);
  }

  /** Where a key leads from an item. */
  #moved(/** @type {number} */ at, /** @type {string} */ key, /** @type {number} */ n) {
    const across = this.#perRow();
    // A table is scrolled sideways by these two.
    if (across === 1 && (key === "ArrowLeft" || key === "ArrowRight")) return null;
    const ways = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across };
    if (key in ways) return at + ways[/** @type {keyof ways} */ (key)];
    return { Home: 0, End: n - 1 }[key] ?? null;
  }

  /** How many items are side by side. */
  #perRow() {
    const items = /** @type {HTMLElement[]} */ ([...this.parent.querySelectorAll("[data-index]")]);
    const below = items.findIndex((item) => item.offsetTop > items[0].offsetTop);
    return below < 0 ? Math.max(1, items.length) : below;
  }

  /**
   * @param {Row[]} rows
   * @param {Float64Array[]} inputs their numbers to show
   */
  show(rows, inputs) {
    const isImage = this.model.input.kind === "image";
    const items = rows.map((row, k) => (isImage ? this.#card(row, inputs[k]) : this.#line(row, inputs[k])));
    for (const item of items) {
      item.addEventListener("click", () => this.choose(Number(item.dataset.index)));
    }
    if (isImage) {
      this.parent.replaceChildren(make("div", { class: "cards" }, ...items));
      return;
    }
    const names = ["nr", targetWord(this.model), ...(this.model.has_predictions ? ["predicted"] : []), "loss", ...columns(this.model.input)];
    const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
    this.parent.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...items)));
  }

  #card(/** @type {Row} */ row, /** @type {Float64Array} */ values) {
    const { model } = this;
    const label = labelName(model, row);
    const isBad = isWrong(model, row);
    const mistake = `✗ ${predictionName(model, row)}`;
    // Short names share a line; of long ones that are cut off the title has all.
    const isShort = label.length + mistake.length <= SHORT;
    let texts = [label];
    if (isBad) texts = isShort ? [`${label} ${mistake}`] : [label, mistake];
    const words = `test sample ${row.index}, label ${label}, predicted ${predictionName(model, row)}, loss ${format(row.loss)}`;
    const card = make("button", { class: isBad ? "card wrong" : "card", "data-index": row.index, title: words, "aria-label": isBad ? `${texts.join(" ")}: ${words}` : words });
    card.append(image(model.input, values), ...texts.map((text) => make("span", {}, text)));
    return card;
  }

  #line(/** @type {Row} */ row, /** @type {Float64Array} */ values) {
    const { model } = this;
    const texts = [String(row.index), labelName(model, row)];
    if (model.has_predictions) texts.push(`${predictionName(model, row)}${isWrong(model, row) ? " ✗" : ""}`);
    texts.push(format(row.loss));
    const line = make("tr", { "data-index": row.index });
    line.append(...texts.map((text) => make("td", {}, text)), ...cells(model.input, values));
    return line;
  }

  /** Mark the chosen one, which is where Tab leads. */
  mark(/** @type {number} */ index) {
    const items = /** @type {HTMLElement[]} */ ([...this.parent.querySelectorAll("[data-index]")]);
    const chosen = items.find((item) => Number(item.dataset.index) === index);
    for (const item of items) {
      item.tabIndex = item === (chosen ?? items[0]) ? 0 : -1;
      item.classList.toggle("chosen", item === chosen);
      // A row of a table is no button, and has no state of one.
      item.setAttribute(item instanceof HTMLButtonElement ? "aria-pressed" : "aria-selected", String(item === chosen));
    }
  }
}
