// A map: a field or points over two coordinates, or a curve over one, with axes and a target.

import { drawDiscs, radiusFor } from "./discs.js";
import { inks as pageInks } from "./elements.js";
import { drawAxes, drawBar, drawCurve, drawField, drawOutline, drawRing, drawTarget, fieldImage } from "./layers.js";
import { SvgContext } from "./svg.js";

/** @typedef {import("./colors.js").Scale} Scale */
/** @typedef {import("./discs.js").Points} Points */
/** @typedef {import("./layers.js").Frame} Frame */

const MARGIN = { left: 52, right: 92, top: 8, bottom: 40 };
const REACH = 10;
const RING = 8;

export class MapView {
  /**
   * @param {HTMLElement} parent
   * @param {Frame} frame
   * @param {string} label what it shows, for those who do not see it
   */
  constructor(parent, frame, label) {
    this.frame = frame;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    parent.append(this.canvas, this.tip);

    /** @type {{values: Float64Array, resolution: number} | null} */
    this.field = null;
    /** @type {Float64Array | null} */
    this.curve = null;
    /** @type {Points | null} */
    this.points = null;
    /** @type {Scale | null} */
    this.scale = null;
    /** @type {number[] | null} */
    this.target = null;
    /** @type {number[] | null} the place of the chosen point */
    this.chosen = null;
    /** @type {number[][]} */
    this.outline = [];
    /** @type {{field: object, scale: Scale, image: OffscreenCanvas} | null} */
    this.drawnField = null;
    this.size = [0, 0];
    this.isWaiting = false;
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  // --- places ---

  /** Where the frame is on the canvas, in pixels of the page. */
  get box() {
    const { clientWidth, clientHeight } = this.canvas;
    return {
      left: MARGIN.left,
      top: MARGIN.top,
      width: Math.max(1, clientWidth - MARGIN.left - MARGIN.right),
      height: Math.max(1, clientHeight - MARGIN.top - MARGIN.bottom),
    };
  }

  /** From data to pixels: pixels = x + byX · data across, y + byY · data up. */
  transform() {
    const { low, high } = this.frame;
    const box = this.box;
    const byX = box.width / (high[0] - low[0]);
    const byY = -box.height / (high[1] - low[1]);
    return { x: box.left - byX * low[0], y: box.top - byY * high[1], byX, byY };
  }

  /** From pixels of the page to data, within the frame. */
  toData(/** @type {number} */ left, /** @type {number} */ top) {
    const { low, high } = this.frame;
    const { x, y, byX, byY } = this.transform();
    const within = (/** @type {number} */ value, /** @type {number} */ k) => Math.max(low[k], Math.min(high[k], value));
    return [within((left - x) / byX, 0), within((top - y) / byY, 1)];
  }

  /** From data to pixels of the page. */
  toPixels(/** @type {number[]} */ [across, up]) {
    const { x, y, byX, byY } = this.transform();
    return [x + byX * across, y + byY * up];
  }

  /** The shown point nearest to pixels of the page, null if none is near. */
  nearest(/** @type {number} */ left, /** @type {number} */ top) {
    if (!this.points) return null;
    const { columns, shown } = this.points;
    const { x, y, byX, byY } = this.transform();
    let best = REACH * REACH;
    let place = null;
    for (let i = 0; i < shown.length; i += 1) {
      if (!shown[i]) continue;
      const distance = (x + byX * columns[0][i] - left) ** 2 + (y + byY * columns[1][i] - top) ** 2;
      if (distance < best) {
        best = distance;
        place = i;
      }
    }
    return place;
  }

  // --- drawing ---

  /** Draw in the next frame, however often this is called before. */
  draw() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    requestAnimationFrame(() => {
      this.isWaiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const ratio = window.devicePixelRatio || 1;
    const canvas = this.canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    // A new size clears a canvas and costs as much as all that is drawn.
    if (size[0] !== this.size[0] || size[1] !== this.size[1]) [canvas.width, canvas.height] = this.size = size;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paint(context, ratio);
    // Where the frame is, for those who point at it from without.
    const { left, top, width: across, height: up } = this.box;
    canvas.dataset.box = [left, top, across, up].join(",");
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} ratio pixels of the screen by pixels of the page
   */
  paint(context, ratio) {
    const box = this.box;
    const inks = pageInks();
    const { x, y, byX, byY } = this.transform();
    const toPixels = (/** @type {number} */ across, /** @type {number} */ up) => [x + byX * across, y + byY * up];
    context.fillStyle = inks.paper;
    context.fillRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);

    const { field, scale, points } = this;
    if (field && scale) {
      if (this.drawnField?.field !== field || this.drawnField.scale !== scale) {
        this.drawnField = { field, scale, image: fieldImage(field, scale) };
      }
      drawField(context, this.drawnField.image, box);
    }
    drawAxes(context, this.frame, box, toPixels, inks, this.canvas.clientHeight);
    if (this.curve) drawCurve(context, this.curve, this.frame, toPixels, inks);
    if (points && scale) {
      const transform = { x: x * ratio, y: y * ratio, byX: byX * ratio, byY: byY * ratio };
      const radius = ratio * radiusFor(box.width * box.height, points.values.length);
      if (context instanceof SvgContext) context.discs(points, scale, transform, radius);
      else drawDiscs(context, points, scale, transform, radius);
    }
    if (scale && !this.curve) drawBar(context, scale, box, inks);
    if (this.outline.length) drawOutline(context, this.outline, toPixels, inks);
    if (this.chosen) drawRing(context, toPixels(this.chosen[0], this.chosen[1]), RING, inks);
    if (this.target) drawTarget(context, toPixels(this.target[0], this.target[1]), inks);
  }

  /** The map as an SVG file: what is a line or a letter stays one. */
  svg() {
    const context = new SvgContext(this.canvas.clientWidth, this.canvas.clientHeight);
    this.paint(/** @type {CanvasRenderingContext2D} */ (/** @type {unknown} */ (context)), 1);
    return context.text();
  }

  // --- tips ---

  showTip(/** @type {string} */ text, /** @type {number} */ left, /** @type {number} */ top) {
    this.tip.textContent = text;
    this.tip.hidden = false;
    const isRight = left > this.canvas.clientWidth / 2;
    this.tip.style.left = isRight ? "" : `${left + 14}px`;
    this.tip.style.right = isRight ? `${this.canvas.clientWidth - left + 14}px` : "";
    this.tip.style.top = `${top + 10}px`;
  }

  hideTip() {
    this.tip.hidden = true;
  }
}
