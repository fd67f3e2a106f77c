// How a network came about: its losses and errors, its points round by round, its spectra, and
// what whence diagnose found.

import { drawChart } from "./chart.js";
import { sequential } from "./colors.js";
import { byId, input, select } from "./dom.js";
import { make } from "./elements.js";
import { offerExports } from "./exports.js";
import { MapView } from "./map.js";
import { rendered, tableOf } from "./markdown.js";
import { format } from "./numbers.js";

/** @typedef {import("./run_view.js").RunView} RunView */
/** @typedef {import("./state.js").State} State */
/** @typedef {Record<string, (number | null)[]>} History */

/** Columns of a history by what they are; what none of them takes is not shown. */
const GROUPS = {
  losses: (/** @type {string} */ name) => name === "loss" || name === "validation_loss" || name.startsWith("loss_"),
  errors: (/** @type {string} */ name) => name.startsWith("relative_l2"),
  weights: (/** @type {string} */ name) => name.startsWith("weight_"),
  points: (/** @type {string} */ name) => name === "points" || name.startsWith("points_"),
  seconds: (/** @type {string} */ name) => name === "seconds",
};

/**
 * @param {RunView[]} views
 * @param {State} state
 * @returns {Promise<() => void>} draws it anew, where the slice is another
 */
export async function showTraining(views, state) {
  const panel = byId("training-panel");
  panel.hidden = !views.every(({ run }) => run.can.includes("history"));
  if (panel.hidden) return () => {};
  const histories = await Promise.all(views.map(({ source }) => source.history()));
  panel.hidden = !histories.some((history) => history.iteration?.length > 1);
  if (panel.hidden) return () => {};

  const list = select("history");
  for (const [group, isOf] of Object.entries(GROUPS)) {
    const isThere = histories.some((history) => Object.keys(history).some(isOf));
    if (isThere) list.append(new Option(group, group));
  }
  const last = Math.max(...histories.flatMap((history) => iterations(history)));
  const slider = input("iteration");
  slider.max = String(last);
  slider.value = String(state.iteration ?? last);

  const rounds = await showRounds(views[0], state);
  const spectra = await showSpectra(views[0]);
  function show() {
    const iteration = Number(slider.value);
    byId("iteration-said").textContent = slider.value;
    drawHistory(histories, views, list.value, iteration);
    rounds(iteration);
    spectra(iteration);
  }
  list.addEventListener("change", show);
  slider.addEventListener("input", () => {
    state.iteration = Number(slider.value) === last ? null : Number(slider.value);
    state.write();
    show();
  });
  offerExports(byId("history-exports"), "history", {
    figure: () => byId("history-chart").querySelector("svg"),
    csv: () => historyRows(histories, views),
  });
  show();
  return show;
}

/** The iterations of a history; of a run that has just begun it is empty. */
function iterations(/** @type {History} */ history) {
  return (history.iteration ?? []).map(Number);
}

/**
 * @param {History[]} histories
 * @param {RunView[]} views
 * @param {string} group
 * @param {number} iteration
 */
function drawHistory(histories, views, group, iteration) {
  const isOf = GROUPS[/** @type {keyof typeof GROUPS} */ (group)];
  const names = Object.keys(histories[0]).filter(isOf);
  const series = histories.flatMap((history, k) => Object.keys(history).filter(isOf).map((name) => {
    // The same of a second run is drawn like the first.
    const like = k && names.includes(name) ? { like: names.indexOf(name) } : {};
    const title = views.length > 1 ? `${views[k].run.name}: ${name}` : name;
    return { name: title, x: iterations(history), y: history[name], ...like };
  }));
  const isLog = group !== "points" && group !== "seconds";
  drawChart(byId("history-chart"), series, {
    x: "linear", y: isLog ? "log" : "linear", across: "iteration", label: `${group} over the iterations`, mark: iteration,
  });
}

/**
 * @param {History[]} histories
 * @param {RunView[]} views
 */
function historyRows(histories, views) {
  const names = [...new Set(histories.flatMap(Object.keys))];
  const rows = histories.flatMap((history, k) => iterations(history).map((_, i) => [
    views[k].run.name, ...names.map((name) => String(history[name]?.[i] ?? "")),
  ]));
  return [["run", ...names], ...rows];
}

/**
 * The map of the points at an iteration, coloured by when they came.
 * @param {RunView} view
 * @param {State} state
 * @returns {Promise<(iteration: number) => void>}
 */
