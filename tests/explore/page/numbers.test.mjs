import assert from "node:assert/strict";
import test from "node:test";

import { diverging, sequential } from "../../../whence/explore/page/colors.js";
import { isWithin, nearestPlace, smoothed } from "../../../whence/explore/page/geometry.js";
import {
  cumulativeShares, format, quantileOfSizes, sizesInOrder, strongest, ticks,
} from "../../../whence/explore/page/numbers.js";

test("numbers are short", () => {
  const said = [0, 1, -0.5, 1234.6, 12345, 1e-4, -2.5e-7, 0.00123, NaN, Infinity].map(format);
  assert.deepEqual(said, ["0", "1", "−0.5", "1230", "1.23e4", "1e−4", "−2.5e−7", "0.00123", "–", "–"]);
});

test("quantiles are of sizes", () => {
  const sizes = sizesInOrder([-4, 3, 2, -1, NaN, Infinity]);
  assert.deepEqual([...sizes], [4, 3, 2, 1]);
  assert.equal(quantileOfSizes(sizes, 0), 1);
  assert.equal(quantileOfSizes(sizes, 0.5), 3);
  assert.equal(quantileOfSizes(sizes, 1), 4);
  assert.equal(quantileOfSizes(sizesInOrder([]), 0.5), 0);
});

test("shares are those of the strongest", () => {
  assert.deepEqual([...cumulativeShares(sizesInOrder([1, -2, 1]))], [0.5, 0.75, 1]);
  assert.deepEqual([...cumulativeShares(sizesInOrder([0, 0]))], [0, 0]);
});

test("the strongest come first, whatever their sign", () => {
  assert.deepEqual(strongest([1, -5, 3, 0, 4], 3), [1, 4, 2]);
  assert.deepEqual(strongest([2, 1], 10), [0, 1]);
  const many = Array.from({ length: 5000 }, (_, i) => Math.sin(7 * i) * i);
  const sorted = many.map((_, i) => i).sort((a, b) => Math.abs(many[b]) - Math.abs(many[a]));
  assert.deepEqual(strongest(many, 20), sorted.slice(0, 20));
});

test("ticks are round and within", () => {
  assert.deepEqual(ticks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(ticks(-1.03, 1.03), [-1, -0.5, 0, 0.5, 1]);
  assert.deepEqual(ticks(0, 3e-5, 3), [0, 1e-5, 2e-5, 3e-5]);
});

test("a diverging scale is symmetric, and clipped at its ends", () => {
  for (const kind of ["linear", "log"]) {
    const scale = diverging(2, kind, false);
    assert.deepEqual([scale.step(-9), scale.step(-2), scale.step(2), scale.step(9)], [0, 0, 255, 255]);
    for (const value of [0.001, 0.1, 1]) {
      assert.ok(Math.abs(scale.step(value) + scale.step(-value) - 255) <= 1);
    }
    assert.ok(scale.step(0.1) < scale.step(1));
  }
  // Small values show on a logarithmic scale, and not on a linear one.
  assert.ok(diverging(2, "log", false).step(0.02) > diverging(2, "linear", false).step(0.02) + 20);
  assert.equal(diverging(0, "linear", true).step(0), 128);
});

test("a sequential scale goes from its lowest to its highest", () => {
  const scale = sequential(-1, 3);
  assert.deepEqual([scale.step(-1), scale.step(3), scale.step(7)], [0, 255, 255]);
  assert.equal(scale.colors.length, 768);
  assert.deepEqual([...scale.colors.subarray(0, 3)], [0x44, 0x01, 0x54]);
});

test("a place is within a line or not", () => {
  const square = [[0, 0], [1, 0], [1, 1], [0, 1]];
  assert.ok(isWithin(0.5, 0.5, square));
  assert.ok(!isWithin(1.5, 0.5, square));
  const cup = [[0, 0], [3, 0], [3, 2], [2, 2], [2, 1], [1, 1], [1, 2], [0, 2]];
  assert.ok(isWithin(0.5, 1.5, cup));
  assert.ok(!isWithin(1.5, 1.5, cup));
});

test("the nearest place is so in parts of the ranges", () => {
  const columns = [[0, 1, 0.5], [0, 0, 80]];
  const box = { low: [0, 0], high: [1, 100] };
  assert.equal(nearestPlace(columns, [0.4, 70], box), 2);
  assert.equal(nearestPlace(columns, [0.9, 10], box), 1);
});

test("smoothing keeps the sum, and leaves out what is not shown", () => {
  const columns = [[0.1, 0.5, 0.99], [0.2, 0.5, 3.9]];
  const frame = { low: [0, 0], high: [1, 4] };
  const n = 16;
  const field = smoothed(columns, [1, -3, 5], [1, 1, 0], frame, n);
  const sum = field.reduce((total, value) => total + value, 0) * (1 / n) * (4 / n);
  assert.ok(Math.abs(sum - -2) < 1e-12);
  assert.ok(field[2 * n + 8] === 0 || field[8 * n + 8] < field[0]);
  assert.ok(field[n * n - 1] > -1e-6);
});
