// The page of a run, or of two: what is chosen, what is asked for it, and what is shown.

import { afterPaint } from "./after_paint.js";
import { diverging, sequential } from "./colors.js";
import { Differences } from "./differences.js";
import { byId, fill, input, report, select } from "./dom.js";
import { isDark, make } from "./elements.js";
import { offerExports } from "./exports.js";
import { newest } from "./newest.js";
import { cumulativeShares, format, quantileOfSizes, sizesInOrder } from "./numbers.js";
import { listenToRegions } from "./region.js";
import { reportSources } from "./report_source.js";
import { RunView } from "./run_view.js";
import { drawShares } from "./shares.js";
import { listenToSlices } from "./slices.js";
import { serverRuns, serverSource } from "./source.js";
import { State } from "./state.js";
import { drawTerms, termRows, termSvg } from "./term_matrix.js";
import { showFindings, showTraining } from "./training.js";

const KEY_STEPS = 60;
const CARRIED = 0.1;

/** @type {State} */
let state;
/** @type {RunView[]} */
let views;
/** @type {Differences | null} */
let differences = null;
/** @type {{name: string, shares: Float64Array}[]} */
let shares = [];
/** What is drawn anew where the answer, or the slice, is another. */
let askRegion = () => {};
let drawTraining = () => {};

// --- asking ---

const askInfluence = newest(async () => {
  await Promise.all(views.map((view) => view.askInfluence()));
  drawInfluences();
  document.body.dataset.drawn = answered();
  describeLater();
}, (error) => report(error, "influence"));

const askField = newest(async () => {
  await Promise.all(views.map((view) => view.askField()));
  showFields();
}, (error) => report(error, "field"));

const askAnswer = newest(async () => {
  await Promise.all(views.map((view) => view.askAnswer()));
}, (error) => report(error, "answer"));

// --- showing ---

/** Draw the fields of all runs on one scale. */
function showFields() {
  const point = state.point === null ? null : views[state.pointRun];
  const isSigned = point !== null || /error\(/.test(state.field);
  const shownViews = point ? [point] : views;
  if (isSigned) {
    const limits = shownViews.map((view) => quantileOfSizes(sizesInOrder(view.fieldValues), point ? state.clip : 1));
    const kind = state.scale === "log" && point ? "log" : "linear";
    const scale = diverging(Math.max(...limits), kind, isDark());
    for (const view of shownViews) view.showField(scale, point ? "influence" : state.field);
  }
  const others = isSigned ? views.filter((view) => !shownViews.includes(view)) : views;
  if (others.length) {
    const ranges = others.map((view) => rangeOf(view.fieldValues));
    const scale = sequential(Math.min(...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high)));
    for (const view of others) view.showField(scale, state.field);
  }
  differences?.showFields(point === null, state);

  let text = `${state.field} of the network. Click or drag to choose where it is explained; arrow keys move the place.`;
  if (point) {
    text = `What removing ${point.pointInWords(Number(state.point))} from training would change of ${state.of}, everywhere (predicted; same unit as ${state.of}).`;
  } else if (!views[0].run.can.includes("field")) {
    text = `The places that were explained, coloured by the total absolute influence on ${state.of} there. Click one to see where it comes from.`;
  }
  byId("field-caption").textContent = text;
  byId("whole").hidden = point === null;
}

