// One run on the page: its two maps, and its words.

import { make } from "./elements.js";
import { isWithin, nearestPlace, smoothed } from "./geometry.js";
import { MapView } from "./map.js";
import { format, sizesInOrder, strongest } from "./numbers.js";

/** @typedef {import("./source.js").Run} Run */
/** @typedef {import("./source.js").Source} Source */
/** @typedef {import("./source.js").TrainingPoints} TrainingPoints */
/** @typedef {import("./state.js").State} State */

const ROOM = 0.03;
const ROWS = 10;
const NEAR = 0.1;
/** Coordinates above which a place is said without their names. */
const MOST_NAMED = 3;
export const SMOOTH_CELLS = 64;

export class RunView {
  /**
   * @param {number} number
   * @param {Run} run
   * @param {Source} source
   * @param {State} state
   * @param {{field: HTMLElement, influence: HTMLElement, words: HTMLElement}} parents
   */
  constructor(number, run, source, state, parents) {
    this.number = number;
    this.run = run;
    this.source = source;
    this.state = state;
    const suffix = number ? `-${number}` : "";
    const box = (/** @type {HTMLElement} */ parent, /** @type {string} */ name) => {
      const map = make("div", { class: "map", id: `${name}-map${suffix}` });
      const title = state.runs.length > 1 ? [make("h3", {}, run.name)] : [];
      parent.append(make("div", { class: "one" }, ...title, map));
      return map;
    };
    this.left = new MapView(box(parents.field, "field"), this.frame(0), "map of the solution; arrow keys move the place that is explained");
    this.right = new MapView(box(parents.influence, "influence"), this.frame(ROOM), "training points, coloured by their influence on the answer");
    this.words = {
      value: make("p", { class: "value", id: `value${suffix}` }),
      quality: make("p", { class: "quality", id: `quality${suffix}` }),
      rows: make("tbody"),
    };
    const heads = ["term", "place", "influence"].map((name) => make("th", { scope: "col" }, name));
    const title = state.runs.length > 1 ? [make("h3", {}, run.name)] : [];
    parents.words.append(
      make("div", { class: "one" }, ...title, this.words.value, this.words.quality, make("h3", {}, "Strongest points"),
        make("table", { class: "strongest", id: `strongest${suffix}` }, make("thead", {}, make("tr", {}, ...heads)), this.words.rows)),
    );
    /** @type {TrainingPoints} */
    this.points = { columns: [], term: new Float64Array(), index: new Float64Array(), loss: new Float64Array(), entered: new Float64Array(), residual: new Float64Array() };
    /** What the influences are of: what is chosen may be a question further. */
    this.answered = { of: state.of, at: state.at };
    /** The places that can be explained, null for any. @type {Float64Array[] | null} */
    this.targets = null;
    /** @type {Float64Array} */
    this.influence = new Float64Array();
    /** @type {Float64Array} */
    this.fieldValues = new Float64Array();
    /** @type {(point: number) => void} */
    this.onPoint = () => {};
  }

  /** The frame of a map of the slice, with a little room around, as points lie on the boundary. */
  frame(/** @type {number} */ room) {
    const { run, state } = this;
    const axes = state.up === null ? [state.across] : [state.across, state.up];
    const low = axes.map((k) => run.low[k] - room * (run.high[k] - run.low[k]));
    const high = axes.map((k) => run.high[k] + room * (run.high[k] - run.low[k]));
    const names = axes.map((k) => run.coordinates[k]);
    return state.up === null ? { low: [...low, -1], high: [...high, 1], names: [...names, ""] } : { low, high, names };
  }

  get isLine() {
    return this.state.up === null;
  }

  /** Whether there is a network: of an attribution there are only its targets. */
  get hasFields() {
    return this.run.can.includes("field");
  }

  get isPointHere() {
    return this.state.point !== null && this.state.pointRun === this.number;
  }

  /** The place that is explained: the chosen one, or the nearest of those that can be. */
  get explained() {
    return this.nearestTo(this.answered.at);
  }

  nearestTo(/** @type {number[]} */ at) {
    const { targets, run } = this;
    if (!targets) return at;
    const row = nearestPlace(targets, at, run);
    return targets.map((column) => column[row]);
  }

  // --- asking ---

  async load() {
    [this.points, this.targets] = await Promise.all([this.source.points(), this.source.targets()]);
  }

  async askInfluence() {
    const { of, at } = this.state;
    this.influence = await this.source.influenceAt(of, at);
    this.answered = { of, at };
  }

