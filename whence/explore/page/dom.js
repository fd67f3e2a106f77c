// The page's own elements, and what goes wrong.

export const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));
export const select = (/** @type {string} */ id) => /** @type {HTMLSelectElement} */ (byId(id));
export const input = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id));

/**
 * Fill a list of choices.
 * @param {HTMLSelectElement} list
 * @param {string[]} names
 */
export function fill(list, names) {
  list.append(...names.map((name) => new Option(name, name)));
}

/** Say what went wrong, or nothing where nothing did. */
export function report(/** @type {unknown} */ error) {
  const panel = byId("problem");
  panel.hidden = error === null;
  // What fetch throws where nobody answers.
  const isGone = error instanceof TypeError && /fetch/i.test(error.message);
  panel.textContent = isGone ? "The server does not answer: is whence explore still running?" : String(error ?? "");
}
