// The page of a supervised model: what is chosen, what is asked for it, and what is shown.

import { make } from "./elements.js";
import { csv, save, saveCanvas, savePng, saveSvg } from "./exports.js";
import { extremes, sheet, showExtremes } from "./extremes.js";
import { Gallery } from "./gallery.js";
import { binned, drawHistograms } from "./label_histogram.js";
import { counted, groupName, groupWord, labelName, predictionName, signed } from "./labels.js";
import { drawMatrix, shades, signedColours } from "./matrix.js";
import { newest } from "./newest.js";
import { format } from "./numbers.js";
import { alone } from "./pictures.js";
import * as api from "./sample_api.js";
import { read, write } from "./sample_state.js";
import { decisionTable, dropped, Suspects } from "./suspects.js";

const EXTREMES = 8;
const SUSPECTS = 25;

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const select = (/** @type {string} */ id) => /** @type {HTMLSelectElement} */ (byId(id));
const onClick = (/** @type {string} */ id, /** @type {() => void} */ act) => byId(id).addEventListener("click", act);

/** @type {api.Model} */
let model;
/** @type {Awaited<ReturnType<typeof api.training>>} */
let training;
/** @type {import("./sample_state.js").State} */
let state;
/** @type {Gallery} */
let gallery;
/** @type {Suspects} */
let suspects;
/** @type {Float64Array} */
let influence = new Float64Array();
/** @type {api.Row | null} */
let target = null;
/** Whether the first of the test samples is chosen, where the chosen one is not among them. */
let isMoving = false;
/** @type {{confusion: api.Matrix | null, classes: api.Matrix | null}} */
const matrices = { confusion: null, classes: null };

const newestOf = (/** @type {() => Promise<void>} */ ask) => newest(ask, showProblem);

function showProblem(/** @type {unknown} */ error) {
  byId("problem").hidden = error === null;
  if (error === null) return;
  // What fetch throws where nobody answers.
  const isGone = error instanceof TypeError;
  byId("problem").textContent = isGone ? "The server does not answer: is whence explore still running?" : String(error);
}

function writeAddress() {
  history.replaceState(null, "", `#${write(state)}`);
}

const filter = () => ({ label: state.label, predicted: state.predicted });

/** The filter in words, with a space in front, or nothing. */
function filterInWords() {
  const parts = [];
  if (state.label !== null) parts.push(`of ${groupWord(model)} ${groupName(model, state.label)}`);
  if (state.predicted !== null) parts.push(`predicted to be ${groupName(model, state.predicted)}`);
  return parts.length ? ` ${parts.join(" ")}` : "";
}

// --- test samples ---

const askTests = newestOf(async () => {
  const asked = { start: state.start, count: model.page, order: state.order, ...filter() };
  const { total, rows } = await api.tests(asked);
  const inputs = await api.inputs("test", rows.map((row) => row.index));
  gallery.show(rows, inputs);
  const isThere = rows.some((row) => row.index === state.sample);
  if (isMoving && rows.length && !isThere) choose(rows[0].index);
  else gallery.mark(state.sample);
  isMoving = false;
  const kind = state.order === "wrong" ? "misread test sample" : "test sample";
  byId("tests-caption").textContent = `${counted(total, kind)}${filterInWords()}, each with its ${model.target === "value" ? "value and loss" : "label"}${model.is_classifier ? " and, after ✗, the label that it is mistaken for" : ""}: click one, or go with the arrow keys, to see where its loss comes from.`;
  showPages("tests-pages", state.start, model.page, total, (start) => {
    state.start = start;
    writeAddress();
    void askTests();
  });
  document.body.dataset.tests = `${total}:${rows.map((row) => row.index).join(",")}`;
});

/**
 * Buttons to the pages before and after, where there is more than one.
 * @param {string} id
 * @param {number} start
 * @param {number} size
 * @param {number} total
 * @param {(start: number) => void} go
 */
function showPages(id, start, size, total, go) {
  if (total <= size && !start) {
    byId(id).replaceChildren();
    return;
  }
  const button = (/** @type {string} */ text, /** @type {number} */ to) => {
    const made = make("button", { disabled: to < 0 || to >= total }, text);
    made.addEventListener("click", () => go(to));
    return made;
  };
  const last = Math.min(total, start + size);
  // A place that is on no page's beginning comes from an address.
  const before = start > 0 ? Math.max(0, start - size) : -1;
  byId(id).replaceChildren(button("← before", before), make("span", {}, `${total ? start + 1 : 0}–${last} of ${total}`), button("next →", start + size));
}

