// Places on a map, without a page.

/**
 * Whether a place is within a closed line (crossing number).
 * @param {number} x
 * @param {number} y
 * @param {number[][]} line
 * @returns {boolean}
 */
export function isWithin(x, y, line) {
  let inside = false;
  for (let i = 0, j = line.length - 1; i < line.length; j = i, i += 1) {
    const [xi, yi] = line[i];
    const [xj, yj] = line[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

/**
 * The sums of values per unit of area, smoothed: what many points do together, place by place.
 * @param {ArrayLike<number>[]} columns x and y of the points
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} shown 0 for points that are left out
 * @param {{low: number[], high: number[]}} frame
 * @param {number} n cells along each side
 * @returns {Float64Array} rows from the lowest y up
 */
export function smoothed(columns, values, shown, frame, n) {
  const { low, high } = frame;
  const [width, height] = [high[0] - low[0], high[1] - low[1]];
  const cells = new Float64Array(n * n);
  const cell = (/** @type {number} */ t) => Math.max(0, Math.min(n - 1, Math.floor(t * n)));
  for (let i = 0; i < values.length; i += 1) {
    if (!shown[i]) continue;
    const column = cell((columns[0][i] - low[0]) / width);
    const row = cell((columns[1][i] - low[1]) / height);
    cells[row * n + column] += values[i];
  }

  const area = (width / n) * (height / n);
  return blurred(cells, n, BLUR).map((value) => value / area);
}

/**
 * The number of the place nearest to another, each coordinate in parts of its range.
 * @param {ArrayLike<number>[]} columns
 * @param {ArrayLike<number>} at
 * @param {{low: number[], high: number[]}} box
 * @returns {number}
 */
export function nearestPlace(columns, at, { low, high }) {
  let best = Infinity;
  let nearest = 0;
  for (let row = 0; row < columns[0].length; row += 1) {
    let distance = 0;
    for (let k = 0; k < columns.length; k += 1) {
      distance += ((columns[k][row] - at[k]) / (high[k] - low[k] || 1)) ** 2;
    }
    if (distance < best) {
      best = distance;
      nearest = row;
    }
  }
  return nearest;
}

/** Standard deviation of the smoothing, in cells. */
const BLUR = 2;

/**
 * A table smoothed by a Gaussian, first along rows, then along columns. What would leave at an edge
 * stays in its last cell, so that sums are kept.
 * @param {Float64Array} cells
 * @param {number} n
 * @param {number} deviation
 */
function blurred(cells, n, deviation) {
  const reach = Math.ceil(3 * deviation);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, k) => Math.exp(-((k - reach) ** 2) / (2 * deviation ** 2)));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const spread = (/** @type {Float64Array} */ from, /** @type {number} */ along, /** @type {number} */ between) => {
    const to = new Float64Array(n * n);
    for (let line = 0; line < n; line += 1) {
      for (let k = 0; k < n; k += 1) {
        const value = from[line * between + k * along];
        if (!value) continue;
        for (let d = -reach; d <= reach; d += 1) {
          const place = Math.max(0, Math.min(n - 1, k + d));
          to[line * between + place * along] += (value * weights[d + reach]) / total;
        }
      }
    }
    return to;
  };
  return spread(spread(cells, 1, n), n, 1);
}
