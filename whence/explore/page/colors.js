// Colours of values. Blue and orange are told apart by every common kind of colour blindness.

const DIVERGING = {
  light: ["#0b3c8c", "#3f7fcf", "#a9c4e4", "#d9d9d9", "#f2b48c", "#d9622b", "#8c2d04"],
  dark: ["#9cc6ff", "#4a90e2", "#35577f", "#484848", "#80512f", "#e07b39", "#ffbe94"],
};
const SEQUENTIAL = [
  "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
];
const STEPS = 256;

/** Decades of a logarithmic scale, below its largest value. */
export const DECADES = 3;

/**
 * 256 colours from anchors, as bytes r, g, b.
 * @param {string[]} anchors
 * @returns {Uint8Array}
 */
function table(anchors) {
  const bytes = anchors.map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));
  const colors = new Uint8Array(3 * STEPS);
  for (let i = 0; i < STEPS; i += 1) {
    const place = (i / (STEPS - 1)) * (anchors.length - 1);
    const below = Math.min(Math.floor(place), anchors.length - 2);
    for (let c = 0; c < 3; c += 1) {
      const [from, to] = [bytes[below][c], bytes[below + 1][c]];
      colors[3 * i + c] = Math.round(from + (place - below) * (to - from));
    }
  }
  return colors;
}

/**
 * A scale of values: their colour's number, and what a colour bar says.
 * @typedef {{colors: Uint8Array, step: (value: number) => number, low: number, high: number}} Scale
 */

/**
 * A scale from −limit to limit, linear or logarithmic towards either end.
 * @param {number} limit
 * @param {"linear" | "log"} kind
 * @param {boolean} isDark
 * @returns {Scale}
 */
export function diverging(limit, kind, isDark) {
  const colors = table(isDark ? DIVERGING.dark : DIVERGING.light);
  const least = limit / 10 ** DECADES;
  const width = Math.log1p(limit / least);
  const step = (/** @type {number} */ value) => {
    let t = 0;
    if (limit) {
      t = kind === "log" ? (Math.sign(value) * Math.log1p(Math.abs(value) / least)) / width : value / limit;
    }
    return Math.round((Math.max(-1, Math.min(1, t)) + 1) * 0.5 * (STEPS - 1));
  };
  return { colors, step, low: -limit, high: limit };
}

/**
 * A linear scale from low to high.
 * @param {number} low
 * @param {number} high
 * @returns {Scale}
 */
export function sequential(low, high) {
  const width = high - low;
  const step = (/** @type {number} */ value) => {
    const t = width ? (value - low) / width : 0.5;
    return Math.round(Math.max(0, Math.min(1, t)) * (STEPS - 1));
  };
  return { colors: table(SEQUENTIAL), step, low, high };
}

/**
 * Black or white, whichever is of more contrast to a colour (WCAG 2).
 * @param {ArrayLike<number>} color bytes r, g, b
 */
export function onTop(color) {
  const [red, green, blue] = Array.from(color, (byte) => {
    const part = byte / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  // Where the contrast is the same: √(0.05 · 1.05) − 0.05.
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}
