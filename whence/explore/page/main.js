// The page: what is chosen, what is asked for it, and what is shown.

import * as api from "./api.js";
import { diverging, sequential } from "./colors.js";
import { drawShares } from "./curve.js";
import { isWithin, MapView } from "./map.js";
import { cumulativeShares, format, quantileOfSizes, strongest } from "./numbers.js";

const ROWS = 10;
const KEY_STEPS = 60;
const CARRIED = 0.1;
const ROOM = 0.03;

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
const select = (/** @type {string} */ id) => /** @type {HTMLSelectElement} */ (byId(id));
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/**
 * What is chosen: all of it is in the address, so that a view can be sent.
 * `point` is the training point whose influence is on the left, null for the solution.
 */
const state = {
  /** @type {number[]} */ at: [],
  of: "",
  field: "",
  term: "",
  scale: "linear",
  clip: 0.99,
  /** @type {number | null} */ point: null,
};

/** @type {Awaited<ReturnType<typeof api.run>>} */
let run;
/** @type {Awaited<ReturnType<typeof api.points>>} */
let points;
/** @type {Float64Array} */
let influence = new Float64Array();
/** @type {MapView} */
let left;
/** @type {MapView} */
let right;

// --- the address ---

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const at = (asked.get("at") ?? "").split(",").map(Number);
  if (at.length === 2 && at.every(Number.isFinite)) state.at = at;
  if (run.answers.includes(asked.get("of"))) state.of = String(asked.get("of"));
  if (run.fields.includes(asked.get("field"))) state.field = String(asked.get("field"));
  if (run.terms.includes(asked.get("term"))) state.term = String(asked.get("term"));
  if (asked.get("scale") === "log") state.scale = "log";
  const clip = Number(asked.get("clip"));
  if (clip > 0 && clip <= 1) state.clip = clip;
  const point = asked.has("point") ? Number(asked.get("point")) : -1;
  if (Number.isInteger(point) && point >= 0 && point < run.n_points) state.point = point;
}

function writeAddress() {
  const { at, of, field, term, scale, clip, point } = state;
  const shown = new URLSearchParams({ of, at: at.join(","), field, scale, clip: String(clip) });
  if (term) shown.set("term", term);
  if (point !== null) shown.set("point", String(point));
  history.replaceState(null, "", `#${shown}`);
}

// --- asking ---

/**
 * Ask the newest question only: while one is being answered, the last of the others waits.
 * @param {() => Promise<void>} ask
 */
function newest(ask) {
  let isBusy = false;
  let isWanted = false;
  return async () => {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    while (isWanted) {
      isWanted = false;
      try {
        await ask();
        byId("problem").hidden = true;
      } catch (error) {
        showProblem(error);
      }
    }
    isBusy = false;
  };
}

function showProblem(/** @type {unknown} */ error) {
  // What fetch throws where nobody answers.
  const isGone = error instanceof TypeError;
  const message = isGone ? "The server does not answer: is whence explore still running?" : String(error);
  byId("problem").textContent = message;
  byId("problem").hidden = false;
}

const askInfluence = newest(async () => {
  influence = await api.influenceAt(state.of, state.at);
  showInfluence();
  document.body.dataset.shown = `${state.of}@${state.at.join(",")}`;
});

const askField = newest(async () => {
  const { point } = state;
  const values = point === null
    ? await api.field(state.field)
    : await api.influenceOf(run.terms[points.term[point]], points.index[point], state.of);
  showField(values, point);
});

const askAnswer = newest(async () => {
  const { value, quality } = await api.answer(state.of, state.at);
  byId("value").textContent = `${state.of} at ${placeInWords(state.at)} is ${format(value)}.`;
  byId("quality").textContent = quality;
});

// --- showing ---

function placeInWords(/** @type {ArrayLike<number>} */ at) {
  return run.coordinates.map((/** @type {string} */ name, /** @type {number} */ k) => `${name} = ${format(at[k])}`).join(", ");
}

