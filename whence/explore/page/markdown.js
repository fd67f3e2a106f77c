// A page that whence writes, for reading: headings, paragraphs, lists and tables. Whatever else is
// in it stays text.

import { make } from "./elements.js";

/**
 * @param {string} text
 * @returns {HTMLElement[]}
 */
export function rendered(text) {
  const blocks = text.split(/\n\s*\n/).map((block) => block.trim());
  // The figure is a file of its own.
  return blocks.filter((block) => block && !block.startsWith("![")).map(renderedBlock);
}

function renderedBlock(/** @type {string} */ block) {
  const heading = /^(#+)\s+(.*)$/.exec(block);
  if (heading) return make(heading[1].length === 1 ? "h3" : "h4", {}, plain(heading[2]));
  const lines = block.split("\n");
  if (lines.every((line) => line.startsWith("|"))) return renderedTable(lines);
  if (!lines[0].startsWith("- ")) return make("p", {}, plain(lines.join(" ")));
  const items = block.slice(2).split(/\n- /);
  return make("ul", {}, ...items.map((item) => make("li", {}, plain(item.replaceAll("\n", " ")))));
}

function renderedTable(/** @type {string[]} */ lines) {
  // The second line is the rule below the names.
  const [names, , ...rows] = lines.map((line) => line.split("|").slice(1, -1).map((cell) => plain(cell.trim())));
  return tableOf([names, ...rows]);
}

/**
 * A table whose first row are names, which scrolls where it is wider than the page.
 * @param {string[][]} rows
 */
export function tableOf([names, ...rows]) {
  const cells = (/** @type {"th" | "td"} */ kind, /** @type {string[]} */ texts) => make("tr", {}, ...texts.map((text) => make(kind, {}, text)));
  const table = make("table", {}, make("thead", {}, cells("th", names)), make("tbody", {}, ...rows.map((row) => cells("td", row))));
  return make("div", { class: "scroll", tabindex: "0" }, table);
}

/** Text without the marks of emphasis and code. */
function plain(/** @type {string} */ text) {
  return text.replaceAll("`", "").replace(/\*([^*]+)\*/g, "$1");
}
