// Many discs, straight into pixels: a path for each would take ten times as long.

/** @typedef {import("./colors.js").Scale} Scale */
/** @typedef {{columns: ArrayLike<number>[], values: ArrayLike<number>, shown: ArrayLike<number>}} Points */
/** @typedef {{x: number, y: number, byX: number, byY: number}} Transform pixels = x + byX · data, … */

/**
 * The radius of discs that cover about a third of an area together, within what can be seen.
 * @param {number} area
 * @param {number} count
 * @returns {number}
 */
export function radiusFor(area, count) {
  return Math.max(1.3, Math.min(4.5, Math.sqrt(area / Math.max(1, count)) / 3));
}

/**
 * Draw points as discs, the strongest colours on top.
 * @param {CanvasRenderingContext2D} context
 * @param {Points} points
 * @param {Scale} scale
 * @param {Transform} transform to pixels of the screen
 * @param {number} radius in pixels of the screen
 */
export function drawDiscs(context, points, scale, transform, radius) {
  const { width, height } = context.canvas;
  const image = context.getImageData(0, 0, width, height);
  const stencil = disc(radius);
  const [xs, ys] = points.columns;
  const { values } = points;
  const { x, y, byX, byY } = transform;
  for (const i of fromWeakToStrong(values, points.shown, scale)) {
    const left = Math.round(x + byX * xs[i]);
    const top = Math.round(y + byY * ys[i]);
    stamp(image, stencil, left, top, scale.colors, 3 * scale.step(values[i]));
  }
  context.putImageData(image, 0, 0);
}

/**
 * How much of each pixel a disc covers, 0 … 1.
 * @param {number} radius
 */
function disc(radius) {
  const reach = Math.ceil(radius + 0.5);
  const side = 2 * reach + 1;
  const cover = new Float32Array(side * side);
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const inside = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(x, y)));
      cover[(y + reach) * side + x + reach] = inside;
    }
  }
  return { reach, side, cover };
}

/**
 * Lay a disc of one colour over pixels.
 * @param {ImageData} image
 * @param {{reach: number, side: number, cover: Float32Array}} stencil
 * @param {number} x
 * @param {number} y
 * @param {Uint8Array} colors
 * @param {number} color
 */
function stamp(image, stencil, x, y, colors, color) {
  const { reach, side, cover } = stencil;
  const { data, width, height } = image;
  const [red, green, blue] = [colors[color], colors[color + 1], colors[color + 2]];
  for (let dy = -reach; dy <= reach; dy += 1) {
    const row = y + dy;
    if (row < 0 || row >= height) continue;
    for (let dx = -reach; dx <= reach; dx += 1) {
      const column = x + dx;
      const part = cover[(dy + reach) * side + dx + reach];
      if (!part || column < 0 || column >= width) continue;
      const pixel = 4 * (row * width + column);
      data[pixel] += part * (red - data[pixel]);
      data[pixel + 1] += part * (green - data[pixel + 1]);
      data[pixel + 2] += part * (blue - data[pixel + 2]);
    }
  }
}

/**
 * The places of shown points, those of the weakest colours first: a sort by counting.
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} shown
 * @param {Scale} scale
 * @returns {Uint32Array}
 */
export function fromWeakToStrong(values, shown, scale) {
  const last = scale.colors.length / 3 - 1;
  const strengths = new Uint16Array(values.length);
  const ends = new Uint32Array(last + 2);
  for (let i = 0; i < values.length; i += 1) {
    if (!shown[i]) continue;
    strengths[i] = Math.min(last, Math.round(Math.abs(2 * scale.step(values[i]) - last)));
    ends[strengths[i] + 1] += 1;
  }
  for (let k = 1; k < ends.length; k += 1) ends[k] += ends[k - 1];

  const order = new Uint32Array(ends[last + 1]);
  for (let i = 0; i < values.length; i += 1) {
    if (!shown[i]) continue;
    order[ends[strengths[i]]] = i;
    ends[strengths[i]] += 1;
  }
  return order;
}
