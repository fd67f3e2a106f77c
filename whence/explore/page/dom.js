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

/** What is wrong now, by what was tried. @type {Map<string, string>} */
const problems = new Map();

/**
 * Say what went wrong, or that nothing did: what is good of one thing says nothing of another.
 * @param {unknown} error null where nothing is wrong
 * @param {string} [what] was tried
 */
export function report(error, what = "") {
  // What fetch throws where nobody answers.
  const isGone = error instanceof TypeError && /fetch/i.test(error.message);
  if (error === null) problems.delete(what);
  else problems.set(what, isGone ? "The server does not answer: is whence explore still running?" : String(error));
  const panel = byId("problem");
  panel.hidden = !problems.size;
  panel.textContent = [...new Set(problems.values())].join(" ");
}
