// What is chosen, as text in the address, so that a view can be sent.

/** @typedef {{kind: "accept" | "relabel" | "drop", label?: number}} Decision */

/**
 * `label` and `predicted` are groups of test samples, `from` one of training samples; `start` and
 * `first` are where the pages of test samples and of suspects begin.
 * @typedef {{
 *   sample: number, order: string, start: number, label: number | null, predicted: number | null,
 *   from: number | null, reduce: string, by: string, first: number, decisions: Map<number, Decision>,
 * }} State
 */

/** @typedef {import("./sample_api.js").Model} Model */

export const ORDERS = ["number", "loss", "wrong"];
export const REDUCTIONS = ["mean", "sum"];
export const BYS = ["self_influence", "validation", "loss"];

/**
 * A whole number below a bound, or null.
 * @param {string | null} text
 * @param {number} bound
 */
function whole(text, bound) {
  if (!text || !/^\d+$/.test(text)) return null;
  const number = Number(text);
  return number < bound ? number : null;
}

/**
 * Read the part of an address after #; what means nothing is passed over.
 * @param {string} hash
 * @param {Model} model
 * @returns {State}
 */
export function read(hash, model) {
  const asked = new URLSearchParams(hash.replace(/^#/, ""));
  const among = (/** @type {string} */ name, /** @type {string[]} */ words) => {
    const word = asked.get(name) ?? "";
    return words.includes(word) ? word : words[0];
  };
  const group = (/** @type {string} */ name) => whole(asked.get(name), model.groups.length);
  return {
    sample: whole(asked.get("sample"), model.n_test) ?? 0,
    order: among("order", ORDERS),
    start: whole(asked.get("start"), model.n_test) ?? 0,
    label: group("label"),
    predicted: group("predicted"),
    from: group("from"),
    reduce: among("reduce", REDUCTIONS),
    by: among("by", BYS),
    first: whole(asked.get("first"), model.n_training) ?? 0,
    decisions: decisionsOf(asked, model.n_training),
  };
}

/**
 * @param {URLSearchParams} asked
 * @param {number} n
 */
function decisionsOf(asked, n) {
  /** @type {Map<number, Decision>} */
  const decisions = new Map();
  for (const kind of /** @type {const} */ (["accept", "drop"])) {
    for (const text of (asked.get(kind) ?? "").split(",")) {
      const index = whole(text, n);
      if (index !== null) decisions.set(index, { kind });
    }
  }
  for (const text of (asked.get("relabel") ?? "").split(",")) {
    const [place, value] = text.split(":");
    const index = whole(place, n);
    const label = value ? Number(value) : NaN;
    if (index !== null && Number.isFinite(label)) decisions.set(index, { kind: "relabel", label });
  }
  return decisions;
}

/**
 * The part of an address after #: what is as at the start is left out.
 * @param {State} state
 * @returns {string}
 */
export function write(state) {
  const words = new URLSearchParams({ sample: String(state.sample) });
  if (state.order !== ORDERS[0]) words.set("order", state.order);
  if (state.reduce !== REDUCTIONS[0]) words.set("reduce", state.reduce);
  if (state.by !== BYS[0]) words.set("by", state.by);
  for (const name of /** @type {const} */ (["label", "predicted", "from"])) {
    if (state[name] !== null) words.set(name, String(state[name]));
  }
  for (const name of /** @type {const} */ (["start", "first"])) {
    if (state[name]) words.set(name, String(state[name]));
  }
  for (const kind of /** @type {const} */ (["accept", "relabel", "drop"])) {
    const members = [...state.decisions].filter(([, decision]) => decision.kind === kind);
    const texts = members.map(([index, { label }]) => (kind === "relabel" ? `${index}:${label}` : String(index)));
    if (texts.length) words.set(kind, texts.join(","));
  }
  // Commas and colons need no escape after #, and are easier to read.
  return words.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
}
