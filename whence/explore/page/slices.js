// Which plane of a domain of three or more coordinates is looked at: its axes, and where it is.

import { byId } from "./dom.js";
import { make } from "./elements.js";
import { format } from "./numbers.js";

const STEPS = 200;

/**
 * @param {import("./state.js").State} state
 * @param {() => void} onChange
 */
export function listenToSlices(state, onChange) {
  const parent = byId("slices");
  byId("near-label").hidden = state.coordinates.length < 3;
  if (state.coordinates.length < 3) return;
  const [run] = state.runs;

  function show() {
    const axes = ["across", "up"].map((name) => {
      const list = make("select", { id: `axis-${name}` });
      list.append(...state.coordinates.map((coordinate, k) => new Option(coordinate, String(k))));
      const key = /** @type {"across" | "up"} */ (name);
      list.value = String(state[key]);
      list.addEventListener("change", () => {
        const other = key === "across" ? "up" : "across";
        // What was on the other axis changes places with it.
        if (state[other] === Number(list.value)) state[other] = Number(state[key]);
        state[key] = Number(list.value);
        show();
        // The list that was used is another element now.
        byId(`axis-${name}`).focus();
        onChange();
      });
      return make("label", {}, `${name} `, list);
    });

    const sliders = state.others.map((k) => {
      const said = make("output", {}, format(state.at[k]));
      const slider = make("input", { type: "range", id: `slice-${k}`, min: "0", max: String(STEPS), step: "1" });
      const width = run.high[k] - run.low[k];
      slider.value = String(Math.round(((state.at[k] - run.low[k]) / width) * STEPS));
      slider.addEventListener("input", () => {
        state.at[k] = run.low[k] + (Number(slider.value) / STEPS) * width;
        said.textContent = format(state.at[k]);
        onChange();
      });
      return make("label", {}, `${run.coordinates[k]} `, slider, " ", said);
    });
    parent.replaceChildren(...axes, ...sliders);
  }

  parent.hidden = false;
  show();
}
