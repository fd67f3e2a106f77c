// A region drawn around points: what removing all of them would do, and a check by training on.

import { byId, input, report } from "./dom.js";
import { newest } from "./newest.js";
import { format } from "./numbers.js";

/** @typedef {import("./run_view.js").RunView} RunView */
/** @typedef {import("./state.js").State} State */

/**
 * @param {RunView} view
 * @param {State} state
 */
export function listenToRegion(view, state) {
  const { right, run, source } = view;
  const { canvas } = right;
  const lasso = input("lasso");
  /** @type {import("./source.js").Members} */
  let members = {};

  const ask = newest(async () => {
    members = view.enclosed();
    const panel = byId("region-panel");
    panel.hidden = false;
    byId("retrained").textContent = "";
    byId("retrain").hidden = true;
    byId("region").textContent = "The region has no points.";
    if (!Object.keys(members).length) return;
    const { size, share, exact, first_order: sum } = await source.region(members, state.of, state.at);
    const carried = `The region's ${size} points carry ${(100 * share).toFixed(1)} % of the total absolute influence.`;
    const effect = exact === null
      ? `Their influences add up to ${format(sum)}; what removing all of them would do needs the run itself (whence explore).`
      : `Removing all of them would change ${state.of} here by ${format(exact)} (exact in the Gauss–Newton model; the sum of their influences is ${format(sum)}).`;
    byId("region").textContent = `${carried} ${effect}`;
    byId("retrain").hidden = !run.can.includes("retrain");
    byId("retrain").onclick = () => void check(exact).catch(report);
  }, report);

  /** Train on without the region, in the background, and put what was measured beside it. */
  async function check(/** @type {number | null} */ predicted) {
    const { of, at } = state;
    byId("retrain").hidden = true;
    byId("retrained").textContent = "Training on without them, from where the network is …";
    const measured = await source.retrained(members, of, at);
    byId("retrained").textContent = `Measured by training on without them: ${of} changes by ${format(measured)}, predicted were ${format(Number(predicted))}.`;
  }

  function clear() {
    right.outline = [];
    right.draw();
    byId("region-panel").hidden = true;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!lasso.checked) return;
    canvas.setPointerCapture(event.pointerId);
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
    if (lasso.checked) void ask();
    else {
      const i = right.nearest(event.offsetX, event.offsetY);
      if (i !== null) view.onPoint(i);
    }
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
  });
  lasso.addEventListener("change", clear);
}