function rangeOf(/** @type {Float64Array} */ values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

/** What the influences that are shown are of. */
function answered() {
  const { of, at } = views[0].answered;
  return `${of}@${at.join(",")}`;
}

/** Draw the influences of all runs, and say what they are. */
function showInfluences() {
  drawInfluences();
  describeInfluences();
}

/** Draw the influences of all runs on one scale. */
function drawInfluences() {
  const isSmooth = state.view === "smooth";
  const shown = views.map((view) => view.shown());
  const smooth = views.map((view, k) => (isSmooth || differences ? view.smoothed(shown[k]) : null));
  const sizes = views.map((view, k) => view.sizes(shown[k]));
  const colored = views.map((_, k) => (isSmooth ? sizesInOrder(/** @type {Float64Array} */ (smooth[k])) : sizes[k]));
  const limit = Math.max(...colored.map((ofRun) => quantileOfSizes(ofRun, state.clip)));
  const scale = diverging(limit, /** @type {"linear" | "log"} */ (state.scale), isDark());
  views.forEach((view, k) => {
    view.showInfluence(scale, shown[k], isSmooth ? smooth[k] : null);
    view.showTarget();
    view.left.draw();
  });
  differences?.showInfluences(smooth, state);
}

/** Say what is drawn: captions, tables and shares. */
function describeInfluences() {
  const unit = state.view === "smooth" ? "smoothed sum by area" : `same unit as ${views[0].answered.of}`;
  const { of } = views[0].answered;
  const place = views[0].placeInWords(views[0].explained);
  byId("influence-caption").textContent = `What removing each training point would change of ${of} at ${place}: orange raises it, blue lowers it (predicted; ${unit}). Click a point to see its influence everywhere.`;

  const shown = views.map((view) => view.shown());
  views.forEach((view, k) => view.showStrongest(shown[k]));
  shares = views.map((view, k) => ({ name: view.run.name, shares: cumulativeShares(view.sizes(shown[k])) }));
  drawShares(byId("share"), shares);
  byId("share-caption").textContent = shares.map(shareInWords).join(" ");
  document.body.dataset.shown = answered();
}

const describeLater = afterPaint(describeInfluences);

function shareInWords(/** @type {{name: string, shares: Float64Array}} */ { name, shares: ofRun }) {
  const n = ofRun.length;
  if (!n) return "No points are shown.";
  const k = Math.max(1, Math.round(CARRIED * n));
  const prefix = views.length > 1 ? `${name}: ` : "";
  const ofWhat = state.term || state.near ? "of the points that are shown" : "on this answer";
  return `${prefix}The ${k} strongest of ${n} points (${Math.round((100 * k) / n)} %) carry ${Math.round(100 * ofRun[k - 1])} % of the total absolute influence ${ofWhat}.`;
}

// --- choosing ---

/**
 * @param {number[]} at
 * @param {boolean} isLast whether this is where a drag ends
 */
function chooseTarget(at, isLast) {
  state.at = at;
  // Asked first: to change the address takes the browser a while.
  void askInfluence();
  state.write();
  if (!isLast) return;
  void askAnswer();
  askRegion();
}

/**
 * @param {number | null} point
 * @param {number} run
 */
function choosePoint(point, run = 0) {
  state.point = point;
  state.pointRun = run;
  state.write();
  showInfluences();
  void askField();
}

function listenToField(/** @type {RunView} */ view) {
  const { canvas } = view.left;
  const place = (/** @type {PointerEvent} */ event) => state.ofMap(view.left.toData(event.offsetX, event.offsetY));
  let isDown = false;
  canvas.addEventListener("pointerdown", (event) => {
    isDown = true;
    canvas.setPointerCapture(event.pointerId);
    chooseTarget(place(event), false);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (isDown) chooseTarget(place(event), false);
  });
  canvas.addEventListener("pointerup", (event) => {
    isDown = false;
    chooseTarget(place(event), true);
  });
  canvas.addEventListener("pointercancel", () => {
    isDown = false;
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const { low, high } = view.left.frame;
    const moved = state.onMap(state.at).map((value, k) => {
      const step = value + (way[k] * (high[k] - low[k])) / KEY_STEPS;
      return Math.max(low[k], Math.min(high[k], step));
    });
    chooseTarget(state.ofMap(moved), true);
  });
}

function listenToControls() {
  const [run] = state.runs;
  // Of an attribution there is no network to show.
  byId("field-label").hidden = !run.can.includes("field");
  byId("fields").append(...state.fields.map((name) => new Option("", name)));
  fill(select("of"), state.answers);
  fill(select("term"), state.terms);
  input("field").value = state.field;
  select("of").value = state.of;
  select("term").value = state.term;
  select("scale").value = state.scale;
  select("clip").value = String(state.clip);
  select("view").value = state.view;
  // Over one coordinate the height of a point is its influence.
  byId("view-label").hidden = state.up === null;
  input("near").checked = state.near;

  input("field").addEventListener("change", () => {
    state.field = input("field").value.trim() || run.fields[0];
    choosePoint(null);
  });
  // All names, not only those that begin with what is there.
  input("field").addEventListener("focus", () => input("field").select());
  select("of").addEventListener("change", () => {
    state.of = select("of").value;
    chooseTarget(state.at, true);
    if (state.point !== null || !run.can.includes("field")) void askField();
  });
  for (const id of ["term", "scale", "clip", "view", "near"]) {
    byId(id).addEventListener("change", () => {
      state.term = select("term").value;
      state.scale = select("scale").value;
      state.clip = Number(select("clip").value);
      state.view = select("view").value;
      state.near = input("near").checked;
      state.write();
      showInfluences();
      askRegion();
      if (state.point !== null) void askField();
    });
  }
  byId("whole").addEventListener("click", () => choosePoint(null));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    showInfluences();
    void askField();
    void showTerms();
    drawTraining();
  });
}