// --- one of them ---

const askInfluence = newestOf(async () => {
  const { sample } = state;
  influence = await api.influence(sample);
  const [known, [values]] = await Promise.all([api.sample(sample), api.inputs("test", [sample], "large")]);
  target = known;
  byId("sample-input").replaceChildren(alone(model.input, values));
  byId("quality").textContent = known.quality;
  byId("sample-text").textContent = `Test sample ${sample}${targetInWords(known)}. Its loss is ${format(known.loss)}.`;
  showHistogram();
  await showSources();
  document.body.dataset.shown = `${sample}@${state.from ?? ""}`;
});

function targetInWords(/** @type {api.Row} */ row) {
  if (model.target === "none") return "";
  const parts = [`${model.target === "value" ? "has the value" : "is labelled"} ${labelName(model, row)}`];
  if (model.has_predictions) {
    const share = row.probability === undefined ? "" : ` (its own label has probability ${format(row.probability)})`;
    parts.push(`predicted ${predictionName(model, row)}${share}`);
  }
  return ` ${parts.join(", ")}`;
}

/** Show the training samples that its loss comes from. */
async function showSources() {
  const isWanted = (/** @type {number} */ i) => state.from === null || training.group[i] === state.from;
  const isAlike = (/** @type {{group: number}} */ sample) => model.target !== "none" && sample.group === target?.group;
  for (const [id, sign] of /** @type {const} */ ([["helpful", 1], ["harmful", -1]])) {
    const places = extremes(influence, sign, EXTREMES, isWanted);
    const inputs = await api.inputs("training", places);
    const samples = places.map((index) => ({ index, group: training.group[index], label: training.label[index], influence: influence[index] }));
    showExtremes(byId(id), model, samples, inputs, isAlike);
  }
  const alike = model.target === "none" ? "" : `; ${model.input.kind === "image" ? "a thick frame" : "bold"} marks the ${groupWord(model)} of the test sample`;
  byId("sample-caption").textContent = `What removing a training sample would change of this test sample's loss (predicted, in the unit of the loss): + it helps, as the loss would rise; − it harms, as the loss would fall${alike}.`;
}

function showHistogram() {
  const bins = binned(influence, training.group, model.groups.length);
  drawHistograms(byId("histogram"), bins, {
    names: model.groups,
    own: model.target === "none" ? -1 : target?.group ?? -1,
    chosen: state.from,
    label: "histograms of influence by label",
    choose: (group) => chooseFrom(state.from === group ? null : group),
  });
  const more = model.groups.length > 12 ? "; the labels of the largest influence are shown" : "";
  byId("histogram-caption").textContent = `How many training samples of each ${groupWord(model)} have which influence on this loss: orange helps (+), blue harms (−), predicted change of the loss on removal, in its unit; heights are logarithmic, bold is the test sample's own${more}.`;
}

function choose(/** @type {number} */ sample) {
  state.sample = sample;
  writeAddress();
  gallery.mark(sample);
  void askInfluence();
}

function chooseFrom(/** @type {number | null} */ from) {
  state.from = from;
  select("from").value = String(from ?? "");
  writeAddress();
  void askInfluence();
}

// --- matrices ---

const askClasses = newestOf(async () => {
  matrices.classes = await api.classes(state.reduce);
  showClasses();
});

