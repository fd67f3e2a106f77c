import assert from "node:assert/strict";
import test from "node:test";

// As much of a page as making elements takes.
class Made {
  constructor(name) {
    this.name = name;
    this.children = [];
  }

  setAttribute() {}

  append(...children) {
    this.children.push(...children);
  }

  text() {
    return this.children.map((child) => (typeof child === "string" ? child : child.text())).join("|");
  }
}
globalThis.document = { createElement: (name) => new Made(name) };
const { rendered } = await import("../../../whence/explore/page/markdown.js");

test("blocks are told apart, and what is markup stays text", () => {
  const made = rendered("# A `title`\n\nSome *normal* <b>text</b>\nof two lines.\n\n- one\n- two\n  more\n\n![figure](x.png)\n\n| a | b |\n| --- | --- |\n| 1 | 2 |");
  assert.deepEqual(made.map((block) => block.name), ["h3", "p", "ul", "div"]);
  assert.deepEqual(made.map((block) => block.text()), ["A title", "Some normal <b>text</b> of two lines.", "one|two   more", "a|b|1|2"]);
});
