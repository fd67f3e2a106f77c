// Curves over one axis, as an SVG: losses of a training, shares, eigenvalues.

import { draw, make } from "./elements.js";
import { format, ticks } from "./numbers.js";

const [WIDTH, HEIGHT] = [560, 240];
const MARGIN = { left: 62, right: 14, top: 10, bottom: 38 };
const MOST = 400;

/** Told apart by every common kind of colour blindness, and on light and dark paper (Okabe & Ito). */
const COLORS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"];

/**
 * @typedef {{name: string, x: ArrayLike<number>, y: ArrayLike<number | null>, like?: number}} Series
 * A series `like` an earlier one has its colour, and is dashed.
 * @typedef {{
 *   x: "linear" | "log", y: "linear" | "log", across: string, label: string,
 *   range?: [number, number], unit?: string, mark?: number,
 * }} Look
 * `label` says what is shown, for those who do not see it; `range` is that of y, by default the one
 * of the values; `mark` is where a line stands upright.
 */

/**
 * Draw curves in place of what was there.
 * @param {HTMLElement} parent
 * @param {Series[]} series
 * @param {Look} look
 */
export function drawChart(parent, series, look) {
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": look.label });
  const across = axis(series.flatMap(({ x, y }) => visible(x, y).map(([value]) => value)), look.x, [MARGIN.left, WIDTH - MARGIN.right]);
  const up = axis(look.range ?? series.flatMap(({ y }) => Array.from(y)), look.y, [HEIGHT - MARGIN.bottom, MARGIN.top]);

  for (const tick of up.ticks) {
    const y = up.place(tick);
    svg.append(draw("line", { class: "axis", x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y, y2: y }));
    svg.append(draw("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, `${format(tick)}${look.unit ?? ""}`));
  }
  for (const tick of across.ticks) {
    svg.append(draw("text", { x: across.place(tick), y: HEIGHT - MARGIN.bottom + 16, "text-anchor": "middle" }, format(tick)));
  }
  svg.append(draw("text", { x: (MARGIN.left + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, look.across));
  if (look.mark !== undefined) {
    const x = across.place(look.mark);
    svg.append(draw("line", { class: "mark", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
  }

  series.forEach(({ x, y }, k) => {
    const places = visible(x, y).map(([a, b]) => `${across.place(a).toFixed(1)},${up.place(b).toFixed(1)}`);
    const curve = draw("polyline", { class: "curve", points: places.join(" ") });
    curve.setAttribute("stroke", colorOf(series[k], k));
    if (series[k].like !== undefined) curve.setAttribute("stroke-dasharray", "5 4");
    svg.append(curve);
  });
  parent.replaceChildren(svg, ...(series.length > 1 ? [legend(series)] : []));

  /** The pairs that the axes have a place for, not more than can be seen. */
  function visible(/** @type {ArrayLike<number>} */ x, /** @type {ArrayLike<number | null>} */ y) {
    const pairs = /** @type {[number, number][]} */ (Array.from(x, (value, i) => [value, y[i]]));
    const good = pairs.filter(([a, b]) => isOn(a, look.x) && isOn(b, look.y));
    const step = Math.max(1, good.length / MOST);
    return good.filter((_, i) => i === good.length - 1 || Math.floor(i / step) !== Math.floor((i - 1) / step));
  }
}

function colorOf(/** @type {Series} */ { like }, /** @type {number} */ k) {
  return COLORS[(like ?? k) % COLORS.length];
}

/** Whether an axis has a place for a value. */
function isOn(/** @type {number | null} */ value, /** @type {"linear" | "log"} */ kind) {
  return value !== null && Number.isFinite(value) && (kind === "linear" || value > 0);
}

function legend(/** @type {Series[]} */ series) {
  const list = make("ul", { class: "legend" });
  series.forEach((one, k) => {
    const swatch = make("span");
    swatch.style.borderTop = `3px ${one.like === undefined ? "solid" : "dashed"} ${colorOf(one, k)}`;
    list.append(make("li", {}, swatch, one.name));
  });
  return list;
}

/**
 * @param {(number | null)[]} values
 * @param {"linear" | "log"} kind
 * @param {[number, number]} ends pixels of the lowest and the highest value
 */
function axis(values, kind, [first, last]) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!isOn(value, kind)) continue;
    low = Math.min(low, Number(value));
    high = Math.max(high, Number(value));
  }
  if (low > high) [low, high] = [1, 10];
  if (kind === "linear" && low === high) [low, high] = [low - 1, high + 1];
  if (kind === "log") return logAxis(low, high, first, last);
  const place = (/** @type {number} */ value) => first + ((value - low) / (high - low)) * (last - first);
  return { place, ticks: ticks(low, high) };
}

/**
 * @param {number} low
 * @param {number} high
 * @param {number} first
 * @param {number} last
 */
function logAxis(low, high, first, last) {
  const bottom = Math.log10(low);
  const decades = Math.log10(high) - bottom || 1;
  const place = (/** @type {number} */ value) => first + ((Math.log10(value) - bottom) / decades) * (last - first);
  const step = Math.ceil(decades / 6);
  const powers = [];
  for (let power = Math.ceil(bottom); power <= bottom + decades; power += step) powers.push(10 ** power);
  // Within one decade there may be no power of ten, or just one.
  return { place, ticks: powers.length > 1 ? powers : ticks(low, low === high ? 10 * low : high) };
}
