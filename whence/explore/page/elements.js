// Making elements: whatever text they get stays text.

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {Record<string, string | number | boolean>} Attributes true alone, false is left out */

/**
 * @param {Element} element
 * @param {Attributes} attributes
 * @param {(Node | string)[]} children
 */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(name, attributes = {}, ...children) {
  return /** @type {any} */ (filled(document.createElement(name), attributes, children));
}

/**
 * @param {string} name
 * @param {Attributes} [attributes]
 * @param {(Node | string)[]} children
 * @returns {SVGElement}
 */
export function draw(name, attributes = {}, ...children) {
  return /** @type {SVGElement} */ (filled(document.createElementNS(SVG, name), attributes, children));
}

/** The colours of the page as it is, light or dark. */
export function inks() {
  const style = getComputedStyle(document.documentElement);
  const value = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  return { paper: value("paper"), ink: value("ink"), faint: value("faint"), line: value("line"), accent: value("accent") };
}

export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/**
 * Of several elements one is reached by Tab, the others from it by keys.
 * @param {HTMLElement | SVGElement} parent
 * @param {string} selector of the elements in it
 * @param {(at: number, key: string, n: number) => number | null} move where a key leads, or null
 * @param {(element: HTMLElement) => void} [arrive] what is done there
 */
export function rove(parent, selector, move, arrive) {
  parent.addEventListener("keydown", (event) => {
    const { key, target } = /** @type {KeyboardEvent} */ (event);
    const places = /** @type {HTMLElement[]} */ ([...parent.querySelectorAll(selector)]);
    const at = places.indexOf(/** @type {HTMLElement} */ (target));
    if (at < 0) return;
    const to = move(at, key, places.length);
    if (to === null || to < 0 || to >= places.length) return;
    event.preventDefault();
    places[at].tabIndex = -1;
    places[to].tabIndex = 0;
    places[to].focus();
    arrive?.(places[to]);
  });
}