function showClasses() {
  const matrix = matrices.classes;
  if (!matrix) return;
  const sizes = matrix.values.flat().map((value) => Math.abs(value ?? 0));
  const limit = Math.max(0, ...sizes);
  // One power of ten for all, so that the numbers fit.
  const power = limit ? Math.floor(Math.log10(limit)) : 0;
  const colour = signedColours(limit);
  const names = matrix.groups.map((group) => groupName(model, group));
  const said = (/** @type {number} */ row, /** @type {number} */ column, /** @type {number | null} */ value) =>
    `training samples of ${names[column]} on test samples of ${names[row]}: ${value === null ? "none" : signed(value)}`;
  const cells = matrix.values.map((values, row) => values.map((value, column) => ({
    fill: colour(value),
    text: value === null ? "–" : rounded(value / 10 ** power),
    said: said(row, column, value),
  })));
  drawMatrix(byId("classes"), {
    names,
    rows: "test samples",
    columns: "training samples",
    label: "influence of training labels on test labels",
    cells,
    chosen: placeIn(matrix, state.label, state.from),
    choose: (row, column) => {
      setFilter(matrix.groups[row], null);
      chooseFrom(matrix.groups[column]);
    },
  });
  const word = groupWord(model);
  const who = state.reduce === "sum" ? `all training samples of a column's ${word} would change` : `one training sample of a column's ${word} would change, on average,`;
  byId("classes-caption").textContent = `What removing ${who} of the mean loss of a row's test samples (predicted, in ${format(10 ** power)} of the loss's unit): + helps, − harms; colors are logarithmic, and a cell shows these samples above.${someOf(matrix)}`;
}

/** Two decimals, of which a zero has no sign. */
function rounded(/** @type {number} */ value) {
  const text = value.toFixed(2);
  return Number(text) ? text.replace("-", "−") : "0.00";
}

/** Where a pair of groups is in a matrix, or null. */
function placeIn(/** @type {api.Matrix} */ { groups }, /** @type {number | null} */ row, /** @type {number | null} */ column) {
  if (row === null || column === null) return null;
  const [at, to] = [groups.indexOf(row), groups.indexOf(column)];
  return at < 0 || to < 0 ? null : /** @type {[number, number]} */ ([at, to]);
}

function someOf(/** @type {api.Matrix} */ { groups }) {
  const [n, all] = [groups.length, model.groups.length];
  return n < all ? ` The ${n} of ${all} labels of the most test samples.` : "";
}

function showConfusion() {
  const matrix = matrices.confusion;
  if (!matrix) return;
  const shade = shades();
  const names = matrix.groups.map((group) => groupName(model, group));
  const cells = matrix.values.map((values, row) => {
    const total = values.reduce((sum, value) => Number(sum) + Number(value), 0) || 1;
    return values.map((value, column) => ({
      fill: shade(Number(value) / total),
      text: value ? String(value) : "",
      said: `${value} test samples of ${names[row]} taken for ${names[column]}`,
    }));
  });
  drawMatrix(byId("confusion"), {
    names,
    rows: "label",
    columns: "predicted",
    label: "labels and predictions of the test samples",
    cells,
    chosen: placeIn(matrix, state.label, state.predicted),
    choose: (row, column) => {
      const [label, predicted] = [matrix.groups[row], matrix.groups[column]];
      const isSame = state.label === label && state.predicted === predicted;
      if (isSame) setFilter(null, null);
      else setFilter(label, predicted);
    },
  });
  byId("confusion-caption").textContent = `How many test samples of a row's label the model takes for a column's; the fuller its color, the larger its share of the row, and a cell filters the test samples and the suspects.${someOf(matrix)}`;
}

/**
 * Show test samples and suspects of a label and of a prediction alone.
 * @param {number | null} label
 * @param {number | null} predicted
 */
function setFilter(label, predicted) {
  Object.assign(state, { label, predicted, start: 0, first: 0 });
  isMoving = true;
  select("label").value = String(label ?? "");
  select("predicted").value = String(predicted ?? "");
  writeAddress();
  showFilter();
  void askTests();
  void askSuspects();
}

function showFilter() {
  byId("unfilter").hidden = state.label === null && state.predicted === null;
  showConfusion();
  showClasses();
}

// --- suspects ---

const REASONS = {
  self_influence: "how much the loss of a training sample would rise if it were removed: the higher, the more it stands alone (predicted, in the unit of the loss)",
  validation: "how much the mean loss of the test data would fall if a training sample were removed: the higher, the more it harms (predicted, in the unit of the loss)",
  loss: "the loss of a training sample: the higher, the less it is fitted (in its own unit)",
};

