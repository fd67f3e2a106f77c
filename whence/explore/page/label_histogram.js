// Histograms of influence, one below the other: a row for each label.

import { diverging } from "./colors.js";
import { draw, inks, isDark } from "./elements.js";
import { signed } from "./labels.js";
import { format, ticks } from "./numbers.js";

const BINS = 61;
const ROW = 34;
const [LEFT, RIGHT, TOP, BELOW] = [96, 78, 18, 38];
const MOST_ROWS = 12;

/**
 * Counts in bins that are symmetric about zero, the middle one around it.
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} groups
 * @param {number} n how many groups there are
 * @returns {{limit: number, counts: Uint32Array[], sums: Float64Array, sizes: Float64Array}}
 */
export function binned(values, groups, n) {
  let limit = 0;
  for (let i = 0; i < values.length; i += 1) limit = Math.max(limit, Math.abs(values[i]));
  const counts = Array.from({ length: n }, () => new Uint32Array(BINS));
  const [sums, sizes] = [new Float64Array(n), new Float64Array(n)];
  for (let i = 0; i < values.length; i += 1) {
    const group = groups[i];
    // A label that the loss ignores is in no group.
    if (group < 0) continue;
    const place = limit ? (0.5 + values[i] / limit / 2) * BINS : BINS / 2;
    counts[group][Math.min(BINS - 1, Math.floor(place))] += 1;
    sums[group] += values[i];
    sizes[group] += Math.abs(values[i]);
  }
  return { limit, counts, sums, sizes };
}

/**
 * The groups that are shown, in order: those of the largest total influence, if there are many.
 * @param {Float64Array} sizes
 * @param {number} own the group of the target, which is shown in any case
 * @returns {number[]}
 */
export function shownGroups(sizes, own) {
  const order = [...sizes.keys()].sort((a, b) => sizes[b] - sizes[a]);
  const chosen = order.filter((group) => group !== own).slice(0, MOST_ROWS - Number(own >= 0));
  if (own >= 0) chosen.push(own);
  return chosen.sort((a, b) => a - b);
}

/**
 * @param {HTMLElement} parent
 * @param {ReturnType<typeof binned>} bins
 * @param {{names: string[], own: number, chosen: number | null, label: string,
 *   choose: (group: number) => void}} what
 */
export function drawHistograms(parent, bins, { names, own, chosen, label, choose }) {
  const { ink, faint, line, accent } = inks();
  const groups = shownGroups(bins.sizes, own);
  const width = Math.max(280, parent.clientWidth);
  const height = TOP + ROW * groups.length + BELOW;
  const room = width - LEFT - RIGHT;
  const { colors, step } = diverging(1, "linear", isDark());
  const colour = (/** @type {number} */ side) => `rgb(${colors.slice(3 * step(side), 3 * step(side) + 3).join(",")})`;
  const across = (/** @type {number} */ value) => LEFT + (bins.limit ? 0.5 + value / bins.limit / 2 : 0.5) * room;

  const figure = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  figure.setAttribute("font-family", "system-ui, sans-serif");
  figure.setAttribute("font-size", "12");
  const bottom = TOP + ROW * groups.length;
  for (const value of bins.limit ? ticks(-bins.limit, bins.limit, Math.max(2, Math.round(room / 90))) : [0]) {
    figure.append(draw("line", { x1: across(value), x2: across(value), y1: TOP, y2: bottom, stroke: line }));
    figure.append(draw("text", { x: across(value), y: bottom + 15, fill: faint, "text-anchor": "middle" }, format(value)));
  }
  figure.append(draw("text", { x: LEFT + room / 2, y: height - 5, fill: faint, "text-anchor": "middle" }, "influence on the loss"));
  figure.append(draw("text", { x: width - 2, y: 11, fill: faint, "text-anchor": "end" }, "sum"));

  const most = Math.log1p(Math.max(1, ...groups.map((group) => Math.max(...bins.counts[group]))));
  groups.forEach((group, k) => {
    const base = TOP + (k + 1) * ROW;
    // As its title it is the name of the row too.
    const said = `${names[group]}: sum of influence ${signed(bins.sums[group])}`;
    const row = draw("g", { class: "row", tabindex: 0, role: "button", "aria-pressed": String(chosen === group) });
    row.append(draw("title", {}, said));
    // All of the row is clicked, not its bars alone.
    row.append(draw("rect", { x: 0, y: base - ROW, width, height: ROW, fill: chosen === group ? accent : "transparent", "fill-opacity": 0.15 }));
    row.append(draw("line", { x1: LEFT, x2: width - RIGHT, y1: base, y2: base, stroke: line }));
    const weight = group === own ? "bold" : "normal";
    row.append(draw("text", { x: LEFT - 8, y: base - 10, fill: ink, "font-weight": weight, "text-anchor": "end" }, short(names[group])));
    row.append(draw("text", { x: width - 2, y: base - 10, fill: ink, "text-anchor": "end" }, signed(bins.sums[group])));
    bins.counts[group].forEach((count, bin) => {
      if (!count) return;
      const side = Math.sign(bin - (BINS - 1) / 2);
      const tall = (Math.log1p(count) / most) * (ROW - 6);
      const x = LEFT + (bin / BINS) * room;
      row.append(draw("rect", { x: x + 0.5, y: base - tall, width: Math.max(1, room / BINS - 1), height: tall, fill: side ? colour(0.8 * side) : faint }));
    });
    row.addEventListener("click", () => choose(group));
    row.addEventListener("keydown", (event) => {
      if (/** @type {KeyboardEvent} */ (event).key === "Enter") choose(group);
    });
    figure.append(row);
  });

  const focused = [...parent.querySelectorAll(".row")].findIndex((row) => row === document.activeElement);
  parent.replaceChildren(figure);
  if (focused >= 0) /** @type {HTMLElement} */ (figure.querySelectorAll(".row")[focused])?.focus();
}

/** As much of a name as fits beside its row. */
function short(/** @type {string} */ name) {
  return name.length > 11 ? `${name.slice(0, 10)}…` : name;
}
