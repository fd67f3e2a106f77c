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
  const { x, y, byX, byY } = transform;
  const steps = new Uint8Array(points.values.length);
  for (let i = 0; i < steps.length; i += 1) steps[i] = scale.step(points.values[i]);
  for (const i of fromWeakToStrong(steps, points.shown, scale)) {
    const left = Math.round(x + byX * xs[i]);
    const top = Math.round(y + byY * ys[i]);
    stamp(image, stencil, left, top, scale.colors, 3 * steps[i]);
  }
  context.putImageData(image, 0, 0);
}

/**
 * The pixels that a disc covers, and how much of each, 0 … 1.
 * @typedef {{reach: number, across: Int8Array, down: Int8Array, cover: Float32Array}} Stencil
 *
 * @param {number} radius
 * @returns {Stencil}
 */
function disc(radius) {
  const reach = Math.ceil(radius + 0.5);
  const [across, down, cover] = [[], [], []].map((list) => /** @type {number[]} */ (list));
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const inside = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(x, y)));
      if (!inside) continue;
      across.push(x);
      down.push(y);
      cover.push(inside);
    }
  }
  return { reach, across: Int8Array.from(across), down: Int8Array.from(down), cover: Float32Array.from(cover) };
}

/**
 * Lay a disc of one colour over pixels; of one at the edge of the picture nothing is drawn.
 * @param {ImageData} image
 * @param {Stencil} stencil
 * @param {number} x
 * @param {number} y
 * @param {Uint8Array} colors
 * @param {number} color
 */
function stamp(image, stencil, x, y, colors, color) {
  const { reach, across, down, cover } = stencil;
  const { data, width, height } = image;
  if (x < reach || y < reach || x >= width - reach || y >= height - reach) return;
  const red = colors[color];
  const green = colors[color + 1];
  const blue = colors[color + 2];
  for (let k = 0; k < cover.length; k += 1) {
    const part = cover[k];
    const pixel = 4 * ((y + down[k]) * width + x + across[k]);
    data[pixel] += part * (red - data[pixel]);
    data[pixel + 1] += part * (green - data[pixel + 1]);
    data[pixel + 2] += part * (blue - data[pixel + 2]);
  }
}

/**
 * The places of shown points, those of the weakest colours first: a sort by counting.
 * @param {ArrayLike<number>} steps the number of each point's colour
 * @param {ArrayLike<number>} shown
 * @param {Scale} scale
 * @returns {Uint32Array}
 */
export function fromWeakToStrong(steps, shown, scale) {
  const last = scale.colors.length / 3 - 1;
  const strength = (/** @type {number} */ i) => Math.abs(2 * steps[i] - last);
  const ends = new Uint32Array(last + 2);
  for (let i = 0; i < steps.length; i += 1) if (shown[i]) ends[strength(i) + 1] += 1;
  for (let k = 1; k < ends.length; k += 1) ends[k] += ends[k - 1];

  const order = new Uint32Array(ends[last + 1]);
  for (let i = 0; i < steps.length; i += 1) {
    if (!shown[i]) continue;
    order[ends[strength(i)]] = i;
    ends[strength(i)] += 1;
  }
  return order;
}
