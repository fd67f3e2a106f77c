// Numbers for reading: formats, quantiles, shares. No page, so that they can be tested alone.

/**
 * A number in three significant digits, as short as it goes.
 * @param {number} value
 * @returns {string}
 */
export function format(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const isPlain = size >= 1e-3 && size < 1e4;
  const [digits, exponent] = value.toExponential(2).split("e");
  const text = isPlain ? String(Number(value.toPrecision(3))) : `${Number(digits)}e${Number(exponent)}`;
  return text.replaceAll("-", "−");
}

/**
 * The finite sizes |v|, the largest first.
 * @param {ArrayLike<number>} values
 * @returns {Float64Array}
 */
export function sizesInOrder(values) {
  const sizes = new Float64Array(values.length);
  let count = 0;
  for (let i = 0; i < values.length; i += 1) {
    if (!Number.isFinite(values[i])) continue;
    sizes[count] = Math.abs(values[i]);
    count += 1;
  }
  return sizes.subarray(0, count).sort().reverse();
}

/**
 * The size below which a share of all lies.
 * @param {Float64Array} sizes the largest first
 * @param {number} share between 0 and 1
 * @returns {number}
 */
export function quantileOfSizes(sizes, share) {
  if (!sizes.length) return 0;
  const above = sizes.length - 1 - Math.floor(share * sizes.length);
  return sizes[Math.max(0, above)];
}

/**
 * Sums of the k largest sizes over the sum of all, k = 1 … n.
 * @param {Float64Array} sizes the largest first
 * @returns {Float64Array}
 */
export function cumulativeShares(sizes) {
  let total = 0;
  for (const size of sizes) total += size;
  let sum = 0;
  return sizes.map((size) => {
    sum += size;
    return total ? sum / total : 0;
  });
}

/**
 * Ticks at round numbers, about n of them, from low to high.
 * @param {number} low
 * @param {number} high
 * @param {number} [n]
 * @returns {number[]}
 */
export function ticks(low, high, n = 5) {
  const rough = (high - low) / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough * (1 - 1e-9)) ?? power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const places = [];
  for (let k = first; k <= last; k += 1) places.push(Number((k * step).toPrecision(12)));
  return places;
}

/**
 * The places of the k largest sizes, the largest first.
 * @param {ArrayLike<number>} values
 * @param {number} k
 * @returns {number[]}
 */
export function strongest(values, k) {
  /** @type {number[]} */
  const places = [];
  for (let i = 0; i < values.length; i += 1) {
    const size = Math.abs(values[i]);
    const isFull = places.length === k;
    if (Number.isNaN(size) || (isFull && size <= Math.abs(values[places[k - 1]]))) continue;
    // Into its place among the k, of which the smallest goes.
    let place = places.length;
    while (place && Math.abs(values[places[place - 1]]) < size) place -= 1;
    places.splice(place, 0, i);
    if (places.length > k) places.pop();
  }
  return places;
}