const askSuspects = newestOf(async () => {
  const asked = { by: state.by, start: state.first, count: SUSPECTS, ...filter() };
  const { total, rows } = await api.suspects(asked);
  const inputs = await api.inputs("training", rows.map((row) => row.index));
  suspects.show(rows, inputs, state.decisions);
  const relabel = model.target === "none" ? "" : "r relabels, ";
  byId("suspects-caption").textContent = `${counted(total, "training sample")}${filterInWords()}; suspicion is ${REASONS[/** @type {keyof REASONS} */ (state.by)]}. In a row a accepts, ${relabel}d drops, ↑ and ↓ go on.`;
  showPages("suspects-pages", state.first, SUSPECTS, total, (first) => {
    state.first = first;
    writeAddress();
    void askSuspects();
  });
  showDecided();
  document.body.dataset.suspects = `${state.by}:${rows.map((row) => row.index).join(",")}`;
});

function showDecided() {
  const kinds = [...state.decisions.values()].map((decision) => decision.kind);
  const count = (/** @type {string} */ kind) => kinds.filter((other) => other === kind).length;
  byId("decided").textContent = `${count("accept")} accepted, ${count("relabel")} relabelled, ${count("drop")} dropped`;
}

/**
 * @param {number} index
 * @param {import("./sample_state.js").Decision | null} decision
 */
function decide(index, decision) {
  if (decision) state.decisions.set(index, decision);
  else state.decisions.delete(index);
  writeAddress();
  showDecided();
}

// --- exports ---

/**
 * All rows of a question that is answered a page at a time.
 * @param {(start: number) => Promise<api.Page>} ask
 */
async function all(ask) {
  /** @type {api.Row[]} */
  const rows = [];
  for (;;) {
    const page = await ask(rows.length);
    rows.push(...page.rows);
    if (!page.rows.length || rows.length >= page.total) return rows;
  }
}

/** Rows as a table with the columns that they have. */
function tableOf(/** @type {api.Row[]} */ rows) {
  const names = Object.keys(rows[0] ?? {}).filter((name) => !name.endsWith("group"));
  const values = rows.map((row) => names.map((name) => row[/** @type {keyof api.Row} */ (name)]));
  return csv([names, ...values]);
}

function matrixTable(/** @type {api.Matrix | null} */ matrix, /** @type {string} */ corner) {
  if (!matrix) return "";
  const names = matrix.groups.map((group) => groupName(model, group));
  return csv([[corner, ...names], ...matrix.values.map((values, k) => [names[k], ...values])]);
}

function influenceTable() {
  const rows = [...influence].map((value, i) => [i, Number.isNaN(training.label[i]) ? "" : training.label[i], value]);
  return csv([["index", "label", "influence"], ...rows]);
}

function histogramTable() {
  const { sums, counts } = binned(influence, training.group, model.groups.length);
  const rows = model.groups.map((name, k) => [name, counts[k].reduce((sum, count) => sum + count, 0), sums[k]]);
  return csv([[model.target, "samples", "sum"], ...rows]);
}

/** Do what may fail, and say so where it does. */
const careful = (/** @type {() => Promise<void>} */ act) => () => void act().catch(showProblem);

function listenToExports() {
  onClick("tests-csv", careful(async () => {
    const ask = (/** @type {number} */ start) => api.tests({ start, count: model.page, order: state.order, ...filter() });
    save(tableOf(await all(ask)), "test_samples.csv");
  }));
  onClick("suspects-csv", careful(async () => {
    const ask = (/** @type {number} */ start) => api.suspects({ by: state.by, start, count: model.page, ...filter() });
    save(tableOf(await all(ask)), "suspects.csv");
  }));
  onClick("sample-csv", () => save(influenceTable(), `influence_on_${target?.index}.csv`));
  onClick("sample-png", () => saveCanvas(sheet([byId("helpful"), byId("harmful")], ["Most helpful", "Most harmful"]), `influence_on_${target?.index}.png`));
  onClick("histogram-csv", () => save(histogramTable(), "influence_by_label.csv"));
  onClick("classes-csv", () => save(matrixTable(matrices.classes, "test / training"), "labels_on_labels.csv"));
  onClick("confusion-csv", () => save(matrixTable(matrices.confusion, "label / predicted"), "confusion.csv"));
  onClick("decisions-csv", () => save(csv(decisionTable(model, state.decisions, training)), "decisions.csv"));
  onClick("dropped-json", () => save(`${JSON.stringify(dropped(state.decisions))}\n`, "dropped.json", "application/json"));
  for (const [id, name] of [["histogram", "influence_by_label"], ["classes", "labels_on_labels"], ["confusion", "confusion"]]) {
    const figure = () => /** @type {SVGElement | null} */ (byId(id).querySelector("svg"));
    onClick(`${id}-svg`, () => saveSvg(figure(), `${name}.svg`));
    onClick(`${id}-png`, careful(() => savePng(figure(), `${name}.png`)));
  }
}

