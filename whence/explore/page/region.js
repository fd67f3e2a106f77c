// A region drawn around points: what removing all of them would do, and a check by training on.

import { byId, input, report } from "./dom.js";
import { newest } from "./newest.js";
import { format } from "./numbers.js";

/** @typedef {import("./run_view.js").RunView} RunView */
/** @typedef {import("./state.js").State} State */
/** @typedef {{members: import("./source.js").Members, of: string, at: number[], predicted: number | null}} Asked */

/**
 * @param {RunView[]} views
 * @param {State} state
 * @returns {() => void} asks again, where the answer or the points that are shown are others
 */
export function listenToRegions(views, state) {
  /** The run on whose map the region is. @type {RunView | null} */
  let chosen = null;
  /** The axes of the map that it was drawn on. */
  let axes = "";
  /** Whether it is of all points that are shown, for which nothing need be drawn. */
  let isAll = false;
  /** How many regions were asked after: what comes late of an earlier one is not shown. */
  let count = 0;
  const lasso = input("lasso");

  const ask = newest(async () => {
    const view = chosen;
    if (!view || !(isAll || view.right.outline.length)) return;
    if (!isAll && axes !== state.slice.axes) {
      // On other axes the line is around other points, or around none.
      clear();
      return;
    }
    count += 1;
    const members = isAll ? view.members(view.shown()) : view.enclosed();
    const { of, at } = { of: state.of, at: [...state.at] };
    byId("region-panel").hidden = false;
    byId("retrained").textContent = "";
    byId("retrain").hidden = true;
    byId("region").textContent = "The region has no points.";
    if (!Object.keys(members).length) return;
    const region = await view.source.region(members, of, at);
    byId("region").textContent = `${views.length > 1 ? `${view.run.name}: ` : ""}${inWords(region, of)}`;
    byId("retrain").hidden = !view.run.can.includes("retrain");
    byId("retrain").onclick = () => void check(view, { members, of, at, predicted: region.exact });
  }, (error) => report(error, "region"));

  /**
   * Train on without the region, in the background, and put what was measured beside it.
   * @param {RunView} view
   * @param {Asked} asked
   */
  async function check({ source }, { members, of, at, predicted }) {
    const number = count;
    const isNew = () => number === count;
    byId("retrain").hidden = true;
    byId("retrained").textContent = "Training on without them, from where the network is …";
    try {
      const measured = await source.retrained(members, of, at);
      report(null, "retrained");
      if (isNew()) byId("retrained").textContent = `Measured by training on without them: ${of} changes by ${format(measured)}, predicted were ${format(Number(predicted))}.`;
    } catch (error) {
      report(error, "retrained");
      if (!isNew()) return;
      byId("retrained").textContent = "";
      byId("retrain").hidden = false;
    }
  }

  function clear() {
    count += 1;
    chosen = null;
    isAll = false;
    for (const { right } of views) {
      right.outline = [];
      right.draw();
    }
    byId("region-panel").hidden = true;
  }

  for (const view of views) {
    listenToPoints(view, lasso, { begin: () => {
      clear();
      chosen = view;
      axes = state.slice.axes;
    }, end: () => void ask() });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  byId("all-shown").addEventListener("click", () => {
    clear();
    [chosen] = views;
    isAll = true;
    void ask();
  });
  lasso.addEventListener("change", () => {
    clear();
    document.body.classList.toggle("drawing", lasso.checked);
  });
  return () => void ask();
}

/**
 * @param {import("./source.js").Region} region
 * @param {string} of
 */
function inWords({ size, share, exact, first_order: sum }, of) {
  const carried = `The region's ${size} points carry ${(100 * share).toFixed(1)} % of the total absolute influence.`;
  const effect = exact === null
    ? `Their influences add up to ${format(sum)}; what removing all of them would do needs the run itself (whence explore).`
    : `Removing all of them would change ${of} here by ${format(exact)} (exact in the Gauss–Newton model; the sum of their influences is ${format(sum)}).`;
  return `${carried} ${effect}`;
}

/**
 * A point is described where the pointer is, and chosen by a click; or a line is drawn around some.
 * @param {RunView} view
 * @param {HTMLInputElement} lasso whether it is
 * @param {{begin: () => void, end: () => void}} line
 */
function listenToPoints(view, lasso, { begin, end }) {
  const { right } = view;
  const { canvas } = right;
  canvas.addEventListener("pointerdown", (event) => {
    if (!lasso.checked) return;
    canvas.setPointerCapture(event.pointerId);
    begin();
    right.outline = [right.toData(event.offsetX, event.offsetY)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (lasso.checked && right.outline.length && event.buttons) {
      right.outline.push(right.toData(event.offsetX, event.offsetY));
      right.draw();
      return;
    }
    const i = right.nearest(event.offsetX, event.offsetY);
    if (i === null) right.hideTip();
    else right.showTip(view.describePoint(i), event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointerleave", () => right.hideTip());
  canvas.addEventListener("pointerup", (event) => {
    if (lasso.checked) {
      end();
      return;
    }
    const i = right.nearest(event.offsetX, event.offsetY);
    if (i !== null) view.onPoint(i);
  });
}
