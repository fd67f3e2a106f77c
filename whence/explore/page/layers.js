// What a map is drawn of, from the ground up: a field or a curve, axes, points, a colour bar, marks.
// Each takes what draws (a canvas or an SVG, see svg.js), the place of the frame and the colours.

import { format, ticks } from "./numbers.js";

/** @typedef {import("./colors.js").Scale} Scale */
/** @typedef {{low: number[], high: number[], names: string[]}} Frame x and y of the data */
/** @typedef {{left: number, top: number, width: number, height: number}} Box pixels of the frame */
/** @typedef {{ink: string, faint: string, line: string, paper: string, accent: string}} Inks */
/** @typedef {(x: number, y: number) => number[]} ToPixels */

const BAR = { gap: 12, width: 12, stops: 32 };
const FONT = "12px system-ui, sans-serif";

/**
 * A field as an image of one pixel for each value.
 * @param {{values: Float64Array, resolution: number}} field rows from the lowest y up
 * @param {Scale} scale
 * @returns {OffscreenCanvas}
 */
export function fieldImage(field, scale) {
  const n = field.resolution;
  const image = new ImageData(n, n);
  for (let row = 0; row < n; row += 1) {
    for (let column = 0; column < n; column += 1) {
      const value = field.values[row * n + column];
      if (!Number.isFinite(value)) continue;
      const pixel = 4 * ((n - 1 - row) * n + column);
      const color = 3 * scale.step(value);
      for (let c = 0; c < 3; c += 1) image.data[pixel + c] = scale.colors[color + c];
      image.data[pixel + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(n, n);
  small.getContext("2d")?.putImageData(image, 0, 0);
  return small;
}

/**
 * Values are at the middles of cells: half of the outermost ones is cut off.
 * @param {CanvasRenderingContext2D} context
 * @param {OffscreenCanvas} image
 * @param {Box} box
 */
export function drawField(context, image, box) {
  const n = image.width;
  const [cellX, cellY] = [box.width / (n - 1), box.height / (n - 1)];
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  context.drawImage(image, box.left - cellX / 2, box.top - cellY / 2, box.width + cellX, box.height + cellY);
  context.restore();
}

/**
 * A field along a line.
 * @param {CanvasRenderingContext2D} context
 * @param {Float64Array} values
 * @param {Frame} frame
 * @param {ToPixels} toPixels
 * @param {Inks} inks
 */
export function drawCurve(context, values, frame, toPixels, inks) {
  const step = (frame.high[0] - frame.low[0]) / (values.length - 1);
  context.strokeStyle = inks.accent;
  context.lineWidth = 2;
  context.beginPath();
  let isDown = false;
  values.forEach((value, i) => {
    const [x, y] = toPixels(frame.low[0] + i * step, value);
    if (Number.isFinite(value) && isDown) context.lineTo(x, y);
    else if (Number.isFinite(value)) context.moveTo(x, y);
    isDown = Number.isFinite(value);
  });
  context.stroke();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Frame} frame
 * @param {Box} box
 * @param {ToPixels} toPixels
 * @param {Inks} inks
 * @param {number} bottom pixels of the page
 */
export function drawAxes(context, frame, box, toPixels, inks, bottom) {
  const { low, high, names } = frame;
  context.strokeStyle = inks.line;
  context.fillStyle = inks.faint;
  context.font = FONT;
  context.lineWidth = 1;
  context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);

  context.textAlign = "center";
  context.textBaseline = "top";
  // As many labels as there is room for.
  for (const tick of ticks(low[0], high[0], Math.max(2, Math.min(5, box.width / 60)))) {
    const [x] = toPixels(tick, low[1]);
    context.fillText(format(tick), x, box.top + box.height + 5);
  }
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of ticks(low[1], high[1])) {
    const [, y] = toPixels(low[0], tick);
    context.fillText(format(tick), box.left - 6, y);
  }

  context.fillStyle = inks.ink;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(names[0], box.left + box.width / 2, bottom - 2);
  context.textBaseline = "middle";
  context.save();
  context.translate(10, box.top + box.height / 2);
  context.rotate(-Math.PI / 2);
  context.fillText(names[1], 0, 0);
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Scale} scale
 * @param {Box} box
 * @param {Inks} inks
 */
export function drawBar(context, scale, box, inks) {
  const left = box.left + box.width + BAR.gap;
  const gradient = context.createLinearGradient(0, box.top + box.height, 0, box.top);
  const last = scale.colors.length / 3 - 1;
  for (let stop = 0; stop <= BAR.stops; stop += 1) {
    const k = Math.round((stop / BAR.stops) * last);
    const [r, g, b] = scale.colors.subarray(3 * k, 3 * k + 3);
    gradient.addColorStop(stop / BAR.stops, `rgb(${r}, ${g}, ${b})`);
  }
  context.fillStyle = gradient;
  context.fillRect(left, box.top, BAR.width, box.height);

  context.fillStyle = inks.faint;
  context.font = FONT;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const middle = (scale.low + scale.high) / 2;
  context.fillText(format(scale.high), left + BAR.width + 4, box.top + 6);
  context.fillText(format(middle), left + BAR.width + 4, box.top + box.height / 2);
  context.fillText(format(scale.low), left + BAR.width + 4, box.top + box.height - 6);
}

/**
 * The line around a region.
 * @param {CanvasRenderingContext2D} context
 * @param {number[][]} outline
 * @param {ToPixels} toPixels
 * @param {Inks} inks
 */
export function drawOutline(context, outline, toPixels, inks) {
  context.beginPath();
  for (const [k, [x, y]] of outline.entries()) {
    const [left, top] = toPixels(x, y);
    if (k) context.lineTo(left, top);
    else context.moveTo(left, top);
  }
  context.closePath();
  context.strokeStyle = inks.ink;
  context.setLineDash([5, 4]);
  context.lineWidth = 1.5;
  context.stroke();
  context.setLineDash([]);
}

/**
 * A ring around a place.
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} place pixels
 * @param {number} radius
 * @param {Inks} inks
 */
export function drawRing(context, [x, y], radius, inks) {
  onEveryColor(context, inks, () => {
    context.moveTo(x + radius, y);
    context.arc(x, y, radius, 0, 2 * Math.PI);
  });
}

/**
 * A ring with a cross hair: the place that is explained.
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} place pixels
 * @param {Inks} inks
 */
export function drawTarget(context, [x, y], inks) {
  drawRing(context, [x, y], 6, inks);
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    onEveryColor(context, inks, () => {
      context.moveTo(x + 6 * dx, y + 6 * dy);
      context.lineTo(x + 13 * dx, y + 13 * dy);
    });
  }
}

/**
 * Dark within light, so that a line shows on every colour.
 * @param {CanvasRenderingContext2D} context
 * @param {Inks} inks
 * @param {() => void} path
 */
function onEveryColor(context, inks, path) {
  for (const [color, width] of /** @type {[string, number][]} */ ([[inks.paper, 4], [inks.ink, 1.8]])) {
    context.beginPath();
    path();
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke();
  }
}
