// tests/test_ui_wire.py compares what Python wrote with what this reads; here stands what Python never does.
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { parse, unpack } from "../../brainseg/ui/viewer/wire.js";

/** @param {object} header @param {Uint8Array} body */
function message(header, body = new Uint8Array()) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(4 + text.length + body.length);
  new DataView(bytes.buffer).setUint32(0, text.length, true);
  bytes.set(text, 4);
  bytes.set(body, 4 + text.length);
  return bytes;
}

/** @param {number[]} values @param {number[]} shape @param {string} coding */
function block(values, shape, coding) {
  const body = deflateSync(Uint8Array.from(values));
  return message({ kind: "pack", blocks: { a: { shape, coding, start: 0, size: body.length } } }, body);
}

test("a message that begins inside a larger buffer is read from there", () => {
  const bytes = message({ kind: "view", blocks: {}, text: "å" }, Uint8Array.of(1, 2, 3));
  const larger = new Uint8Array(bytes.length + 5);
  larger.set(bytes, 5);
  const { header, body } = parse(larger.subarray(5));
  assert.equal(header.text, "å");
  assert.deepEqual([...body], [1, 2, 3]);
});

test("differences add up along rows, then along columns, plane by plane", async () => {
  // Two planes of 2 x 2; 250 + 10 goes round to 4.
  const { arrays } = await unpack(parse(block([250, 10, 1, 1, 7, 0, 0, 0], [2, 2, 2], "plane")));
  assert.deepEqual([...arrays.a.data], [250, 4, 251, 6, 7, 7, 7, 7]);
});

test("bits stand first voxel highest and what fills the last byte is left out", async () => {
  const { arrays } = await unpack(parse(block([0b10100000, 0b01111111], [10], "bits")));
  assert.deepEqual([...arrays.a.data], [1, 0, 1, 0, 0, 0, 0, 0, 0, 1]);
});

test("a block shorter or longer than its shape is refused", async () => {
  await assert.rejects(unpack(parse(block([1, 2, 3], [2, 2], "raw"))), /a: 3 bytes instead of 4/);
  await assert.rejects(unpack(parse(block([1, 2], [10, 2], "bits"))), /a: 2 bytes instead of 3/);
});

test("a block that was cut off is refused", async () => {
  const bytes = block([1, 2, 3, 4], [4], "raw");
  await assert.rejects(unpack(parse(bytes.subarray(0, bytes.length - 3))));
});
