import assert from "node:assert/strict";
import { test } from "node:test";
import { mapsShown, places } from "../../brainseg/ui/viewer/panels/index.js";
import { chooseMap, levels, stateOf, stops } from "../../brainseg/ui/viewer/state.js";
import { model, state, view } from "./fakes.js";

const reference = { colour: "#0072b2", largest: 7, rows: [] };
const models = [
  model({ largest: 3, worst: 1 }),
  model({ name: "unetpp", title: "U-Net++", largest: null, worst: 2 }),
];
/** @param {import("../../brainseg/ui/viewer/types.d.ts").View} shown @param {ReturnType<typeof state>} set */
const ids = (shown, set) => places(shown, set).map((row) => row.map((place) => place.id));

test("a study is found again as it was left", () => {
  const { study } = view();
  const first = stateOf(study);
  assert.equal(first.slice, study.first);
  first.slice = 9;
  assert.equal(stateOf(study), first);
  assert.equal(stateOf({ ...study, id: "another" }).slice, study.first);
});

test("a click shows one map, a click with Shift one more or one less, and never none", () => {
  assert.deepEqual(chooseMap(["overlay"], "errors", false), ["errors"]);
  assert.deepEqual(chooseMap(["overlay"], "errors", true), ["overlay", "errors"]);
  assert.deepEqual(chooseMap(["overlay", "errors"], "errors", true), ["overlay"]);
  assert.deepEqual(chooseMap(["errors"], "errors", true), ["errors"]);
});

test("the tour stops at each model that has a slice to show, and at the reference", () => {
  assert.deepEqual(stops(view({ models, reference }), "largest"), [
    { slice: 3, text: "Largest area of U-Net: slice 4 of 10" },
    { slice: 7, text: "Largest area of the reference: slice 8 of 10" },
  ]);
  assert.deepEqual(stops(view({ models }), "worst").map((stop) => stop.text), [
    "Lowest Dice of U-Net: slice 2 of 10",
    "Lowest Dice of U-Net++: slice 3 of 10",
  ]);
});

test("levels are those of all models, finest first", () => {
  const gates = (/** @type {number[]} */ all) => all.map((level) => ({ id: "", gate: "", level }));
  const gated = [model({ gates: gates([2, 0]) }), model({ gates: gates([1, 0]) })];
  assert.deepEqual(levels({ models: gated }), [0, 1, 2]);
});

test("before any model has run the inputs are shown, whatever is set", () => {
  assert.deepEqual(ids(view(), state({ inputs: false })), [["input-pre", "input-flair", "input-post"]]);
});

test("panels of the study stand above a row for each map", () => {
  const shown = ids(view({ models, reference }), state({ maps: ["errors", "overlay"] }));
  assert.deepEqual(shown, [
    ["input-pre", "input-flair", "input-post", "agreement"],
    ["overlay-unet", "overlay-unetpp"],
    ["errors-unet", "errors-unetpp"],
  ]);
  assert.deepEqual(ids(view({ models }), state({ inputs: false, agreement: false })), [
    ["overlay-unet", "overlay-unetpp"],
  ]);
});

test("errors need a reference; the overlay stands in, once", () => {
  const set = { maps: ["errors", "overlay"] };
  const names = (/** @type {any} */ shown) => mapsShown(shown, set).map((kind) => kind.name);
  assert.deepEqual(names({ reference }), ["overlay", "errors"]);
  assert.deepEqual(names({ reference: null }), ["overlay"]);
});

test("the panel with the focus stands alone, if it is shown at all", () => {
  const shown = view({ models });
  assert.deepEqual(ids(shown, state({ focus: "overlay-unetpp" })), [["overlay-unetpp"]]);
  assert.equal(ids(shown, state({ focus: "attention-unet" })).length, 2);
});