// --- the start ---

/** What there is none of for this model is not on the page. */
function removeWhatIsNone() {
  const removed = [];
  if (model.target === "none") removed.push("[data-labels]");
  if (!model.is_classifier) removed.push("[data-classifier]", "#order [value=wrong]");
  if (!model.has_predictions) removed.push("[data-predictions]");
  for (const selector of removed) {
    // Their places are asked for by name: hidden, they are still there.
    for (const element of document.querySelectorAll(selector)) /** @type {HTMLElement} */ (element).hidden = true;
  }
  // Beside the matrix of labels there is the confusion matrix, or this one.
  byId("histogram").closest("section")?.classList.toggle("wide", model.is_classifier);
  byId("sample").classList.toggle("stacked", model.input.kind !== "image");
  byId("sample-png").hidden = model.input.kind !== "image";
  if (model.target === "value") {
    byId("label-word").textContent = "value";
    byId("histogram-heading").textContent = "Influence by range of values";
    byId("classes-heading").textContent = "What values do to each other";
  }
}

function listenToControls() {
  for (const id of ["label", "predicted", "from"]) {
    model.groups.forEach((name, group) => select(id).append(new Option(name, String(group))));
  }
  const values = { order: state.order, reduce: state.reduce, by: state.by, label: state.label, predicted: state.predicted, from: state.from };
  for (const [id, value] of Object.entries(values)) select(id).value = String(value ?? "");

  const group = (/** @type {string} */ id) => (select(id).value === "" ? null : Number(select(id).value));
  select("order").addEventListener("change", () => {
    Object.assign(state, { order: select("order").value, start: 0 });
    writeAddress();
    void askTests();
  });
  for (const id of ["label", "predicted"]) {
    select(id).addEventListener("change", () => setFilter(group("label"), group("predicted")));
  }
  select("from").addEventListener("change", () => {
    chooseFrom(group("from"));
    showClasses();
  });
  select("reduce").addEventListener("change", () => {
    state.reduce = select("reduce").value;
    writeAddress();
    void askClasses();
  });
  select("by").addEventListener("change", () => {
    Object.assign(state, { by: select("by").value, first: 0 });
    writeAddress();
    void askSuspects();
  });
  onClick("unfilter", () => setFilter(null, null));
}

/** Draw again what is drawn for the size and the colours of the page. */
function listenToLooks() {
  const again = () => {
    showHistogram();
    showClasses();
    showConfusion();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = document.body.clientWidth;
  window.addEventListener("resize", () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    again();
  });
}

async function start() {
  model = await api.model();
  training = await api.training(model.n_training);
  state = read(location.hash, model);
  document.title = `${model.title} – whence`;
  byId("title").textContent = model.title;
  const { accuracy, loss } = model.summary;
  const parts = [`mean test loss ${format(loss)}`, `${model.n_test} test samples`, `${model.n_training} training samples`];
  if (accuracy !== undefined) parts.unshift(`test accuracy ${(100 * accuracy).toFixed(1)} %`);
  byId("summary").textContent = parts.join(", ");

  gallery = new Gallery(byId("tests"), model, choose);
  suspects = new Suspects(byId("suspects"), model, decide);
  removeWhatIsNone();
  listenToControls();
  listenToExports();
  listenToLooks();
  writeAddress();
  // Questions are answered one after the other, and some take long the first time.
  byId("sample-text").textContent = "Influences are computed; the first ones take longest.";
  byId("suspects-caption").textContent = "Training samples are ranked after that.";
  await askTests();
  await askInfluence();
  if (model.is_classifier) matrices.confusion = await api.confusion();
  showFilter();
  if (model.target !== "none") await askClasses();
  await askSuspects();
  document.body.dataset.ready = "yes";
}

start().catch(showProblem);