function offerFiles() {
  for (const view of views) {
    const suffix = view.number ? `-${view.number}` : "";
    if (views.length > 1) {
      byId("field-exports").append(make("span", {}, view.run.name));
      byId("influence-exports").append(make("span", {}, view.run.name));
    }
    offerExports(byId("field-exports"), `field${suffix}`, {
      canvas: view.left.canvas, svg: () => view.left.svg(), csv: () => view.fieldRows(),
    });
    offerExports(byId("influence-exports"), `influence${suffix}`, {
      canvas: view.right.canvas, svg: () => view.right.svg(), csv: () => view.influenceRows(),
    });
  }
  if (differences) offerDifferences(differences);
  offerExports(byId("share-exports"), "share", {
    figure: () => byId("share").querySelector("svg"),
    csv: () => [["run", "points", "share"], ...shares.flatMap(({ name, shares: ofRun }) => Array.from(ofRun, (value, k) => [name, k + 1, value]))],
  });
}

function offerDifferences(/** @type {Differences} */ shown) {
  const { field, influence } = shown;
  for (const id of ["field-exports", "influence-exports"]) byId(id).append(make("span", {}, "difference"));
  offerExports(byId("field-exports"), "field-difference", {
    canvas: field.canvas, svg: () => field.svg(), csv: () => shown.fieldRows(),
  });
  offerExports(byId("influence-exports"), "influence-difference", { canvas: influence.canvas, svg: () => influence.svg() });
}

// --- further panels ---

/** What the points of each term do to the loss of each. */
async function showTerms() {
  const { run, source } = views[0];
  const isThere = run.can.includes("terms") && run.terms.length > 1;
  byId("terms-panel").hidden = !isThere;
  if (!isThere) return;
  const values = await source.terms();
  drawTerms(byId("terms"), run.terms, values, isDark());
  byId("terms-run").textContent = views.length > 1 ? `${run.name}: ` : "";
  if (!byId("terms-exports").children.length) {
    offerExports(byId("terms-exports"), "terms", {
      svg: () => termSvg(run.terms, values, isDark()), csv: () => termRows(run.terms, values),
    });
  }
}

function describe(/** @type {import("./source.js").Run} */ run) {
  const parts = [];
  if (typeof run.summary.relative_l2 === "number") parts.push(`relative L2 error ${format(run.summary.relative_l2)}`);
  parts.push(`${run.n_points} training points`);
  if (run.summary.iterations !== undefined) parts.push(`${run.summary.iterations} iterations`);
  else if (run.can.includes("history")) parts.push("not finished: as its last checkpoint has it");
  if (run.can.includes("field") && !run.can.includes("any place")) parts.push("a report: what was not explained is answered by the nearest place that was");
  return parts.join(", ");
}

// --- the start ---

/** The runs and where their answers come from: a report has both with it. */
async function explored() {
  const reported = reportSources(document);
  if (reported) return reported;
  const runs = await serverRuns();
  return { runs, sources: runs.map((run, k) => serverSource(k, run)) };
}

async function start() {
  const { runs, sources } = await explored();
  state = new State(runs);
  state.read();
  document.title = `${runs.map((run) => run.name).join(", ")} – whence`;
  byId("title").textContent = runs[0].title;
  byId("summary").textContent = runs.map((run) => (runs.length > 1 ? `${run.name}: ${describe(run)}` : describe(run))).join("; ");
  document.body.classList.toggle("compared", runs.length > 1);

  const parents = { field: byId("field-maps"), influence: byId("influence-maps"), words: byId("words") };
  views = runs.map((run, k) => new RunView(k, run, sources[k], state, parents));
  if (runs.length > 1) differences = new Differences(views, parents);
  await Promise.all(views.map((view) => view.load()));
  listenToControls();
  listenToSlices(state, () => {
    state.write();
    void askField();
    void askInfluence();
    void askAnswer();
    askRegion();
    drawTraining();
  });
  for (const view of views) {
    listenToField(view);
    view.onPoint = (point) => choosePoint(point, view.number);
  }
  askRegion = listenToRegions(views, state);
  offerFiles();
  state.write();
  await Promise.all([askInfluence(), askField(), askAnswer()]);
  [drawTraining] = await Promise.all([showTraining(views, state), showTerms(), showFindings(views)]);
  document.body.dataset.ready = "true";
}

start().catch(report);
