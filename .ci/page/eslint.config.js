// The page runs in browsers as it is written: no build, and nothing but what browsers have.
import js from "@eslint/js";

const browser = [
  "atob", "Blob", "devicePixelRatio", "document", "fetch", "getComputedStyle", "HTMLButtonElement", "HTMLElement", "history",
  "Image", "ImageData", "location", "matchMedia", "OffscreenCanvas", "Option",
  "requestAnimationFrame", "ResizeObserver", "setTimeout", "URL", "URLSearchParams", "window", "XMLSerializer",
  "Buffer",
];

export default [
  js.configs.recommended,
  {
    languageOptions: {
      ecmaVersion: 2023, sourceType: "module",
      globals: Object.fromEntries(browser.map((name) => [name, "readonly"])),
    },
    rules: {
      curly: ["error", "multi-line"], eqeqeq: "error", "no-var": "error", "prefer-const": "error",
      "no-implicit-globals": "error", "max-lines": ["error", 520], complexity: ["error", 16],
      "no-restricted-properties": ["error", { property: "innerHTML" }, { property: "outerHTML" }, { property: "insertAdjacentHTML" }],
      "no-restricted-syntax": ["error", "CallExpression[callee.name='eval']"],
    },
  },
];
