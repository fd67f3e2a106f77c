// What is chosen. All of it is in the address, so that a view can be sent.

/** @typedef {import("./source.js").Run} Run */

/** What is in every list. */
function inAll(/** @type {string[][]} */ [first, ...others]) {
  return first.filter((name) => others.every((names) => names.includes(name)));
}

export class State {
  /** @param {Run[]} runs */
  constructor(runs) {
    const [run] = runs;
    this.runs = runs;
    /** The place that is explained, in the problem's order. */
    this.at = run.first;
    /** What all runs can be asked for. */
    this.answers = inAll(runs.map(({ answers }) => answers));
    this.fields = inAll(runs.map(({ fields }) => fields));
    this.of = this.answers[0];
    this.field = this.fields[0];
    this.term = "";
    this.scale = "linear";
    this.clip = 0.99;
    this.view = "points";
    this.near = false;
    /** The training point whose influence is on the left, null for the solution. @type {number | null} */
    this.point = null;
    /** The run that it belongs to. */
    this.pointRun = 0;
    this.across = run.across;
    this.up = run.up;
    /** The iteration whose points are shown, null for the last. @type {number | null} */
    this.iteration = null;
  }

  read() {
    const asked = new URLSearchParams(location.hash.slice(1));
    this.readPlace(asked);
    this.readLook(asked);
    this.readPoint(asked);
  }

  /** What is explained, and where. */
  readPlace(/** @type {URLSearchParams} */ asked) {
    const [run] = this.runs;
    const numbers = (/** @type {string} */ name) => (asked.get(name) ?? "").split(",").map(Number);
    const at = numbers("at");
    if (asked.has("at") && at.length === run.coordinates.length && at.every(Number.isFinite)) this.at = at;
    if (this.answers.includes(asked.get("of") ?? "")) this.of = String(asked.get("of"));

    const axes = numbers("axes");
    const isAxis = (/** @type {number} */ k) => Number.isInteger(k) && k >= 0 && k < run.coordinates.length;
    if (this.up !== null && axes.length === 2 && axes.every(isAxis) && axes[0] !== axes[1]) {
      [this.across, this.up] = axes;
    }
  }

  /** What is shown of it. */
  readLook(/** @type {URLSearchParams} */ asked) {
    this.field = asked.get("field") || this.field;
    if (this.terms.includes(asked.get("term") ?? "")) this.term = String(asked.get("term"));
    if (asked.get("scale") === "log") this.scale = "log";
    if (asked.get("view") === "smooth" && this.up !== null) this.view = "smooth";
    this.near = asked.get("near") === "1";
    const clip = Number(asked.get("clip"));
    if (clip > 0 && clip <= 1) this.clip = clip;
    const iteration = Number(asked.get("iteration") ?? NaN);
    if (Number.isFinite(iteration)) this.iteration = iteration;
  }

  /** The training point that is followed. */
  readPoint(/** @type {URLSearchParams} */ asked) {
    const pointRun = Number(asked.get("run") ?? 0);
    const point = Number(asked.get("point") ?? -1);
    const count = this.runs[pointRun]?.n_points ?? 0;
    if (!Number.isInteger(point) || point < 0 || point >= count) return;
    this.point = point;
    this.pointRun = pointRun;
  }

  write() {
    const { at, of, field, term, scale, clip, point, view, across, up, iteration } = this;
    const shown = new URLSearchParams({ of, at: at.join(","), field, scale, clip: String(clip) });
    if (term) shown.set("term", term);
    if (view !== "points") shown.set("view", view);
    if (this.near) shown.set("near", "1");
    if (up !== null && this.coordinates.length > 2) shown.set("axes", `${across},${up}`);
    if (point !== null) shown.set("point", String(point));
    if (point !== null && this.pointRun) shown.set("run", String(this.pointRun));
    if (iteration !== null) shown.set("iteration", String(iteration));
    // A page within a notebook has no address of its own.
    if (location.protocol !== "about:") history.replaceState(null, "", `#${shown}`);
  }

  get coordinates() {
    return this.runs[0].coordinates;
  }

  /** The terms of all runs. */
  get terms() {
    return [...new Set(this.runs.flatMap((run) => run.terms))];
  }

  /** The columns of coordinates that are held where the slice is. */
  get others() {
    return this.coordinates.map((_, k) => k).filter((k) => k !== this.across && k !== this.up);
  }

  /** The slice that is looked at, for a question. */
  get slice() {
    const axes = this.up === null ? [this.across] : [this.across, this.up];
    return { axes: axes.join(","), through: this.at.join(",") };
  }

  /** A place in the order of a map: across, up. */
  onMap(/** @type {ArrayLike<number>} */ at) {
    return this.up === null ? [at[this.across], 0] : [at[this.across], at[this.up]];
  }

  /** The place where a map was touched, in the problem's order. */
  ofMap(/** @type {number[]} */ [x, y]) {
    const at = [...this.at];
    at[this.across] = x;
    if (this.up !== null) at[this.up] = y;
    return at;
  }
}