  async askField() {
    const { state, source, points, run } = this;
    if (!this.isPointHere) {
      this.fieldValues = await source.field(this.hasFields ? state.field : state.of, state.slice);
      return;
    }
    const point = Number(state.point);
    this.fieldValues = await source.influenceOf(run.terms[points.term[point]], points.index[point], state.of, state.slice);
  }

  async askAnswer() {
    const { of, at } = this.state;
    const { value, quality } = await this.source.answer(of, at);
    const place = this.placeInWords(this.nearestTo(at));
    this.words.value.textContent = value === null ? `${of} at ${place}.` : `${of} at ${place} is ${format(value)}.`;
    this.words.quality.textContent = quality;
  }

  // --- what is shown ---

  /** Which points are shown: those of the chosen term, near the slice if so wanted. */
  shown() {
    const { run, state, points } = this;
    const wanted = run.terms.indexOf(state.term);
    const shown = new Uint8Array(points.term.length).fill(1);
    if (state.term) points.term.forEach((term, i) => { shown[i] = Number(term === wanted); });
    if (!state.near) return shown;
    for (const k of state.others) {
      const reach = NEAR * (run.high[k] - run.low[k]);
      points.columns[k].forEach((value, i) => {
        if (Math.abs(value - state.at[k]) > reach) shown[i] = 0;
      });
    }
    return shown;
  }

  /** The points' columns in the order of the map; on a line their height is their influence. */
  mapColumns() {
    const { state, points } = this;
    return [points.columns[state.across], state.up === null ? this.influence : points.columns[state.up]];
  }

  /** The influences as a field: their sum by area, smoothed. */
  smoothed(/** @type {Uint8Array} */ shown) {
    return smoothed(this.mapColumns(), this.influence, shown, this.frame(ROOM), SMOOTH_CELLS);
  }

  /**
   * Draw the influences.
   * @param {import("./colors.js").Scale} scale
   * @param {Uint8Array} shown
   * @param {Float64Array | null} smooth
   */
  showInfluence(scale, shown, smooth) {
    const { right, state } = this;
    right.scale = scale;
    right.frame = this.frame(ROOM);
    if (this.isLine) {
      right.frame.low[1] = scale.low;
      right.frame.high[1] = scale.high;
      right.frame.names[1] = "influence";
    }
    right.field = smooth ? { values: smooth, resolution: SMOOTH_CELLS } : null;
    right.points = smooth ? null : { columns: this.mapColumns(), values: this.influence, shown };
    right.target = state.onMap(this.explained);
    const point = Number(state.point);
    right.chosen = this.isPointHere ? this.mapColumns().map((column) => column[point]) : null;
    right.drawNow();
  }

  /**
   * Draw the field, or the curve of a line.
   * @param {import("./colors.js").Scale} scale
   * @param {string} name
   */
  showField(scale, name) {
    const { left, fieldValues } = this;
    left.scale = scale;
    left.frame = this.frame(0);
    left.field = null;
    left.curve = null;
    left.points = null;
    if (!this.hasFields) {
      // No field, but the places that were explained.
      left.points = { columns: this.onTargets(), values: fieldValues, shown: new Uint8Array(fieldValues.length).fill(1) };
      left.frame = this.frame(ROOM);
    }
    if (this.isLine) {
      const room = ROOM * (scale.high - scale.low) || 1;
      left.frame.low[1] = scale.low - room;
      left.frame.high[1] = scale.high + room;
      left.frame.names[1] = name;
    }
    if (this.isLine && this.hasFields) left.curve = fieldValues;
    else if (this.hasFields) {
      left.field = { values: fieldValues, resolution: Math.round(Math.sqrt(fieldValues.length)) };
    }
    this.showTarget();
    left.draw();
  }

  /** The targets' columns in the order of the map; on a line their height is their value. */
  onTargets() {
    const { state, fieldValues } = this;
    const targets = /** @type {Float64Array[]} */ (this.targets);
    return [targets[state.across], state.up === null ? fieldValues : targets[state.up]];
  }

  /** Move the cross hair of the left map; on a line it is on the curve. */
  showTarget() {
    const { left, state, fieldValues } = this;
    left.target = state.onMap(this.explained);
    if (this.isLine && this.targets && !this.hasFields) {
      left.target[1] = fieldValues[nearestPlace(this.targets, this.answered.at, this.run)];
    } else if (this.isLine && fieldValues.length) {
      const { low, high } = left.frame;
      const place = (left.target[0] - low[0]) / (high[0] - low[0]);
      left.target[1] = fieldValues[Math.round(place * (fieldValues.length - 1))];
    }
  }

