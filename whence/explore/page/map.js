// A map: a field or points over two coordinates, with axes, a colour bar and a target.

import { format, ticks } from "./numbers.js";

/** @typedef {import("./colors.js").Scale} Scale */
/** @typedef {{low: number[], high: number[], names: string[]}} Frame x and y of the data */

const MARGIN = { left: 52, right: 86, top: 8, bottom: 40 };
const BAR = { gap: 12, width: 12, stops: 32 };
const REACH = 10;

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
    /** @type {{columns: Float64Array[], values: Float64Array, shown: Uint8Array} | null} */
    this.points = null;
    /** @type {Scale | null} */
    this.scale = null;
    /** @type {number[] | null} */
    this.target = null;
    /** @type {number | null} */
    this.chosen = null;
    /** @type {number[][]} */
    this.outline = [];
    new ResizeObserver(() => this.draw()).observe(parent);
  }

  // --- places ---

  get box() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return {
      left: MARGIN.left,
      top: MARGIN.top,
      width: Math.max(1, width - MARGIN.left - MARGIN.right),
      height: Math.max(1, height - MARGIN.top - MARGIN.bottom),
    };
  }

  /** From data to pixels of the page. */
  toPixels(/** @type {number} */ x, /** @type {number} */ y) {
    const { low, high } = this.frame;
    const box = this.box;
    return [
      box.left + ((x - low[0]) / (high[0] - low[0])) * box.width,
      box.top + ((high[1] - y) / (high[1] - low[1])) * box.height,
    ];
  }

  /** From pixels of the page to data, within the frame. */
  toData(/** @type {number} */ left, /** @type {number} */ top) {
    const { low, high } = this.frame;
    const box = this.box;
    const within = (/** @type {number} */ t) => Math.max(0, Math.min(1, t));
    const across = within((left - box.left) / box.width);
    const down = within((top - box.top) / box.height);
    return [low[0] + across * (high[0] - low[0]), high[1] - down * (high[1] - low[1])];
  }

  /** The shown point nearest to pixels of the page, null if none is near. */
  nearest(/** @type {number} */ left, /** @type {number} */ top) {
    if (!this.points) return null;
    const { columns, shown } = this.points;
    let best = REACH * REACH;
    let place = null;
    for (let i = 0; i < shown.length; i += 1) {
      if (!shown[i]) continue;
      const [x, y] = this.toPixels(columns[0][i], columns[1][i]);
      const distance = (x - left) ** 2 + (y - top) ** 2;
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
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow() {
    const ratio = window.devicePixelRatio || 1;
    const canvas = this.canvas;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const style = getComputedStyle(canvas);
    this.ink = style.getPropertyValue("--ink").trim();
    this.faint = style.getPropertyValue("--faint").trim();
    this.line = style.getPropertyValue("--line").trim();
    this.paper = style.getPropertyValue("--paper").trim();

    context.scale(ratio, ratio);
    context.fillStyle = this.paper;
    context.fillRect(0, 0, width, height);
    if (this.field && this.scale) this.drawField(context, this.field, this.scale);
    this.drawAxes(context);
    if (this.points && this.scale) this.drawPoints(context, this.points, this.scale, ratio);
    if (this.scale) this.drawBar(context, this.scale);
    this.drawMarks(context);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {{values: Float64Array, resolution: number}} field rows from the lowest y up
   * @param {Scale} scale
   */
  drawField(context, field, scale) {
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

    // Values are at the middles of cells: half of the outermost ones is cut off.
    const box = this.box;
    context.save();
    context.beginPath();
    context.rect(box.left, box.top, box.width, box.height);
    context.clip();
    const [cellX, cellY] = [box.width / (n - 1), box.height / (n - 1)];
    context.drawImage(
      small, box.left - cellX / 2, box.top - cellY / 2, box.width + cellX, box.height + cellY,
    );
    context.restore();
  }

  /**
   * Discs, the strongest on top, straight into pixels: a path for each would take ten times as long.
   * @param {CanvasRenderingContext2D} context
   * @param {{columns: Float64Array[], values: Float64Array, shown: Uint8Array}} points
   * @param {Scale} scale
   * @param {number} ratio pixels of the screen by pixels of the page
   */
  drawPoints(context, points, scale, ratio) {
    const { columns, values, shown } = points;
    const { width, height } = context.canvas;
    const image = context.getImageData(0, 0, width, height);
    // Discs that cover about a third of the map together, within what can be seen and told apart.
    const { width: across, height: up } = this.box;
    const covering = Math.sqrt(across * up / values.length) / 3;
    const radius = ratio * Math.max(1.3, Math.min(4.5, covering));
    const stencil = disc(radius);

    for (const i of fromWeakToStrong(values, shown, scale)) {
      const [x, y] = this.toPixels(columns[0][i], columns[1][i]);
      const color = 3 * scale.step(values[i]);
      stamp(image, stencil, Math.round(x * ratio), Math.round(y * ratio), scale.colors, color);
    }
    context.putImageData(image, 0, 0);
  }

  /** @param {CanvasRenderingContext2D} context */
  drawAxes(context) {
    const box = this.box;
    const { low, high, names } = this.frame;
    context.strokeStyle = this.line ?? "";
    context.fillStyle = this.faint ?? "";
    context.font = "12px system-ui, sans-serif";
    context.lineWidth = 1;
    context.strokeRect(box.left - 0.5, box.top - 0.5, box.width + 1, box.height + 1);

    context.textAlign = "center";
    context.textBaseline = "top";
    for (const tick of ticks(low[0], high[0])) {
      const [x] = this.toPixels(tick, low[1]);
      context.fillText(format(tick), x, box.top + box.height + 5);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of ticks(low[1], high[1])) {
      const [, y] = this.toPixels(low[0], tick);
      context.fillText(format(tick), box.left - 6, y);
    }

    context.fillStyle = this.ink ?? "";
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(names[0], box.left + box.width / 2, this.canvas.clientHeight - 2);
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
   */
  drawBar(context, scale) {
    const box = this.box;
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

    context.fillStyle = this.faint ?? "";
    context.font = "12px system-ui, sans-serif";
    context.textAlign = "left";
    const middle = (scale.low + scale.high) / 2;
    const labels = [
      [scale.high, box.top + 6],
      [middle, box.top + box.height / 2],
      [scale.low, box.top + box.height - 6],
    ];
    context.textBaseline = "middle";
    for (const [value, top] of labels) context.fillText(format(value), left + BAR.width + 4, top);
  }

  /** The target, the chosen point, and a region's outline. */
  drawMarks(/** @type {CanvasRenderingContext2D} */ context) {
    if (this.outline.length) {
      context.beginPath();
      for (const [x, y] of this.outline) context.lineTo(...this.toPixels(x, y));
      context.closePath();
      context.strokeStyle = this.ink ?? "";
      context.setLineDash([5, 4]);
      context.lineWidth = 1.5;
      context.stroke();
      context.setLineDash([]);
    }
    if (this.chosen !== null && this.points) {
      const { columns } = this.points;
      const [x, y] = this.toPixels(columns[0][this.chosen], columns[1][this.chosen]);
      this.ring(context, x, y, 8);
    }
    if (this.target) {
      const [x, y] = this.toPixels(this.target[0], this.target[1]);
      this.ring(context, x, y, 6);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        this.stroke(context, () => {
          context.moveTo(x + 6 * dx, y + 6 * dy);
          context.lineTo(x + 13 * dx, y + 13 * dy);
        });
      }
    }
  }

  ring(/** @type {CanvasRenderingContext2D} */ context, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ radius) {
    this.stroke(context, () => context.arc(x, y, radius, 0, 2 * Math.PI));
  }

  /** Dark within light, so that it shows on every colour. */
  stroke(/** @type {CanvasRenderingContext2D} */ context, /** @type {() => void} */ path) {
    for (const [color, width] of /** @type {[string, number][]} */ ([[this.paper, 4], [this.ink, 1.8]])) {
      context.beginPath();
      path();
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke();
    }
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

/**
 * How much of each pixel a disc covers, 0 … 255.
 * @param {number} radius
 */
function disc(radius) {
  const reach = Math.ceil(radius + 0.5);
  const side = 2 * reach + 1;
  const cover = new Uint8Array(side * side);
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const inside = Math.max(0, Math.min(1, radius + 0.5 - Math.hypot(x, y)));
      cover[(y + reach) * side + x + reach] = Math.round(255 * inside);
    }
  }
  return { reach, side, cover };
}

/**
 * Lay a disc of one colour over pixels.
 * @param {ImageData} image
 * @param {{reach: number, side: number, cover: Uint8Array}} stencil
 * @param {number} x
 * @param {number} y
 * @param {Uint8Array} colors
 * @param {number} color
 */
function stamp(image, stencil, x, y, colors, color) {
  const { reach, side, cover } = stencil;
  const { data, width, height } = image;
  for (let dy = -reach; dy <= reach; dy += 1) {
    const row = y + dy;
    if (row < 0 || row >= height) continue;
    for (let dx = -reach; dx <= reach; dx += 1) {
      const column = x + dx;
      const alpha = cover[(dy + reach) * side + dx + reach] / 255;
      if (!alpha || column < 0 || column >= width) continue;
      const pixel = 4 * (row * width + column);
      for (let c = 0; c < 3; c += 1) {
        data[pixel + c] += alpha * (colors[color + c] - data[pixel + c]);
      }
    }
  }
}

/**
 * The places of shown points, those of the weakest colours first: a sort by counting.
 * @param {Float64Array} values
 * @param {Uint8Array} shown
 * @param {Scale} scale
 */
function fromWeakToStrong(values, shown, scale) {
  const steps = scale.colors.length / 3;
  const middle = (steps - 1) / 2;
  /** @type {number[][]} */
  const byStrength = Array.from({ length: steps }, () => []);
  for (let i = 0; i < values.length; i += 1) {
    if (!shown[i]) continue;
    const strength = Math.round(2 * Math.abs(scale.step(values[i]) - middle));
    byStrength[Math.min(steps - 1, strength)].push(i);
  }
  return byStrength.flat();
}

/**
 * Whether a place is within a closed line (crossing number).
 * @param {number} x
 * @param {number} y
 * @param {number[][]} line
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
