// What a canvas draws, as an SVG file: the few calls that layers.js makes.

import { draw } from "./elements.js";

const NAMESPACE = "http://www.w3.org/2000/svg";
const ANCHORS = { left: "start", center: "middle", right: "end" };
const BASELINES = { top: "hanging", middle: "central", bottom: "text-after-edge" };

/** @typedef {string | Gradient} Fill */

class Gradient {
  /** @param {number[]} ends */
  constructor(ends) {
    this.ends = ends;
    /** @type {[number, string][]} */
    this.stops = [];
  }

  addColorStop(/** @type {number} */ place, /** @type {string} */ color) {
    this.stops.push([place, color]);
  }
}

export class SvgContext {
  /**
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    this.root = draw("svg", { xmlns: NAMESPACE, viewBox: `0 0 ${width} ${height}`, width, height });
    this.parent = this.root;
    /** @type {Fill} */
    this.fillStyle = "";
    this.strokeStyle = "";
    this.lineWidth = 1;
    this.font = "";
    /** @type {keyof typeof ANCHORS} */
    this.textAlign = "left";
    /** @type {keyof typeof BASELINES} */
    this.textBaseline = "middle";
    this.dash = "";
    this.path = "";
    this.names = 0;
  }

  /** The file. */
  text() {
    return new XMLSerializer().serializeToString(this.root);
  }

  // --- state ---

  save() {
    const group = draw("g", {});
    this.parent.append(group);
    this.parent = group;
  }

  restore() {
    this.parent = /** @type {SVGElement} */ (this.parent.parentNode);
  }

  translate(/** @type {number} */ x, /** @type {number} */ y) {
    this.transform(`translate(${x} ${y})`);
  }

  rotate(/** @type {number} */ angle) {
    this.transform(`rotate(${(angle * 180) / Math.PI})`);
  }

  transform(/** @type {string} */ text) {
    this.parent.setAttribute("transform", `${this.parent.getAttribute("transform") ?? ""} ${text}`);
  }

  setLineDash(/** @type {number[]} */ lengths) {
    this.dash = lengths.join(" ");
  }

  createLinearGradient(/** @type {number[]} */ ...ends) {
    return new Gradient(ends);
  }

  // --- paths ---

  beginPath() {
    this.path = "";
  }

  moveTo(/** @type {number} */ x, /** @type {number} */ y) {
    this.path += `M${round(x)} ${round(y)}`;
  }

  lineTo(/** @type {number} */ x, /** @type {number} */ y) {
    this.path += `L${round(x)} ${round(y)}`;
  }

  closePath() {
    this.path += "Z";
  }

  /** A whole circle: no other arc is drawn. */
  arc(/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ radius) {
    const half = `a${radius} ${radius} 0 1 1`;
    this.path += `M${round(x + radius)} ${round(y)}${half} ${-2 * radius} 0${half} ${2 * radius} 0`;
  }

  rect(/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ width, /** @type {number} */ height) {
    this.path += `M${x} ${y}h${width}v${height}h${-width}Z`;
  }

  clip() {
    const name = this.name();
    const clip = draw("clipPath", { id: name });
    clip.append(draw("path", { d: this.path }));
    this.root.append(clip);
    this.parent.setAttribute("clip-path", `url(#${name})`);
  }

  stroke() {
    this.put("path", {
      d: this.path, fill: "none", stroke: this.strokeStyle,
      "stroke-width": this.lineWidth, "stroke-dasharray": this.dash || "none",
    });
  }

  // --- shapes ---

  strokeRect(/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ width, /** @type {number} */ height) {
    this.put("rect", { x, y, width, height, fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth });
  }

  fillRect(/** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ width, /** @type {number} */ height) {
    this.put("rect", { x, y, width, height, fill: this.fill() });
  }

  fillText(/** @type {string} */ text, /** @type {number} */ x, /** @type {number} */ y) {
    const drawn = this.put("text", {
      x: round(x), y: round(y), fill: this.fill(), "font-family": "system-ui, sans-serif", "font-size": 12,
      "text-anchor": ANCHORS[this.textAlign], "dominant-baseline": BASELINES[this.textBaseline],
    });
    drawn.textContent = text;
  }

  drawImage(/** @type {OffscreenCanvas} */ image, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ width, /** @type {number} */ height) {
    // Only a canvas of the page says its pixels as text.
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width, image.height];
    canvas.getContext("2d")?.drawImage(image, 0, 0);
    this.put("image", { x, y, width, height, href: canvas.toDataURL(), preserveAspectRatio: "none" });
  }

  /**
   * @param {import("./discs.js").Points} points
   * @param {import("./colors.js").Scale} scale
   * @param {import("./discs.js").Transform} transform
   * @param {number} radius
   */
  discs(points, scale, transform, radius) {
    const { columns, values, shown } = points;
    const byStrength = Array.from(shown, (_, i) => i).filter((i) => shown[i]);
    byStrength.sort((a, b) => Math.abs(values[a]) - Math.abs(values[b]));
    for (const i of byStrength) {
      const color = 3 * scale.step(values[i]);
      const [r, g, b] = scale.colors.subarray(color, color + 3);
      this.put("circle", {
        cx: round(transform.x + transform.byX * columns[0][i]),
        cy: round(transform.y + transform.byY * columns[1][i]),
        r: round(radius), fill: `rgb(${r}, ${g}, ${b})`,
      });
    }
  }

  // --- parts ---

  fill() {
    if (!(this.fillStyle instanceof Gradient)) return this.fillStyle;
    const [x1, y1, x2, y2] = this.fillStyle.ends;
    const name = this.name();
    const gradient = draw("linearGradient", { id: name, gradientUnits: "userSpaceOnUse", x1, y1, x2, y2 });
    for (const [offset, color] of this.fillStyle.stops) {
      gradient.append(draw("stop", { offset, "stop-color": color }));
    }
    this.root.append(gradient);
    return `url(#${name})`;
  }

  name() {
    this.names += 1;
    return `part${this.names}`;
  }

  /**
   * @param {string} name
   * @param {Record<string, string | number>} attributes
   */
  put(name, attributes) {
    const made = draw(name, attributes);
    this.parent.append(made);
    return made;
  }
}

const round = (/** @type {number} */ value) => Number(value.toFixed(2));
