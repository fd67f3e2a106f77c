// The curve of how few points carry how much of an answer.

import { format } from "./numbers.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [480, 200, 44, 34];
const MOST = 240;

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function element(name, attributes, text = "") {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.textContent = text;
  return made;
}

/**
 * Draw shares of the k strongest of n, k on a logarithmic axis.
 * @param {HTMLElement} parent
 * @param {Float64Array} shares
 */
export function drawShares(parent, shares) {
  const n = shares.length;
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", "share of the total influence by number of the strongest points");
  const across = (/** @type {number} */ k) => LEFT + (Math.log(k) / Math.log(Math.max(2, n))) * (WIDTH - LEFT - 12);
  const up = (/** @type {number} */ share) => HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 10);

  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(element("line", { class: "axis", x1: LEFT, x2: WIDTH - 12, y1: up(share), y2: up(share) }));
    svg.append(element("text", { x: LEFT - 6, y: up(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (let k = 1; k <= n; k *= 10) {
    svg.append(element("text", { x: across(k), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, format(k)));
  }
  svg.append(element("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "strongest points"));

  const places = [];
  for (let i = 0; i <= MOST; i += 1) {
    const k = Math.min(n, Math.max(1, Math.round(n ** (i / MOST))));
    places.push(`${across(k).toFixed(1)},${up(shares[k - 1]).toFixed(1)}`);
  }
  svg.append(element("polyline", { class: "curve", points: places.join(" ") }));
  parent.replaceChildren(svg);
}