async function showRounds(view, state) {
  const { run, source } = view;
  const values = await source.rounds();
  const d = run.coordinates.length;
  const n = values.length / (d + 3);
  byId("rounds-panel").hidden = n === 0 || view.isLine;
  if (n === 0 || view.isLine) return () => {};
  const column = (/** @type {number} */ k) => values.subarray(k * n, (k + 1) * n);
  const [entered, left] = [column(d + 1), column(d + 2)];
  const map = new MapView(byId("rounds-map"), view.frame(0.03), "training points at an iteration, coloured by when they came");
  offerExports(byId("rounds-exports"), "rounds", {
    canvas: map.canvas, svg: () => map.svg(),
    csv: () => [[...run.coordinates, "term", "entered", "left"], ...Array.from(entered, (_, i) => [
      ...run.coordinates.map((__, k) => String(column(k)[i])), run.terms[column(d)[i]], String(entered[i]), String(left[i]),
    ])],
  });

  return (iteration) => {
    const shown = Uint8Array.from(entered, (came, i) => Number(came <= iteration && (left[i] < 0 || left[i] > iteration)));
    const count = shown.reduce((sum, isShown) => sum + isShown, 0);
    const newest = entered.reduce((last, came, i) => (shown[i] ? Math.max(last, came) : last), 0);
    const fresh = entered.reduce((sum, came, i) => sum + Number(shown[i] && came === newest), 0);
    map.frame = view.frame(0.03);
    map.points = { columns: [column(state.across), column(Number(state.up))], values: entered, shown };
    map.scale = sequential(0, Math.max(1, newest));
    map.draw();
    const prefix = state.runs.length > 1 ? `${run.name}: ` : "";
    byId("rounds-caption").textContent = newest > 0
      ? `${prefix}The ${count} training points at iteration ${iteration}, coloured by the iteration at which they came; the newest ${fresh} came at ${newest}.`
      : `${prefix}The ${count} training points at iteration ${iteration}: all of them were there from the start.`;
  };
}

/**
 * The eigenvalues of the tangent kernel at an iteration.
 * @param {RunView} view
 * @returns {Promise<(iteration: number) => void>}
 */
async function showSpectra({ source }) {
  const { iteration: times, ...byTerm } = await source.spectra();
  byId("spectra-panel").hidden = !times;
  if (!times) return () => {};
  let record = 0;
  const series = () => Object.entries(byTerm).map(([name, rows]) => ({
    name, x: rows[record].map((/** @type {number} */ _, /** @type {number} */ k) => k + 1), y: rows[record],
  }));
  offerExports(byId("spectra-exports"), "spectra", {
    figure: () => byId("spectra").querySelector("svg"),
    csv: () => [["term", "number", "eigenvalue"], ...series().flatMap(({ name, y }) => y.map((/** @type {number} */ value, /** @type {number} */ k) => [name, String(k + 1), String(value)]))],
  });
  return (iteration) => {
    record = Math.max(0, times.findLastIndex((/** @type {number} */ time) => time <= iteration));
    drawChart(byId("spectra"), series(), { x: "log", y: "log", across: "eigenvalue number", label: "eigenvalues of the tangent kernel, by term" });
    byId("spectra-caption").textContent = `Eigenvalues of the tangent kernel at iteration ${times[record]}, by term: directions with small ones are learnt last.`;
  };
}

/** What whence diagnose and whence indicators found, where they were run. */
export async function showFindings(/** @type {RunView[]} */ views) {
  const asked = views.filter(({ run }) => run.can.includes("findings"));
  const all = await Promise.all(asked.map(({ source }) => source.findings()));
  byId("findings-panel").hidden = !all.some(({ text, indicators }) => text || indicators.length);
  byId("findings").replaceChildren(...all.flatMap(({ text, indicators }, k) => {
    const parts = [];
    if (text) parts.push(...rendered(text));
    if (indicators.length) parts.push(tableOf(indicators.map((row) => row.map(shortened))));
    const title = views.length > 1 && parts.length ? [make("h3", {}, asked[k].run.name)] : [];
    return [...title, ...parts];
  }));
}

/** A cell for reading: numbers in three digits. */
function shortened(/** @type {string} */ text) {
  return text && Number.isFinite(Number(text)) ? format(Number(text)) : text;
}