  showStrongest(/** @type {Uint8Array} */ shown) {
    const { points, run } = this;
    const visible = this.influence.map((value, i) => (shown[i] ? value : NaN));
    const rows = strongest(visible, ROWS).map((i) => {
      const choose = make("button", { class: "plain" }, run.terms[points.term[i]]);
      const cells = [choose, this.placeInWords(this.placeOf(i)), format(this.influence[i])];
      const line = make("tr", {}, ...cells.map((cell) => make("td", {}, cell)));
      // The button is for keys, all of the line for a pointer.
      line.addEventListener("click", () => this.onPoint(i));
      return line;
    });
    this.words.rows.replaceChildren(...rows);
  }

  // --- words ---

  placeOf(/** @type {number} */ i) {
    return this.points.columns.map((column) => column[i]);
  }

  placeInWords(/** @type {ArrayLike<number>} */ at) {
    const { coordinates } = this.run;
    if (coordinates.length > MOST_NAMED) return `(${Array.from(at, format).join(", ")})`;
    return coordinates.map((name, k) => `${name} = ${format(at[k])}`).join(", ");
  }

  pointInWords(/** @type {number} */ i) {
    return `the point of ${this.run.terms[this.points.term[i]]} at ${this.placeInWords(this.placeOf(i))}`;
  }

  describePoint(/** @type {number} */ i) {
    const { points, run, influence } = this;
    const size = Math.abs(influence[i]);
    const rank = 1 + influence.reduce((above, value) => above + Number(Math.abs(value) > size), 0);
    const lines = [
      `${run.terms[points.term[i]]} ${points.index[i]}: ${this.placeInWords(this.placeOf(i))}`,
      `influence ${format(influence[i])}, rank ${rank} of ${influence.length}`,
    ];
    if (Number.isFinite(points.residual[i])) lines.push(`residual ${format(points.residual[i])}`);
    if (Number.isFinite(points.loss[i])) lines.push(`part of the loss ${format(points.loss[i])}`);
    if (points.entered[i] >= 0) lines.push(`in training since iteration ${points.entered[i]}`);
    return lines.join("\n");
  }

  /** The shown points within the line that was drawn, by term. */
  enclosed() {
    const { right } = this;
    const [xs, ys] = this.mapColumns();
    return this.members(this.shown().map((isShown, i) => Number(isShown && isWithin(xs[i], ys[i], right.outline))));
  }

  /** The places of some points by term. */
  members(/** @type {Uint8Array} */ chosen) {
    const { points, run } = this;
    /** @type {Record<string, number[]>} */
    const members = {};
    for (let i = 0; i < chosen.length; i += 1) {
      if (chosen[i]) (members[run.terms[points.term[i]]] ??= []).push(points.index[i]);
    }
    return members;
  }

  /** Sizes of the shown influences, the largest first. */
  sizes(/** @type {Uint8Array} */ shown) {
    const isFiltered = this.state.term || this.state.near;
    return sizesInOrder(isFiltered ? this.influence.filter((_, i) => shown[i]) : this.influence);
  }

  // --- tables ---

  influenceRows() {
    const { points, run, influence } = this;
    const rows = Array.from(influence, (value, i) => [
      run.terms[points.term[i]], String(points.index[i]), ...this.placeOf(i).map(String), String(value),
    ]);
    return [["term", "index", ...run.coordinates, "influence"], ...rows];
  }

  /** The field, or another on the same places. */
  fieldRows(fieldValues = this.fieldValues) {
    const { run, state, left, targets } = this;
    if (!this.hasFields && targets) {
      const places = Array.from(fieldValues, (value, row) => [...targets.map((column) => column[row]), value]);
      return [[...run.coordinates, "value"], ...places.map((row) => row.map(String))];
    }
    const axes = state.up === null ? [state.across] : [state.across, state.up];
    const n = state.up === null ? fieldValues.length : Math.round(Math.sqrt(fieldValues.length));
    const { low, high } = left.frame;
    const rows = [[...axes.map((k) => run.coordinates[k]), "value"]];
    fieldValues.forEach((value, i) => {
      const steps = state.up === null ? [i] : [i % n, Math.floor(i / n)];
      const place = steps.map((step, k) => low[k] + (step / (n - 1)) * (high[k] - low[k]));
      if (Number.isFinite(value)) rows.push([...place, value].map(String));
    });
    return rows;
  }
}
