// Suspicious training samples, and what is decided about each.

import { make, rove } from "./elements.js";
import { groupName, isWrong, labelName, predictionName, targetWord } from "./labels.js";
import { format } from "./numbers.js";
import { cells, columns } from "./pictures.js";

/** @typedef {import("./sample_api.js").Model} Model */
/** @typedef {import("./sample_api.js").Row} Row */
/** @typedef {import("./sample_state.js").Decision} Decision */

const KINDS = /** @type {const} */ (["accept", "relabel", "drop"]);
const KEYS = { a: "accept", r: "relabel", d: "drop" };

export class Suspects {
  /**
   * @param {HTMLElement} parent
   * @param {Model} model
   * @param {(index: number, decision: Decision | null) => void} decide
   */
  constructor(parent, model, decide) {
    this.parent = parent;
    this.model = model;
    this.decide = decide;
    /** @type {Map<number, Row>} */
    this.rows = new Map();
    rove(parent, "tbody tr", (at, key) => ({ ArrowUp: at - 1, ArrowDown: at + 1 })[key] ?? null);
    parent.addEventListener("keydown", (event) => {
      const line = /** @type {HTMLElement} */ (event.target);
      const kind = KEYS[/** @type {keyof KEYS} */ (event.key)];
      // Letters typed into a field of the row are text.
      if (line.tagName !== "TR" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (kind) this.#toggle(line, /** @type {Decision["kind"]} */ (kind));
    });
  }

  /**
   * @param {Row[]} rows
   * @param {Float64Array[]} inputs
   * @param {Map<number, Decision>} decisions
   */
  show(rows, inputs, decisions) {
    const { model } = this;
    this.rows = new Map(rows.map((row) => [row.index, row]));
    const isImage = model.input.kind === "image";
    const names = ["nr", ...(isImage ? ["image"] : []), targetWord(model)];
    if (model.has_predictions) names.push("predicted");
    names.push("decision", "suspicion", "loss");
    if (model.is_classifier) names.push("probability");
    names.push(...(isImage ? [] : columns(model.input)));
    const head = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
    const lines = rows.map((row, k) => this.#line(row, inputs[k], decisions.get(row.index)));
    if (lines.length) lines[0].tabIndex = 0;
    this.parent.replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
  }

  /**
   * @param {Row} row
   * @param {Float64Array} values
   * @param {Decision | undefined} decision
   */
  #line(row, values, decision) {
    const { model } = this;
    const line = make("tr", { "data-suspect": row.index, tabindex: -1 });
    const looks = cells(model.input, values);
    const cell = (/** @type {string} */ text) => make("td", { title: text }, text);
    const numbers = [row.suspicion ?? NaN, row.loss];
    if (model.is_classifier) numbers.push(row.probability ?? NaN);

    line.append(cell(String(row.index)));
    if (model.input.kind === "image") line.append(...looks);
    line.append(cell(labelName(model, row)));
    if (model.has_predictions) line.append(cell(`${predictionName(model, row)}${isWrong(model, row) ? " ✗" : ""}`));
    line.append(make("td", { class: "decision" }), ...numbers.map((number) => cell(format(number))));
    if (model.input.kind !== "image") line.append(...looks);
    this.#showDecision(line, row, decision);
    return line;
  }

  /**
   * @param {HTMLElement} line
   * @param {Row} row
   * @param {Decision | undefined} decision
   */
  #showDecision(line, row, decision) {
    const kinds = KINDS.filter((kind) => kind !== "relabel" || this.model.target !== "none");
    const buttons = kinds.map((kind) => {
      const button = make("button", { "data-decision": kind, "aria-pressed": String(decision?.kind === kind) }, kind);
      button.addEventListener("click", () => this.#toggle(line, kind));
      return button;
    });
    const place = /** @type {HTMLElement} */ (line.querySelector(".decision"));
    place.replaceChildren(make("div", { class: "choices" }, ...buttons));
    if (decision?.kind === "relabel") place.firstElementChild?.append(this.#newLabel(row, decision));
    line.className = decision?.kind ?? "";
  }

  /** The field of a new label or value. */
  #newLabel(/** @type {Row} */ row, /** @type {Decision} */ decision) {
    const { model, decide } = this;
    const change = (/** @type {number} */ label) => decide(row.index, { kind: "relabel", label });
    const words = `new ${model.target} of training sample ${row.index}`;
    if (model.target === "value") {
      const field = make("input", { type: "number", step: "any", value: decision.label ?? 0, "aria-label": words });
      field.addEventListener("change", () => field.value !== "" && change(Number(field.value)));
      return field;
    }
    const list = make("select", { "aria-label": words });
    (model.classes ?? []).forEach((label, group) => list.append(new Option(groupName(model, group), String(label))));
    list.value = String(decision.label);
    list.addEventListener("change", () => change(Number(list.value)));
    return list;
  }

  /**
   * Decide about a row; the same decision once more takes it back.
   * @param {HTMLElement} line
   * @param {Decision["kind"]} kind
   */
  #toggle(line, kind) {
    if (kind === "relabel" && this.model.target === "none") return;
    const row = /** @type {Row} */ (this.rows.get(Number(line.dataset.suspect)));
    const isSame = line.className === kind;
    /** @type {Decision | null} */
    let decision = isSame ? null : { kind };
    // What the model predicts is the first guess at what the label should have been.
    if (decision && kind === "relabel") decision = { kind, label: row.predicted ?? row.label };
    const hadFocus = line.contains(document.activeElement) && document.activeElement !== line;
    this.#showDecision(line, row, decision ?? undefined);
    if (hadFocus) /** @type {HTMLElement} */ (line.querySelector(`[data-decision=${kind}]`))?.focus();
    this.decide(row.index, decision);
  }
}

/**
 * Decisions as a table: its labels are numbers as in the data, with names beside those of classes.
 * @param {Model} model
 * @param {Map<number, Decision>} decisions
 * @param {{group: ArrayLike<number>, label: ArrayLike<number>}} training
 * @returns {(string | number)[][]}
 */
export function decisionTable(model, decisions, training) {
  const isClass = model.target === "label";
  const head = ["index", "decision", "label", "new_label", ...(isClass ? ["label_name", "new_label_name"] : [])];
  const order = [...decisions.keys()].sort((a, b) => a - b);
  const rows = order.map((index) => {
    const { kind, label } = /** @type {Decision} */ (decisions.get(index));
    const old = training.label[index];
    const row = [index, kind, Number.isFinite(old) ? old : "", label ?? ""];
    if (!isClass) return row;
    const renamed = label === undefined ? "" : groupName(model, (model.classes ?? []).indexOf(label));
    return [...row, groupName(model, training.group[index]), renamed];
  });
  return [head, ...rows];
}

/**
 * The indices of the samples to leave out, in order.
 * @param {Map<number, Decision>} decisions
 * @returns {number[]}
 */
export function dropped(decisions) {
  const members = [...decisions].filter(([, { kind }]) => kind === "drop");
  return members.map(([index]) => index).sort((a, b) => a - b);
}
