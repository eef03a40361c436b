import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { has, hold, pack } from "../../brainseg/ui/viewer/packs.js";
import { shared } from "../../brainseg/ui/viewer/shared.js";

const message = { header: { kind: "pack", id: "p", blocks: {} }, body: new Uint8Array() };
const arrival = () => new Promise((done) => shared.news.addEventListener("pack", done, { once: true }));

beforeEach(() => shared.packs.clear());

test("a pack is there once it is unpacked, and that is news", async () => {
  const arrived = arrival();
  hold(message, {});
  assert.equal(has("p"), true);
  assert.equal(pack("p"), null);
  await arrived;
  assert.deepEqual(pack("p"), { header: message.header, arrays: {} });
});

test("a pack stays while any owner wants it, and for a moment after the last", async (t) => {
  // Time passes when `wait` says so.
  /** @type {(() => void)[]} */
  const later = [];
  t.mock.method(globalThis, "setTimeout", (/** @type {() => void} */ act) => later.push(act));
  const wait = () => later.splice(0).forEach((act) => act());
  const arrived = arrival();
  const [first, second] = [hold(message, {}), hold(message, {})];
  await arrived;
  first();
  wait();
  assert.equal(has("p"), true);
  second();
  assert.equal(has("p"), true);
  const third = hold(message, {}); // the next copy of the element comes in time
  wait();
  assert.notEqual(pack("p"), null);
  third();
  wait();
  assert.equal(has("p"), false);
});
