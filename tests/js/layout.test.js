import assert from "node:assert/strict";
import { test } from "node:test";
import { fitPanels, frameAround, lens, toCanvas, toSlice } from "../../brainseg/ui/viewer/layout.js";

const study = { height: 100, width: 80, aspect: 1 };

test("without a box the whole slice is shown", () => {
  assert.deepEqual(frameAround(study, []), { top: 0, left: 0, height: 100, width: 80 });
});

test("a frame holds every box and stays inside the slice", () => {
  for (const aspect of [0.5, 1, 2]) {
    const boxes = [[0, 0, 5, 5], [95, 75, 100, 80], [10, 30, 90, 32], [40, 2, 42, 79]];
    for (const [top, left, bottom, right] of boxes) {
      const frame = frameAround({ ...study, aspect }, [[top, left, bottom, right], [45, 40, 50, 45]]);
      assert.ok(frame.top >= 0 && frame.top <= Math.min(top, 45));
      assert.ok(frame.left >= 0 && frame.left <= Math.min(left, 40));
      assert.ok(frame.top + frame.height >= Math.max(bottom, 50) && frame.top + frame.height <= 100);
      assert.ok(frame.left + frame.width >= Math.max(right, 45) && frame.left + frame.width <= 80);
    }
  }
});

test("a narrow box is widened until four frames fit a screen", () => {
  const frame = frameAround({ height: 256, width: 256, aspect: 1 }, [[28, 118, 228, 138]]);
  assert.ok(frame.height / frame.width <= 1.12);
  assert.ok(Math.abs(frame.left + frame.width / 2 - 128) <= 1);
});

test("the frame's corners lie in the canvas's, mirrored where that is asked for", () => {
  const frame = { top: 10, left: 20, height: 50, width: 40 };
  const canvas = { width: 400, height: 300 };
  for (const rows of [false, true]) {
    for (const columns of [false, true]) {
      const through = lens(frame, [rows, columns], canvas);
      assert.deepEqual(toCanvas(through, 20, 10), { x: columns ? 400 : 0, y: rows ? 300 : 0 });
      assert.deepEqual(toCanvas(through, 60, 60), { x: columns ? 0 : 400, y: rows ? 0 : 300 });
      const { x, y } = toCanvas(through, 33.5, 44.25);
      const back = toSlice(through, x, y);
      assert.ok(Math.abs(back.x - 33.5) < 1e-9 && Math.abs(back.y - 44.25) < 1e-9);
    }
  }
});

test("rows of panels fill the width, or less where the height is short", () => {
  assert.deepEqual(fitPanels([4, 4], false, 1, { across: 1000, down: 5000 }), {
    columns: 4,
    size: 244, // (1000 - 3 gaps of 8) / 4
    flow: false,
  });
  assert.equal(fitPanels([4, 4], false, 1, { across: 2000, down: 800 }).size, 348); // (800 - 8) / 2 - 48
});

test("a single panel takes all there is", () => {
  const fitted = fitPanels([1], true, 1, { across: 1000, down: 648 });
  assert.deepEqual(fitted, { columns: 1, size: 600, flow: true });
});

test("panels that would be stamps leave their rows", () => {
  const { columns, size, flow } = fitPanels([4, 4], false, 1, { across: 400, down: 600 });
  assert.equal(flow, true);
  assert.equal(columns, 2);
  assert.equal(size, 196);
});
