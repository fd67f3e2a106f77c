// How few points carry how much of an answer.

import { drawChart } from "./chart.js";

const MOST = 240;

/**
 * Draw shares of the k strongest of n, k on a logarithmic axis.
 * @param {HTMLElement} parent
 * @param {{name: string, shares: Float64Array}[]} runs
 */
export function drawShares(parent, runs) {
  const series = runs.map(({ name, shares }) => {
    const n = shares.length;
    const counts = Array.from({ length: MOST + 1 }, (_, i) => Math.min(n, Math.max(1, Math.round(n ** (i / MOST)))));
    return { name, x: counts, y: counts.map((k) => 100 * shares[k - 1]) };
  });
  drawChart(parent, series, {
    x: "log", y: "linear", across: "strongest points", label: "percentage of the total influence by number of points",
    range: [0, 100], unit: " %",
  });
}
