import assert from "node:assert/strict";
import { test } from "node:test";
import { loops } from "../../brainseg/ui/viewer/contour.js";

/** A mask drawn with letters: # is inside. @param {string[]} rows */
const drawn = (rows) => Uint8Array.from(rows.join(""), (c) => Number(c === "#"));

/**
 * Twice the area inside a loop, positive where the mask lies on its right-hand side (y counts down).
 * @param {number[]} loop @param {number} stride
 */
function area(loop, stride) {
  return loop.reduce((sum, corner, i) => {
    const after = loop[(i + 1) % loop.length];
    const [x, y] = [corner % stride, Math.floor(corner / stride)];
    const [nextX, nextY] = [after % stride, Math.floor(after / stride)];
    assert.equal(Math.abs(x - nextX) + Math.abs(y - nextY), 1, "a step follows one edge of a pixel");
    return sum + x * nextY - nextX * y;
  }, 0) / 2;
}

test("one pixel has four corners, passed clockwise", () => {
  assert.deepEqual(loops(drawn(["...", ".#.", "..."]), 0, 3, 3), [[5, 6, 10, 9]]);
});

test("an empty mask has no outline", () => {
  assert.deepEqual(loops(new Uint8Array(12), 0, 3, 4), []);
});

test("a hole is a loop the other way round", () => {
  const found = loops(drawn(["###", "#.#", "###"]), 0, 3, 3);
  assert.deepEqual(found.map((loop) => area(loop, 4)).sort((a, b) => a - b), [-1, 9]);
});

test("pixels that touch at a corner are both outlined", () => {
  const found = loops(drawn(["#.", ".#"]), 0, 2, 2);
  assert.equal(found.reduce((sum, loop) => sum + area(loop, 3), 0), 2);
  assert.equal(found.flat().length, 8);
});

test("a mask that fills the slice is outlined along its edge", () => {
  const [loop, ...others] = loops(new Uint8Array(12).fill(1), 0, 3, 4);
  assert.deepEqual(others, []);
  assert.equal(area(loop, 5), 12);
  assert.equal(loop.length, 14);
});

test("only the slice asked for is outlined", () => {
  const mask = new Uint8Array(18);
  mask[9] = 1;
  assert.deepEqual(loops(mask, 0, 3, 3), []);
  assert.deepEqual(loops(mask, 9, 3, 3), [[0, 1, 5, 4]]);
});

test("loops hold exactly the pixels of any mask, and each edge once", () => {
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let n = 0; n < 50; n++) {
    const [height, width] = [1 + Math.floor(random() * 8), 1 + Math.floor(random() * 8)];
    const mask = Uint8Array.from({ length: height * width }, () => Number(random() < 0.5));
    const found = loops(mask, 0, height, width);
    const pixels = mask.reduce((a, b) => a + b, 0);
    assert.equal(found.reduce((sum, loop) => sum + area(loop, width + 1), 0), pixels);
    const at = (/** @type {number} */ y, /** @type {number} */ x) =>
      y >= 0 && x >= 0 && y < height && x < width ? mask[y * width + x] : 0;
    let edges = 0;
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x <= width; x++) {
        edges += Number(at(y, x) !== at(y - 1, x)) + Number(at(y, x) !== at(y, x - 1));
      }
    }
    assert.equal(found.flat().length, edges);
  }
});
