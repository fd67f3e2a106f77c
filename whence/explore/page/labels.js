// Labels, predictions and signs in words.

import { format } from "./numbers.js";

/** @typedef {import("./sample_api.js").Model} Model */
/** @typedef {import("./sample_api.js").Row} Row */

/**
 * What a number of a group is called.
 * @param {Model} model
 * @param {number | undefined} group
 */
export function groupName(model, group) {
  return model.groups[group ?? -1] ?? "none";
}

/**
 * A sample's label or value.
 * @param {Model} model
 * @param {{group: number, label?: number}} row
 */
export function labelName(model, row) {
  if (model.target === "none") return "–";
  if (model.target === "value") return format(row.label ?? NaN);
  return groupName(model, row.group);
}

/**
 * What a model makes of a sample.
 * @param {Model} model
 * @param {Row} row
 */
export function predictionName(model, row) {
  if (row.predicted === undefined) return "–";
  return model.is_classifier ? groupName(model, row.predicted_group) : format(row.predicted);
}

/** Whether a classifier takes a sample for another class than its own. */
export function isWrong(/** @type {Model} */ model, /** @type {Row} */ row) {
  return model.is_classifier && row.predicted_group !== row.group;
}

/** A number with its sign, which says whether a sample helps or harms. */
export function signed(/** @type {number} */ value) {
  return value > 0 ? `+${format(value)}` : format(value);
}

/** What classes or ranges are called in sentences. */
export function groupWord(/** @type {Model} */ model) {
  return model.target === "value" ? "range of values" : "label";
}

/** What heads a column of labels or values. */
export function targetWord(/** @type {Model} */ model) {
  return model.target === "value" ? "value" : "label";
}

/** So many of something. */
export function counted(/** @type {number} */ n, /** @type {string} */ word) {
  return `${n} ${word}${n === 1 ? "" : "s"}`;
}
