import assert from "node:assert/strict";
import { test } from "node:test";
import { agreement } from "../../brainseg/ui/viewer/panels/agreement.js";
import { attention, coefficient, gateShown } from "../../brainseg/ui/viewer/panels/attention.js";
import { errors } from "../../brainseg/ui/viewer/panels/errors.js";
import { EXTRAS, MAPS } from "../../brainseg/ui/viewer/panels/index.js";
import { input } from "../../brainseg/ui/viewer/panels/input.js";
import { overlay } from "../../brainseg/ui/viewer/panels/overlay.js";
import { Scene } from "../../brainseg/ui/viewer/scene.js";
import { model, state, view } from "./fakes.js";

const bytes = (/** @type {number[]} */ ...values) => Uint8Array.from(values);

/** A scene without a canvas. @param {object} fields @returns {any} */
const scene = (fields) => ({ view: view(), state: state(), slice: 0, at: null, cursor: null, ...fields });

test("every kind keeps the contract", () => {
  const kinds = [...MAPS, ...Object.values(EXTRAS)];
  assert.equal(new Set(kinds.map((kind) => kind.name)).size, kinds.length);
  for (const kind of kinds) {
    assert.equal(typeof kind.label, "string");
    assert.equal(typeof kind.about, "string");
    for (const method of ["title", "legend", "paint", "read"]) {
      assert.equal(typeof /** @type {any} */ (kind)[method], "function");
    }
  }
});

test("an input reads window, level and intensity in the units of the files", () => {
  const channels = [{ name: "flair", scale: 2, offset: -10, window: [0, 0] }];
  const seen = scene({
    study: { header: { channels }, arrays: { flair: { data: bytes(0, 30) } } },
    panel: { channel: "flair" },
    windows: { flair: [20, 80] },
  });
  assert.deepEqual(input.read(seen), { note: "W 120 L 90", value: "" });
  assert.deepEqual(input.read({ ...seen, at: 1 }), { note: "W 120 L 90", value: "50" });
});

test("an overlay reads area and Dice of the slice; a reason in Dice's place stays in the table", () => {
  const rows = [["36", "0.667"], ["0", { none: "both masks are empty" }]];
  const seen = scene({ model: model({ rows }), probability: () => "p 0.50" });
  assert.deepEqual(overlay.read(seen), { note: "36 pixels · Dice 0.667", value: "p 0.50" });
  assert.equal(overlay.read({ ...seen, slice: 1 }).note, "0 pixels");
  const alone = model({ columns: ["Area (pixels)"], rows: [["36"]] });
  assert.equal(overlay.read({ ...seen, model: alone }).note, "36 pixels");
});

test("errors read the four meanings", () => {
  const seen = scene({ mask: bytes(1, 1, 0, 0), truth: bytes(1, 0, 1, 0) });
  assert.deepEqual([0, 1, 2, 3].map((at) => errors.read({ ...seen, at }).value), ["TP", "FP", "FN", "TN"]);
  assert.deepEqual(errors.read(seen), {});
});

test("errors paint the four meanings in three colours, opaque enough", () => {
  /** @type {number[]} */
  let colours = [];
  errors.paint(
    scene({
      model: model(),
      mask: bytes(1, 1, 0, 0),
      truth: bytes(1, 0, 1, 0),
      alpha: 13,
      fill: (/** @type {string} */ _, /** @type {(i: number) => number} */ colourOf) => {
        colours = [0, 1, 2, 3].map(colourOf);
      },
    }),
  );
  // Alpha 140, then blue, green and red of #009e73, #d55e00 and #56b4e9.
  assert.deepEqual(colours, [0x8c739e00, 0x8c005ed5, 0x8ce9b456, 0]);
});

test("agreement reads how many of the models mark the pixel", () => {
  const votes = (/** @type {number} */ i) => [0, 2][i];
  const seen = scene({ view: view({ models: [model(), model(), model()] }), votes });
  assert.deepEqual(agreement.read({ ...seen, at: 1 }), { value: "2 of 3" });
  assert.deepEqual(agreement.read(seen), { value: "" });
});

const gates = [
  { id: "a", gate: "x0_1", level: 0 },
  { id: "b", gate: "x0_2", level: 0 },
  { id: "c", gate: "x1_1", level: 1 },
];

test("of a level the last gate is shown until another is chosen", () => {
  const gated = model({ gates });
  assert.equal(gateShown(gated, state())?.id, "b");
  assert.equal(gateShown(gated, state({ gates: { unet: "a" } }))?.id, "a");
  assert.equal(gateShown(gated, state({ level: 1, gates: { unet: "a" } }))?.id, "c");
  assert.equal(gateShown(gated, state({ level: 2 })), null);
});

test("a coefficient is read where the gate's grid lies, and nowhere else", () => {
  // Two slices of a grid of 2 x 3, ten pixels a cell, that begins five pixels above the slice.
  const data = bytes(0, 0, 0, 0, 0, 0, 51, 102, 153, 204, 255, 0);
  const header = { id: "a", grid: /** @type {any} */ ([-5, 20, 20, 30]) };
  /** @param {number} row @param {number} column */
  const at = (row, column) =>
    coefficient({ header, arrays: { attention: { shape: [2, 2, 3], data } } }, 1, { row, column });
  assert.equal(at(0, 20), 0.2);
  assert.equal(at(4, 29), 0.2);
  assert.equal(at(4, 30), 0.4);
  assert.equal(at(5, 20), 0.8);
  assert.equal(at(14, 49), 0);
  assert.equal(at(15, 49), null);
  assert.equal(at(0, 19), null);
  assert.equal(at(0, 50), null);
});

test("attention says in words what a model has not", () => {
  const said = (/** @type {any} */ fields) => {
    let sentence = "";
    attention.paint(scene({ clear: (/** @type {string} */ text) => (sentence = text), ...fields }));
    return sentence;
  };
  assert.equal(said({ model: model() }), "U-Net has no attention gates.");
  const coarse = { model: model({ gates }), state: state({ level: 2 }) };
  assert.equal(said(coarse), "U-Net has no gate at this level.");
});

test("a scene knows the voxel under the pointer by its place in the volume", () => {
  const panel = /** @type {any} */ ({
    viewer: {
      view: view(),
      state: state({ slice: 2 }),
      masks: [],
      cursor: { row: 3, column: 5 },
      lens: () => ({ a: 1, b: 0, c: 0, d: 1, e: 0, f: 0 }),
    },
    place: {},
    model: null,
    canvas: { getContext: () => ({}) },
  });
  const seen = new Scene(panel, /** @type {any} */ ({ arrays: {} }));
  assert.equal(seen.at, 2 * 24 + 3 * 6 + 5);
  panel.viewer.cursor = null;
  assert.equal(new Scene(panel, /** @type {any} */ ({ arrays: {} })).at, null);
});