/** A place in the order of a map: across, up. */
function onMap(/** @type {number[]} */ at) {
  return [at[run.across], at[run.up]];
}

function ofMap(/** @type {number[]} */ [x, y]) {
  const at = [0, 0];
  at[run.across] = x;
  at[run.up] = y;
  return at;
}

/**
 * @param {Float64Array} values
 * @param {number | null} point
 */
function showField(values, point) {
  left.field = { values, resolution: run.resolution };
  const finite = values.filter(Number.isFinite);
  const isSigned = point !== null || state.field.startsWith("error");
  const kind = state.scale === "log" && point !== null ? "log" : "linear";
  if (isSigned) {
    left.scale = diverging(quantileOfSizes(finite, point === null ? 1 : state.clip), kind, isDark());
  } else {
    let [low, high] = [Infinity, -Infinity];
    for (const value of finite) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    left.scale = sequential(low, high);
  }
  left.draw();

  let text = `${state.field} of the network. Click or drag to choose where it is explained; arrow keys move the place.`;
  if (point !== null) {
    text = `What removing ${pointInWords(point)} from training would change of ${state.of}, everywhere (predicted; same unit as ${state.of}).`;
  }
  byId("field-caption").textContent = text;
  byId("whole").hidden = point === null;
}

function pointInWords(/** @type {number} */ i) {
  const at = points.columns.map((column) => column[i]);
  return `the point of ${run.terms[points.term[i]]} at ${placeInWords(at)}`;
}

function shownPoints() {
  const wanted = run.terms.indexOf(state.term);
  return Uint8Array.from(points.term, (term) => Number(wanted < 0 || term === wanted));
}

function showInfluence() {
  const shown = shownPoints();
  right.points = { columns: [points.columns[run.across], points.columns[run.up]], values: influence, shown };
  const seen = influence.filter((_, i) => shown[i]);
  const kind = /** @type {"linear" | "log"} */ (state.scale);
  right.scale = diverging(quantileOfSizes(seen, state.clip), kind, isDark());
  right.target = onMap(state.at);
  right.chosen = state.point;
  left.target = onMap(state.at);
  right.draw();
  left.draw();
  byId("influence-caption").textContent = `What removing each training point would change of ${state.of} at ${placeInWords(state.at)}: orange raises it, blue lowers it (predicted; same unit as ${state.of}). Click a point to see its influence everywhere.`;
  showStrongest(shown);
  showShares(seen);
}

