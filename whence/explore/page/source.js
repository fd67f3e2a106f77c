// Where answers come from: the server that the page came from. A report has its own, see
// report_source.js, with the same questions.

/**
 * What is known of a run before any question. `can` lists what may be asked of it.
 * @typedef {{
 *   title: string, name: string, coordinates: string[], across: number, up: number | null,
 *   low: number[], high: number[], first: number[], fields: string[], answers: string[], terms: string[], n_points: number,
 *   summary: Record<string, number>, can: string[],
 * }} Run
 *
 * Training points, column by column.
 * @typedef {{
 *   columns: Float64Array[], term: Float64Array, index: Float64Array, loss: Float64Array,
 *   entered: Float64Array, residual: Float64Array,
 * }} TrainingPoints
 *
 * What whence diagnose wrote, and the rows of whence indicators, the names first.
 * @typedef {{text: string, indicators: string[][]}} Findings
 *
 * @typedef {{axes: string, through: string}} Slice
 * @typedef {{size: number, share: number, first_order: number, exact: number | null}} Region
 * @typedef {Record<string, number[]>} Members the places of points by term
 */

/**
 * Questions to one run.
 * @typedef {object} Source
 * @property {() => Promise<TrainingPoints>} points
 * @property {(of: string, slice: Slice) => Promise<Float64Array>} field
 * @property {(of: string, at: number[]) => Promise<Float64Array>} influenceAt
 * @property {(term: string, index: number, of: string, slice: Slice) => Promise<Float64Array>} influenceOf
 * @property {(of: string, at: number[]) => Promise<{value: number | null, quality: string}>} answer
 * @property {(members: Members, of: string, at: number[]) => Promise<Region>} region
 * @property {(members: Members, of: string, at: number[]) => Promise<number>} retrained
 * @property {() => Promise<Float64Array>} terms
 * @property {() => Promise<Float64Array>} rounds
 * @property {() => Promise<Record<string, (number | null)[]>>} history
 * @property {() => Promise<Record<string, any>>} spectra
 * @property {() => Promise<Findings>} findings
 * @property {() => Promise<Float64Array[] | null>} targets the places that can be explained, null for any
 */

const JOB_WAIT = 500;

/** What is explored. @returns {Promise<Run[]>} */
export async function serverRuns() {
  return (await get("runs", {})).json();
}

/**
 * @param {number} number of the run
 * @param {Run} run
 * @returns {Source}
 */
export function serverSource(number, run) {
  const ask = (/** @type {string} */ name, /** @type {Record<string, string | number>} */ asked = {}) => get(name, { ...asked, run: number });
  const json = async (/** @type {string} */ name) => (await ask(name)).json();
  const place = (/** @type {number[]} */ at) => at.join(",");
  return {
    points: async () => pointColumns(await numbers(await ask("points")), run),
    field: async (of, slice) => numbers(await ask("field", { of, ...slice })),
    influenceAt: async (of, at) => numbers(await ask("influence", { of, at: place(at) })),
    influenceOf: async (term, index, of, slice) => numbers(await ask("point", { term, index, of, ...slice })),
    answer: async (of, at) => (await ask("answer", { of, at: place(at) })).json(),
    region: async (points, of, at) => (await post("region", { points, of, at, run: number })).json(),
    retrained: async (points, of, at) => {
      const job = await (await post("retrain", { points, of, at, run: number })).json();
      return (await finished(job.number)).measured;
    },
    terms: async () => numbers(await ask("terms")),
    rounds: async () => numbers(await ask("rounds")),
    history: () => json("history"),
    spectra: () => json("spectra"),
    findings: () => json("findings"),
    targets: async () => (run.can.includes("any place") ? null : columnsOf(await numbers(await ask("targets")), run.coordinates.length)),
  };
}

/**
 * The columns that a table of points has one after the other.
 * @param {Float64Array} values
 * @param {Run} run
 * @returns {TrainingPoints}
 */
export function pointColumns(values, run) {
  const d = run.coordinates.length;
  const columns = columnsOf(values, d + 5);
  const [term, index, loss, entered, residual] = columns.slice(d);
  return { columns: columns.slice(0, d), term, index, loss, entered, residual };
}

/**
 * A table as its columns, which it has one after the other.
 * @param {Float64Array} values
 * @param {number} count
 */
export function columnsOf(values, count) {
  const n = values.length / count;
  return Array.from({ length: count }, (_, k) => values.subarray(k * n, (k + 1) * n));
}

/** Ask after a long piece of work until it is done. */
async function finished(/** @type {number} */ number) {
  for (;;) {
    const job = await (await get("job", { number })).json();
    if (job.state === "done") return job;
    if (job.state === "failed") throw new Error(job.error);
    await new Promise((resolve) => setTimeout(resolve, JOB_WAIT));
  }
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} asked
 */
async function get(name, asked) {
  const query = new URLSearchParams(Object.entries(asked).map(([key, value]) => [key, String(value)]));
  return checked(await fetch(`api/${name}?${query}`));
}

/**
 * @param {string} name
 * @param {object} asked
 */
async function post(name, asked) {
  return checked(await fetch(`api/${name}`, { method: "POST", body: JSON.stringify(asked) }));
}

/** @param {Response} response */
async function checked(response) {
  if (response.ok) return response;
  const { error } = await response.json();
  throw new Error(error);
}

/** @param {Response} response */
async function numbers(response) {
  return new Float64Array(await response.arrayBuffer());
}
