// Questions about a supervised model to the server that the page came from.

/**
 * What the page knows before any question.
 * @typedef {{
 *   title: string, n_training: number, n_test: number, target: "label" | "value" | "none",
 *   is_classifier: boolean, has_predictions: boolean, groups: string[], classes: number[] | null,
 *   input: InputView, page: number, summary: {loss: number, accuracy?: number},
 * }} Model
 */

/**
 * How inputs are shown: `shape` is that of one sample, of an image (channels, height, width).
 * @typedef {{
 *   kind: "image" | "row" | "tokens" | "other", shape: number[], columns: string[],
 *   sizes: Record<string, number[]>, low: number, high: number,
 * }} InputView
 */

/**
 * A sample: `group` is its class or range of values by number, −1 for none of them.
 * @typedef {{
 *   index: number, group: number, label?: number, predicted?: number, predicted_group?: number,
 *   probability?: number, loss: number, rank?: number, suspicion?: number,
 * }} Row
 */

/** @typedef {{total: number, rows: Row[], quality?: string}} Page */
/** @typedef {{groups: number[], values: (number | null)[][]}} Matrix */
/** @typedef {{label: number | null, predicted: number | null}} Filter */

/**
 * @param {string} name
 * @param {Record<string, string | number | null>} [asked] null is left out
 * @returns {Promise<Response>}
 */
async function get(name, asked = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(asked)) {
    if (value !== null) query.set(key, String(value));
  }
  const response = await fetch(`api/${name}?${query}`);
  if (response.ok) return response;
  const { error } = await response.json();
  throw new Error(error);
}

/** @returns {Promise<Model>} */
export async function model() {
  return (await get("model")).json();
}

/**
 * Group and label or value of every training sample.
 * @param {number} n
 */
export async function training(n) {
  const values = new Float64Array(await (await get("training")).arrayBuffer());
  return { group: values.subarray(0, n), label: values.subarray(n) };
}

/**
 * @param {{start: number, count: number, order: string} & Filter} asked
 * @returns {Promise<Page>}
 */
export async function tests(asked) {
  return (await get("tests", asked)).json();
}

/**
 * @param {{by: string, start: number, count: number} & Filter} asked
 * @returns {Promise<Page>}
 */
export async function suspects(asked) {
  return (await get("suspects", asked)).json();
}

/**
 * Numbers to show of some samples.
 * @param {"test" | "training"} of
 * @param {number[]} indices
 * @param {"small" | "large"} [size]
 * @returns {Promise<Float64Array[]>}
 */
export async function inputs(of, indices, size = "small") {
  if (!indices.length) return [];
  const response = await get("inputs", { of, indices: indices.join(","), size });
  const values = new Float64Array(await response.arrayBuffer());
  const each = values.length / indices.length;
  return indices.map((_, k) => values.subarray(k * each, (k + 1) * each));
}

/** Influence of every training sample on the loss of one test sample. */
export async function influence(/** @type {number} */ sample) {
  return new Float64Array(await (await get("influence", { sample })).arrayBuffer());
}

/**
 * @param {number} sample
 * @returns {Promise<Row & {quality: string}>}
 */
export async function sample(sample) {
  return (await get("sample", { sample })).json();
}

/** @returns {Promise<Matrix>} */
export async function confusion() {
  return (await get("confusion")).json();
}

/**
 * @param {string} reduce
 * @returns {Promise<Matrix>}
 */
export async function classes(reduce) {
  return (await get("classes", { reduce })).json();
}