function showStrongest(/** @type {Uint8Array} */ shown) {
  const visible = influence.map((value, i) => (shown[i] ? value : 0));
  const rows = strongest(visible, ROWS).map((i) => {
    const row = document.createElement("tr");
    const at = points.columns.map((column) => column[i]);
    for (const text of [run.terms[points.term[i]], placeInWords(at), format(influence[i])]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    row.addEventListener("click", () => choosePoint(i));
    return row;
  });
  byId("strongest").querySelector("tbody")?.replaceChildren(...rows);
}

function showShares(/** @type {Float64Array} */ seen) {
  const shares = cumulativeShares(seen);
  drawShares(byId("share"), shares);
  const k = Math.max(1, Math.round(CARRIED * seen.length));
  const percent = Math.round(100 * shares[k - 1]);
  byId("share-caption").textContent = `The ${k} strongest of ${seen.length} points (${Math.round((100 * k) / seen.length)} %) carry ${percent} % of the total absolute influence on this answer.`;
}

// --- choosing ---

/**
 * @param {number[]} at
 * @param {boolean} isLast whether this is where a drag ends
 */
function chooseTarget(at, isLast) {
  state.at = at;
  writeAddress();
  void askInfluence();
  if (isLast) void askAnswer();
}

function choosePoint(/** @type {number | null} */ point) {
  state.point = point;
  writeAddress();
  showInfluence();
  void askField();
}

/**
 * Places of the pointer on a map, in pixels of the page.
 * @param {PointerEvent} event
 * @returns {[number, number]}
 */
const pixels = (event) => [event.offsetX, event.offsetY];

function listenToField() {
  const { canvas } = left;
  let isDown = false;
  canvas.addEventListener("pointerdown", (event) => {
    isDown = true;
    canvas.setPointerCapture(event.pointerId);
    chooseTarget(ofMap(left.toData(...pixels(event))), false);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (isDown) chooseTarget(ofMap(left.toData(...pixels(event))), false);
  });
  canvas.addEventListener("pointerup", (event) => {
    isDown = false;
    chooseTarget(ofMap(left.toData(...pixels(event))), true);
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const { low, high } = left.frame;
    const place = onMap(state.at).map((value, k) => {
      const moved = value + (way[k] * (high[k] - low[k])) / KEY_STEPS;
      return Math.max(low[k], Math.min(high[k], moved));
    });
    chooseTarget(ofMap(place), true);
  });
}

function listenToInfluence() {
  const { canvas } = right;
  const lasso = /** @type {HTMLInputElement} */ (byId("lasso"));
  canvas.addEventListener("pointerdown", (event) => {
    if (!lasso.checked) return;
    canvas.setPointerCapture(event.pointerId);
    right.outline = [right.toData(...pixels(event))];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (lasso.checked && right.outline.length && event.buttons) {
      right.outline.push(right.toData(...pixels(event)));
      right.draw();
      return;
    }
    const [x, y] = pixels(event);
    const i = right.nearest(x, y);
    if (i === null) right.hideTip();
    else right.showTip(describePoint(i), x, y);
  });
  canvas.addEventListener("pointerleave", () => right.hideTip());
  canvas.addEventListener("pointerup", (event) => {
    if (lasso.checked) void askRegion();
    else {
      const i = right.nearest(...pixels(event));
      if (i !== null) choosePoint(i);
    }
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape") clearRegion();
  });
}

function describePoint(/** @type {number} */ i) {
  const sizes = influence.map(Math.abs);
  const rank = 1 + sizes.reduce((above, size) => above + Number(size > sizes[i]), 0);
  const at = points.columns.map((column) => column[i]);
  const lines = [
    `${run.terms[points.term[i]]} ${points.index[i]}: ${placeInWords(at)}`,
    `influence ${format(influence[i])}, rank ${rank} of ${influence.length}`,
    `part of the loss ${format(points.loss[i])}`,
  ];
  if (points.entered[i] >= 0) lines.push(`in training since iteration ${points.entered[i]}`);
  return lines.join("\n");
}

function clearRegion() {
  right.outline = [];
  right.draw();
  byId("region").hidden = true;
}

const askRegion = newest(async () => {
  const shown = shownPoints();
  /** @type {Record<string, number[]>} */
  const members = {};
  let count = 0;
  for (let i = 0; i < shown.length; i += 1) {
    const [x, y] = [points.columns[run.across][i], points.columns[run.up][i]];
    if (!shown[i] || !isWithin(x, y, right.outline)) continue;
    const term = run.terms[points.term[i]];
    (members[term] ??= []).push(points.index[i]);
    count += 1;
  }
  byId("region").hidden = false;
  byId("region").textContent = "The region has no points.";
  if (!count) return;
  const found = await api.region(members, state.of, state.at);
  byId("region").textContent = `The region's ${found.size} points carry ${(100 * found.share).toFixed(1)} % of the total absolute influence. Removing all of them would change ${state.of} here by ${format(found.exact)} (exact in the Gauss–Newton model; the sum of their influences is ${format(found.first_order)}).`;
});

// --- exports ---

function save(/** @type {Blob} */ blob, /** @type {string} */ name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

function csvOfInfluence() {
  const lines = [["term", "index", ...run.coordinates, "influence"].join(",")];
  for (let i = 0; i < influence.length; i += 1) {
    const at = points.columns.map((column) => column[i]);
    lines.push([JSON.stringify(run.terms[points.term[i]]), points.index[i], ...at, influence[i]].join(","));
  }
  return lines.join("\n");
}

function csvOfField() {
  const n = run.resolution;
  const { low, high } = left.frame;
  const names = [run.coordinates[run.across], run.coordinates[run.up]];
  const lines = [[...names, "value"].join(",")];
  left.field?.values.forEach((value, i) => {
    const x = low[0] + ((i % n) / (n - 1)) * (high[0] - low[0]);
    const y = low[1] + (Math.floor(i / n) / (n - 1)) * (high[1] - low[1]);
    if (Number.isFinite(value)) lines.push([x, y, value].join(","));
  });
  return lines.join("\n");
}

function listenToExports() {
  const maps = { field: left, influence: right };
  const tables = { field: csvOfField, influence: csvOfInfluence };
  for (const [name, map] of Object.entries(maps)) {
    document.querySelector(`[data-png=${name}]`)?.addEventListener("click", () => {
      map.canvas.toBlob((blob) => blob && save(blob, `${name}.png`));
    });
  }
  for (const [name, table] of Object.entries(tables)) {
    document.querySelector(`[data-csv=${name}]`)?.addEventListener("click", () => {
      save(new Blob([table()], { type: "text/csv" }), `${name}.csv`);
    });
  }
}

// --- the start ---

/** A frame with a little room around, as points lie on the boundary. */
function withRoom(/** @type {import("./map.js").Frame} */ { low, high, names }) {
  const room = low.map((value, k) => ROOM * (high[k] - value));
  return { low: low.map((value, k) => value - room[k]), high: high.map((value, k) => value + room[k]), names };
}

function fill(/** @type {HTMLSelectElement} */ list, /** @type {string[]} */ names) {
  list.append(...names.map((name) => new Option(name, name)));
}

function listenToControls() {
  fill(select("field"), run.fields);
  fill(select("of"), run.answers);
  fill(select("term"), run.terms);
  select("field").value = state.field;
  select("of").value = state.of;
  select("term").value = state.term;
  select("scale").value = state.scale;
  select("clip").value = String(state.clip);

  select("field").addEventListener("change", () => {
    state.field = select("field").value;
    choosePoint(null);
  });
  select("of").addEventListener("change", () => {
    state.of = select("of").value;
    chooseTarget(state.at, true);
    if (state.point !== null) void askField();
  });
  for (const id of ["term", "scale", "clip"]) {
    select(id).addEventListener("change", () => {
      state.term = select("term").value;
      state.scale = select("scale").value;
      state.clip = Number(select("clip").value);
      writeAddress();
      showInfluence();
      if (state.point !== null) void askField();
    });
  }
  byId("whole").addEventListener("click", () => choosePoint(null));
  byId("lasso").addEventListener("change", clearRegion);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    showInfluence();
    void askField();
  });
}

async function start() {
  run = await api.run();
  points = await api.points(run.n_points);
  state.at = run.low.map((/** @type {number} */ low, /** @type {number} */ k) => (low + run.high[k]) / 2);
  state.of = run.answers[0];
  state.field = run.fields[0];
  readAddress();

  document.title = `${run.title} – whence`;
  byId("title").textContent = run.title;
  const parts = [];
  if ("relative_l2" in run.summary) parts.push(`relative L2 error ${format(run.summary.relative_l2)}`);
  parts.push(`${run.n_points} training points`);
  if ("iterations" in run.summary) parts.push(`${run.summary.iterations} iterations`);
  byId("summary").textContent = parts.join(", ");

  const frame = {
    low: onMap(run.low),
    high: onMap(run.high),
    names: [run.coordinates[run.across], run.coordinates[run.up]],
  };
  left = new MapView(byId("field-map"), frame, "map of the solution; arrow keys move the place that is explained");
  right = new MapView(byId("influence-map"), withRoom(frame), "training points, coloured by their influence on the answer");
  listenToControls();
  listenToField();
  listenToInfluence();
  listenToExports();
  writeAddress();
  await Promise.all([askInfluence(), askField(), askAnswer()]);
}

start().catch(showProblem);
