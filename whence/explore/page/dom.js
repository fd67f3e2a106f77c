// Elements of the page.

export const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
export const select = (/** @type {string} */ id) => /** @type {HTMLSelectElement} */ (byId(id));
export const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id));
export const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/**
 * An element with what it has in it; text stays text.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Record<string, string>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/**
 * Fill a list of choices.
 * @param {HTMLSelectElement} list
 * @param {string[]} names
 */
export function fill(list, names) {
  list.append(...names.map((name) => new Option(name, name)));
}

/**
 * Ask the newest question only: while one is being answered, the last of the others waits.
 * @param {() => Promise<void>} ask
 */
export function newest(ask) {
  let isBusy = false;
  let isWanted = false;
  return async () => {
    isWanted = true;
    if (isBusy) return;
    isBusy = true;
    while (isWanted) {
      isWanted = false;
      try {
        await ask();
        byId("problem").hidden = true;
      } catch (error) {
        showProblem(error);
      }
    }
    isBusy = false;
  };
}

export function showProblem(/** @type {unknown} */ error) {
  // What fetch throws where nobody answers.
  const isGone = error instanceof TypeError && /fetch/i.test(error.message);
  const message = isGone ? "The server does not answer: is whence explore still running?" : String(error);
  byId("problem").textContent = message;
  byId("problem").hidden = false;
}
