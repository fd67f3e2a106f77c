import assert from "node:assert/strict";
import test from "node:test";

import { numbersOf, reportSource, sliced } from "../../../whence/explore/page/report_source.js";

const table = (kind, array, shape, unit) => ({
  kind, shape, data: Buffer.from(array.buffer).toString("base64"), ...(unit ? { unit } : {}),
});
const run = {
  coordinates: ["x", "y"], low: [0, 0], high: [1, 2], terms: ["pde", "data"], answers: ["u"], n_points: 3,
  can: ["field"],
};
const points = Float64Array.from([0, 1, 1, 0, 0, 2, 0, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]);
const units = table("f8", Float64Array.from([0.5, 2]), [2]);
const recorded = {
  run,
  points: table("f8", points, [7, 3]),
  targets: table("f8", Float64Array.from([0, 1, 0, 2]), [2, 2]),
  target_grid: null, target_rows: null,
  influence: { u: table("i2", Int16Array.from([2, -4, 6, 1, 1, 1]), [2, 3], units) },
  values: { u: table("f8", Float64Array.from([7, 8]), [2]) },
  quality: { u: "good" }, field_grid: [2, 3],
  fields: { u: table("f4", Float32Array.from([0, 1, 2, 3, 4, 5]), [6]) },
};

test("rounded rows come back in their units", () => {
  assert.deepEqual([...numbersOf(recorded.influence.u)], [1, -2, 3, 2, 2, 2]);
});

test("the nearest target answers", async () => {
  const source = reportSource(recorded);
  assert.deepEqual([...await source.influenceAt("u", [0.2, 0.3])], [1, -2, 3]);
  assert.deepEqual([...await source.influenceAt("u", [0.8, 1.9])], [2, 2, 2]);
  assert.deepEqual(await source.answer("u", [1, 2]), { value: 8, quality: "good" });
  assert.deepEqual([...await source.influenceOf("pde", 1, "u", { axes: "0,1", through: "0,0" })], [-2, 2]);
  await assert.rejects(source.influenceAt("v", [0, 0]), /has u, not v/);
});

test("a region adds up", async () => {
  const source = reportSource(recorded);
  const region = await source.region({ pde: [1], data: [0] }, "u", [0, 0]);
  assert.deepEqual(region, { size: 2, share: 5 / 6, first_order: 1, exact: null });
});

test("a field is laid out as a map, whichever axis goes up", async () => {
  const values = Float64Array.from([0, 1, 2, 3, 4, 5]);
  const upright = sliced(values, [2, 3], run, { axes: "0,1", through: "0,0" });
  assert.deepEqual([...upright], [0, 3, 1, 4, 2, 5]);
  const turned = sliced(values, [2, 3], run, { axes: "1,0", through: "0,0" });
  assert.deepEqual([...turned], [0, 1, 2, 3, 4, 5]);
  const line = sliced(values, [2, 3], run, { axes: "1", through: "0.9,0" });
  assert.deepEqual([...line], [3, 4, 5]);
});
