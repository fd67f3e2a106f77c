// What one run has that another has not: second minus first, on the maps of both.

import { diverging } from "./colors.js";
import { isDark, make } from "./elements.js";
import { MapView } from "./map.js";
import { quantileOfSizes, sizesInOrder } from "./numbers.js";
import { SMOOTH_CELLS } from "./run_view.js";

/** @typedef {import("./run_view.js").RunView} RunView */
/** @typedef {import("./state.js").State} State */

export class Differences {
  /**
   * @param {RunView[]} views of which the first two are compared
   * @param {{field: HTMLElement, influence: HTMLElement}} parents
   */
  constructor(views, parents) {
    const [first, second] = views;
    this.views = views;
    const named = `${second.run.name} − ${first.run.name}`;
    const box = (/** @type {HTMLElement} */ parent, /** @type {string} */ name, /** @type {string} */ title) => {
      const map = make("div", { class: "map", id: `${name}-map-difference` });
      parent.append(make("div", { class: "one" }, make("h3", {}, title), map));
      return map;
    };
    this.field = new MapView(box(parents.field, "field", named), first.frame(0), `difference of the two solutions: ${named}`);
    this.influence = new MapView(
      box(parents.influence, "influence", `${named}, smoothed`), first.frame(0), `difference of the two maps of influence, smoothed: ${named}`,
    );
  }

  /**
   * @param {boolean} isSolution whether the fields are those of both solutions
   * @param {State} state
   */
  showFields(isSolution, state) {
    const [first, second] = this.views;
    const parent = /** @type {HTMLElement} */ (this.field.canvas.closest(".one"));
    parent.hidden = !isSolution || first.isLine || !haveOneDomain(first, second);
    if (parent.hidden) return;
    const values = second.fieldValues.map((value, i) => value - first.fieldValues[i]);
    this.draw(this.field, values, Math.round(Math.sqrt(values.length)), first.frame(0), 1);
    this.field.target = state.onMap(state.at);
  }

  /** The difference of the fields as a table. */
  fieldRows() {
    return this.views[0].fieldRows(this.field.field?.values);
  }

  /**
   * @param {(Float64Array | null)[]} smooth fields of influence of all runs
   * @param {State} state
   */
  showInfluences(smooth, state) {
    const [first, second] = this.views;
    const parent = /** @type {HTMLElement} */ (this.influence.canvas.closest(".one"));
    const [ofFirst, ofSecond] = smooth;
    parent.hidden = first.isLine || !ofFirst || !ofSecond || !haveOneDomain(first, second);
    if (parent.hidden || !ofFirst || !ofSecond) return;
    const values = ofSecond.map((value, i) => value - ofFirst[i]);
    this.draw(this.influence, values, SMOOTH_CELLS, first.right.frame, state.clip);
    this.influence.target = state.onMap(state.at);
    this.field.target = state.onMap(state.at);
    this.field.draw();
  }

  /**
   * @param {MapView} map
   * @param {Float64Array} values
   * @param {number} resolution
   * @param {import("./layers.js").Frame} frame
   * @param {number} clip
   */
  draw(map, values, resolution, frame, clip) {
    map.frame = frame;
    map.field = { values, resolution };
    map.scale = diverging(quantileOfSizes(sizesInOrder(values), clip), "linear", isDark());
    map.draw();
  }
}

/** Whether fields of two runs are at the same places. */
function haveOneDomain(/** @type {RunView} */ { run }, /** @type {RunView} */ { run: other }) {
  const same = (/** @type {number[]} */ a, /** @type {number[]} */ b) => a.every((value, k) => value === b[k]);
  return same(run.low, other.low) && same(run.high, other.high);
}
