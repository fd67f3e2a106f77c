// Files of what is shown: pictures and tables.

/** @param {string[][]} rows */
export function csv(rows) {
  const cell = (/** @type {string} */ text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => row.map(cell).join(",")).join("\n");
}

/**
 * @param {Blob} blob
 * @param {string} name
 */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/**
 * Buttons that save a panel.
 * @param {HTMLElement} parent
 * @param {string} name of the files
 * @param {{png?: () => Promise<Blob>, svg?: () => string, csv?: () => string[][]}} kinds
 */
export function offerExports(parent, name, kinds) {
  const button = (/** @type {string} */ kind, /** @type {() => void} */ action) => {
    const made = document.createElement("button");
    made.textContent = kind.toUpperCase();
    made.dataset[kind] = name;
    made.setAttribute("aria-label", `save ${name} as ${kind.toUpperCase()}`);
    made.addEventListener("click", action);
    parent.append(made);
  };
  const { png, svg, csv: table } = kinds;
  if (png) button("png", async () => save(await png(), `${name}.png`));
  if (svg) button("svg", () => save(new Blob([svg()], { type: "image/svg+xml" }), `${name}.svg`));
  if (table) button("csv", () => save(new Blob([csv(table())], { type: "text/csv" }), `${name}.csv`));
}

/** @param {HTMLCanvasElement} canvas */
export function pngOfCanvas(canvas) {
  return /** @type {Promise<Blob>} */ (new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob)))));
}

const LOOKS = ["fill", "stroke", "stroke-width", "font-size", "font-family", "text-anchor"];

/**
 * An SVG of the page as a file of its own, with the page's colours written into it.
 * @param {HTMLElement} parent
 */
export function svgOfChart(parent) {
  const drawn = /** @type {SVGElement} */ (parent.querySelector("svg"));
  const copy = /** @type {SVGElement} */ (drawn.cloneNode(true));
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const copies = copy.querySelectorAll("*");
  drawn.querySelectorAll("*").forEach((part, k) => {
    const style = getComputedStyle(part);
    for (const look of LOOKS) copies[k].setAttribute(look, style.getPropertyValue(look));
  });
  return new XMLSerializer().serializeToString(copy);
}

/**
 * The same as pixels, twice as fine as the page.
 * @param {HTMLElement} parent
 */
export async function pngOfChart(parent) {
  const drawn = /** @type {SVGElement} */ (parent.querySelector("svg"));
  const { width, height } = drawn.getBoundingClientRect();
  const image = new Image(2 * width, 2 * height);
  const text = svgOfChart(parent);
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = getComputedStyle(parent).getPropertyValue("--paper");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return pngOfCanvas(canvas);
}
