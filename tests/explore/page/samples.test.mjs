import assert from "node:assert/strict";
import test from "node:test";

import { csv } from "../../../whence/explore/page/exports.js";
import { extremes } from "../../../whence/explore/page/extremes.js";
import { binned, shownGroups } from "../../../whence/explore/page/label_histogram.js";
import { labelName, predictionName, signed } from "../../../whence/explore/page/labels.js";
import { newest } from "../../../whence/explore/page/newest.js";
import { read, write } from "../../../whence/explore/page/sample_state.js";
import { decisionTable, dropped } from "../../../whence/explore/page/suspects.js";

const model = {
  n_training: 10, n_test: 5, target: "label", is_classifier: true, groups: ["cat", "dog"], classes: [3, 7],
};

test("an address is read as it was written", () => {
  const state = {
    sample: 4, order: "loss", start: 2, label: 0, predicted: 1, from: 1, reduce: "sum", by: "loss", first: 5,
    decisions: new Map([[1, { kind: "accept" }], [2, { kind: "relabel", label: -1.5 }], [9, { kind: "drop" }]]),
  };
  const text = write(state);
  assert.match(text, /accept=1&relabel=2:-1\.5&drop=9/);
  const again = read(`#${text}`, model);
  const sorted = (/** @type {Map<number, object>} */ map) => [...map].sort(([a], [b]) => a - b);
  assert.deepEqual({ ...again, decisions: sorted(again.decisions) }, { ...state, decisions: sorted(state.decisions) });
});

test("what means nothing in an address is passed over", () => {
  const state = read("#sample=5&label=2&order=mood&first=10&drop=10,-1,x,3&relabel=4,5:,6:y,7:3", model);
  assert.deepEqual([state.sample, state.label, state.order, state.first], [0, null, "number", 0]);
  assert.deepEqual([...state.decisions], [[3, { kind: "drop" }], [7, { kind: "relabel", label: 3 }]]);
  assert.equal(write(read("", model)), "sample=0");
});

test("fields with commas, quotes and lines are quoted", () => {
  assert.equal(csv([["a", 1.5, null], ["b,c", 'd"e', "f\ng"]]), 'a,1.5,\n"b,c","d""e","f\ng"\n');
});

test("extremes are of one sign, the largest first", () => {
  const values = Float64Array.from([0.5, -2, 0, 3, -1, 0.1]);
  const all = () => true;
  assert.deepEqual(extremes(values, 1, 2, all), [3, 0]);
  assert.deepEqual(extremes(values, -1, 9, all), [1, 4]);
  assert.deepEqual(extremes(values, 1, 9, (i) => i !== 3), [0, 5]);
});

test("histograms count every sample of a group once", () => {
  const { limit, counts, sums } = binned([1, -1, 0, 0.999, 5], [0, 0, 0, 1, -1], 2);
  assert.equal(limit, 5);
  assert.deepEqual(counts.map((of) => of.reduce((sum, count) => sum + count, 0)), [3, 1]);
  assert.deepEqual([...sums], [0, 0.999]);
  // Zero is in the middle, its like on either side at equal distance.
  const { counts: [row] } = binned([1, -1, 0], [0, 0, 0], 1);
  assert.deepEqual([row[0], row[(row.length - 1) / 2], row[row.length - 1]], [1, 1, 1]);
  assert.equal(binned([0, 0], [0, 0], 1).counts[0].reduce((sum, count) => sum + count, 0), 2);
});

test("of many groups the largest are shown, and the target's own", () => {
  const sizes = Float64Array.from({ length: 30 }, (_, k) => k);
  const shown = shownGroups(sizes, 3);
  assert.equal(shown.length, 12);
  assert.deepEqual([shown[0], shown[1], shown[11]], [3, 19, 29]);
  assert.deepEqual(shownGroups(Float64Array.from([1, 5]), -1), [0, 1]);
});

test("labels have names, values are numbers", () => {
  const row = { index: 0, group: 1, label: 7, predicted: 3, predicted_group: 0, loss: 1 };
  assert.deepEqual([labelName(model, row), predictionName(model, row)], ["dog", "cat"]);
  const regression = { ...model, target: "value", is_classifier: false };
  assert.deepEqual([labelName(regression, row), predictionName(regression, row)], ["7", "3"]);
  assert.equal(labelName(model, { group: -1, label: -100 }), "none");
  assert.deepEqual([signed(0.5), signed(-0.5), signed(0)], ["+0.5", "−0.5", "0"]);
});

test("decisions are tables and lists", () => {
  const decisions = new Map([[8, { kind: "drop" }], [2, { kind: "relabel", label: 3 }], [1, { kind: "drop" }]]);
  const training = { group: [0, 0, 1, 0, 0, 0, 0, 0, 1, 0], label: [3, 3, 7, 3, 3, 3, 3, 3, 7, 3] };
  assert.deepEqual(dropped(decisions), [1, 8]);
  assert.deepEqual(decisionTable(model, decisions, training), [
    ["index", "decision", "label", "new_label", "label_name", "new_label_name"],
    [1, "drop", 3, "", "cat", ""],
    [2, "relabel", 7, 3, "dog", "cat"],
    [8, "drop", 7, "", "dog", ""],
  ]);
});

test("of questions that come meanwhile the newest is asked", async () => {
  let [wanted, release] = [0, () => {}];
  const asked = [];
  const errors = [];
  const ask = newest(async () => {
    asked.push(wanted);
    await new Promise((resolve) => { release = () => resolve(undefined); });
    if (wanted === 4) throw new Error("four");
  }, (error) => errors.push(error?.message ?? null));
  wanted = 1;
  const done = ask();
  for (wanted = 2; wanted < 4; wanted += 1) ask();
  release();
  await new Promise((resolve) => setTimeout(resolve));
  release();
  await done;
  assert.deepEqual(asked, [1, 4]);
  assert.deepEqual(errors, ["four", "four"]);
});
