// Where a report's answers come from: tables that the page has with it, made beforehand for some
// places. What lies between them is answered by the nearest.

import { nearestPlace } from "./geometry.js";
import { columnsOf, pointColumns } from "./source.js";

/** @typedef {import("./source.js").Run} Run */
/** @typedef {import("./source.js").Source} Source */
/** @typedef {import("./source.js").Slice} Slice */

/**
 * Numbers as they are written in a report. Those of kind i2 are in units of their row's `unit`.
 * @typedef {{kind: "f8" | "f4" | "i4" | "i2", shape: number[], data: string, unit?: Table}} Table
 *
 * A run in a report. `targets` are the places that were explained, (d, T). Where they are on a grid
 * over the box, `target_grid` is how many there are along each coordinate, and `target_rows` the
 * row of each of its places, −1 outside of the domain. Fields are on a grid of their own.
 * @typedef {{
 *   run: Run, points: Table, targets: Table, target_grid: number[] | null, target_rows: Table | null,
 *   influence: Record<string, Table>, values: Record<string, Table>, quality: Record<string, string>,
 *   field_grid: number[], fields: Record<string, Table>, terms: Table | null, rounds: Table | null,
 *   history: Record<string, (number | null)[]>, spectra: Record<string, any>, findings: import("./source.js").Findings,
 * }} Recorded
 */

const KINDS = { f8: Float64Array, f4: Float32Array, i4: Int32Array, i2: Int16Array };

/**
 * The runs that a page has with it, null if it has none.
 * @param {Document} page
 * @returns {{runs: Run[], sources: Source[]} | null}
 */
export function reportSources(page) {
  const text = page.getElementById("report")?.textContent;
  if (!text) return null;
  /** @type {Recorded[]} */
  const recorded = JSON.parse(text);
  return { runs: recorded.map(({ run }) => run), sources: recorded.map(reportSource) };
}

/**
 * @param {Recorded} recorded
 * @returns {Source}
 */
export function reportSource(recorded) {
  const { run } = recorded;
  const targets = columnsOf(numbersOf(recorded.targets), run.coordinates.length);
  const nTargets = recorded.targets.shape[1];
  /** Tables by name, read when they are first asked for. @type {Record<string, Float64Array>} */
  const influences = {};
  const influence = (/** @type {string} */ of) => (influences[of] ??= numbersOf(known(recorded.influence, of)));
  const nearest = (/** @type {number[]} */ at) => nearestPlace(targets, at, run);
  const pointsBefore = (/** @type {string} */ term, /** @type {number} */ index) => {
    const points = pointColumns(numbersOf(recorded.points), run);
    const k = run.terms.indexOf(term);
    return points.term.findIndex((value, i) => value === k && points.index[i] === index);
  };

  return {
    points: async () => pointColumns(numbersOf(recorded.points), run),
    field: async (of, slice) => {
      // Of an attribution there is no field, but what is explained at its targets.
      if (!run.can.includes("field")) return totals(influence(of), nTargets);
      return sliced(numbersOf(known(recorded.fields, of)), recorded.field_grid, run, slice);
    },
    influenceAt: async (of, at) => {
      const row = nearest(at);
      return influence(of).slice(row * run.n_points, (row + 1) * run.n_points);
    },
    influenceOf: async (term, index, of, slice) => {
      const point = pointsBefore(term, index);
      const table = influence(of);
      const column = Float64Array.from({ length: nTargets }, (_, row) => table[row * run.n_points + point]);
      const { target_grid: grid, target_rows: rows } = recorded;
      if (!grid || !rows) return column;
      const onGrid = numbersOf(rows).map((row) => (row < 0 ? NaN : column[row]));
      return sliced(onGrid, grid, run, slice);
    },
    answer: async (of, at) => {
      const values = recorded.values[of];
      const value = values ? numbersOf(values)[nearest(at)] : null;
      return { value, quality: recorded.quality[of] ?? "" };
    },
    region: async (members, of, at) => {
      const row = nearest(at);
      const values = influence(of).subarray(row * run.n_points, (row + 1) * run.n_points);
      const points = pointColumns(numbersOf(recorded.points), run);
      return regionOf(values, points, run, members);
    },
    retrained: async () => {
      throw new Error("a report cannot train: open the run with whence explore");
    },
    terms: async () => (recorded.terms ? numbersOf(recorded.terms) : new Float64Array()),
    rounds: async () => (recorded.rounds ? numbersOf(recorded.rounds) : new Float64Array()),
    history: async () => recorded.history,
    spectra: async () => recorded.spectra,
    findings: async () => recorded.findings,
    targets: async () => targets,
  };
}

/**
 * @param {Record<string, Table>} tables
 * @param {string} name
 */
function known(tables, name) {
  const table = tables[name];
  if (!table) throw new Error(`the report has ${Object.keys(tables).join(", ")}, not ${name}: open the run with whence explore`);
  return table;
}

/**
 * @param {Table} table
 * @returns {Float64Array}
 */
export function numbersOf(table) {
  const bytes = Uint8Array.from(atob(table.data), (letter) => letter.charCodeAt(0));
  const values = Float64Array.from(new KINDS[table.kind](bytes.buffer));
  if (!table.unit) return values;
  const units = numbersOf(table.unit);
  const length = values.length / units.length;
  return values.map((value, i) => value * units[Math.floor(i / length)]);
}

/**
 * A plane or a line of a table over a grid, in the order of a map: rows from the lowest y up.
 * @param {Float64Array} values the last coordinate fastest
 * @param {number[]} grid
 * @param {Run} run
 * @param {Slice} slice
 * @returns {Float64Array}
 */
export function sliced(values, grid, run, slice) {
  const [across, up] = slice.axes.split(",").map(Number);
  const through = slice.through.split(",").map(Number);
  const strides = grid.map((_, k) => grid.slice(k + 1).reduce((product, n) => product * n, 1));
  let start = 0;
  grid.forEach((n, k) => {
    if (k === across || k === up) return;
    const share = (through[k] - run.low[k]) / (run.high[k] - run.low[k] || 1);
    start += strides[k] * Math.max(0, Math.min(n - 1, Math.round(share * (n - 1))));
  });
  const rows = up === undefined ? 1 : grid[up];
  const columns = grid[across];
  const plane = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const first = start + (up === undefined ? 0 : row * strides[up]);
      plane[row * columns + column] = values[first + column * strides[across]];
    }
  }
  return plane;
}

/** The sum of the sizes of all influences on each target. */
function totals(/** @type {Float64Array} */ table, /** @type {number} */ nTargets) {
  const n = table.length / nTargets;
  return Float64Array.from({ length: nTargets }, (_, row) => table.subarray(row * n, (row + 1) * n).reduce((sum, value) => sum + Math.abs(value), 0));
}

/**
 * What points add up to; what removing all of them would do is not in a report.
 * @param {Float64Array} values
 * @param {import("./source.js").TrainingPoints} points
 * @param {Run} run
 * @param {import("./source.js").Members} members
 */
function regionOf(values, points, run, members) {
  let [size, sum, part, total] = [0, 0, 0, 0];
  const chosen = Object.fromEntries(Object.entries(members).map(([term, places]) => [term, new Set(places)]));
  values.forEach((value, i) => {
    total += Math.abs(value);
    if (!chosen[run.terms[points.term[i]]]?.has(points.index[i])) return;
    size += 1;
    sum += value;
    part += Math.abs(value);
  });
  return { size, share: total ? part / total : 0, first_order: sum, exact: null };
}
