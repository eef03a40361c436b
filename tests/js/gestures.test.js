import assert from "node:assert/strict";
import { test } from "node:test";
import { keys } from "../../brainseg/ui/viewer/gestures/keys.js";
import { point } from "../../brainseg/ui/viewer/gestures/point.js";
import { wheel } from "../../brainseg/ui/viewer/gestures/wheel.js";
import { windowLevel } from "../../brainseg/ui/viewer/gestures/window.js";
import { event, FakeViewer } from "./fakes.js";

/** @type {any} */ (globalThis).Element ??= class {
  /** @param {boolean} own */
  constructor(own) {
    this.matches = () => own;
  }
};

const turn = (/** @type {FakeViewer} */ viewer, /** @type {number} */ deltaY, fields = {}) => {
  const turned = event("wheel", { deltaY, deltaMode: 0, ctrlKey: false, ...fields });
  viewer.grid.dispatchEvent(turned);
  return turned;
};

test("a notch of the wheel is one slice, however large", () => {
  const viewer = new FakeViewer();
  viewer.with(wheel);
  assert.equal(turn(viewer, 120).defaultPrevented, true);
  turn(viewer, 480);
  turn(viewer, -3, { deltaMode: 1 });
  assert.deepEqual(viewer.calls, [["go", 6], ["go", 7], ["go", 6]]);
});

test("a touch pad's trickle adds up to slices", () => {
  const viewer = new FakeViewer();
  viewer.with(wheel);
  for (let i = 0; i < 7; i++) turn(viewer, 10);
  assert.deepEqual(viewer.calls, [["go", 6], ["go", 7]]);
});

test("zooming with Ctrl is left to the browser", () => {
  const viewer = new FakeViewer();
  viewer.with(wheel);
  assert.equal(turn(viewer, 120, { ctrlKey: true }).defaultPrevented, false);
  assert.deepEqual(viewer.calls, []);
});

test("a gesture ends when its viewer closes, and waits until there is something to show", () => {
  const viewer = new FakeViewer();
  const end = viewer.with(wheel);
  viewer.ready = false;
  turn(viewer, 120);
  viewer.ready = true;
  end();
  turn(viewer, 120);
  assert.deepEqual(viewer.calls, []);
});

const drag = (/** @type {FakeViewer} */ viewer, /** @type {string} */ type, /** @type {number[]} */ [x, y]) =>
  viewer.grid.dispatchEvent(event(type, { clientX: x, clientY: y, button: 0, pointerId: 1 }));

test("dragging across sets the window, dragging down the level, of the channel under the pointer", () => {
  const viewer = new FakeViewer();
  viewer.state.windows = { pre: [0, 255], flair: [40, 80], post: [0, 255] };
  viewer.with(windowLevel);
  drag(viewer, "pointerdown", [100, 100]);
  assert.equal(viewer.dragging, true);
  drag(viewer, "pointermove", [120, 110]);
  // Width 40 + 20, centre 60 + 10 / 2.
  assert.deepEqual(viewer.state.windows, { pre: [0, 255], flair: [35, 95], post: [0, 255] });
  drag(viewer, "pointerup", [120, 110]);
  assert.equal(viewer.dragging, false);
  drag(viewer, "pointermove", [300, 300]);
  assert.deepEqual(viewer.state.windows.flair, [35, 95]);
});

test("a window never closes, and a double click opens it as it was", () => {
  const viewer = new FakeViewer();
  viewer.with(windowLevel);
  drag(viewer, "pointerdown", [1000, 0]);
  drag(viewer, "pointermove", [0, 0]);
  const [low, high] = viewer.state.windows?.flair ?? [0, 0];
  assert.equal(high - low, 4);
  drag(viewer, "pointerup", [0, 0]);
  viewer.grid.dispatchEvent(event("dblclick", {}));
  assert.deepEqual(viewer.state.windows, { flair: [10, 90] });
});

test("pointing names the pixel; at the far edge it stays inside the slice", () => {
  const viewer = new FakeViewer(); // a slice of 4 x 6 on 40 x 60 px, at (50, 100)
  viewer.with(point);
  drag(viewer, "pointermove", [100 + 25, 50 + 15]);
  drag(viewer, "pointermove", [160, 90]);
  viewer.dragging = true;
  drag(viewer, "pointermove", [110, 60]);
  viewer.grid.dispatchEvent(event("pointerleave", {}));
  assert.deepEqual(viewer.calls, [
    ["point", { row: 1, column: 2 }],
    ["point", { row: 3, column: 5 }],
    ["point", null],
  ]);
});

/** @param {FakeViewer} viewer @param {string} key @param {object} fields */
function press(viewer, key, fields = {}) {
  const pressed = event("keydown", { key, repeat: false, ...fields });
  viewer.root.dispatchEvent(pressed);
  return pressed;
}

test("keys move through the slices", () => {
  const viewer = new FakeViewer();
  viewer.with(keys);
  for (const key of ["ArrowUp", "ArrowDown", "PageDown", "PageUp", "End", "Home"]) press(viewer, key);
  assert.deepEqual(viewer.calls.map(([, slice]) => slice), [4, 5, 10, 5, 9, 0]);
});

test("o, f and z switch once however long they are pressed, and other keys are not taken", () => {
  const viewer = new FakeViewer();
  viewer.with(keys);
  for (const key of ["o", "f", "z"]) press(viewer, key);
  assert.equal(press(viewer, "o").defaultPrevented, true);
  press(viewer, "o", { repeat: true });
  assert.deepEqual(viewer.calls.map(([, changes]) => changes), [
    { outline: false },
    { fill: false },
    { fit: false },
    { outline: true },
  ]);
  assert.equal(press(viewer, "q").defaultPrevented, false);
  assert.equal(press(viewer, "Escape").defaultPrevented, false);
  assert.equal(press(viewer, "f", { ctrlKey: true }).defaultPrevented, false);
});

test("h tapped switches the overlays, h held hides them for as long", () => {
  const viewer = new FakeViewer();
  viewer.with(keys);
  const up = (/** @type {number} */ timeStamp) => {
    const released = new Event("keyup");
    Object.defineProperties(released, { key: { value: "h" }, timeStamp: { value: timeStamp } });
    viewer.root.dispatchEvent(released);
  };
  const down = (/** @type {number} */ timeStamp) => {
    const pressed = new Event("keydown");
    Object.defineProperties(pressed, { key: { value: "h" }, timeStamp: { value: timeStamp } });
    viewer.root.dispatchEvent(pressed);
  };
  down(0);
  up(100);
  assert.equal(viewer.state.hidden, true);
  down(1000);
  assert.equal(viewer.state.hidden, false);
  up(2000);
  assert.equal(viewer.state.hidden, true);
});

test("Escape brings the other panels back", () => {
  const viewer = new FakeViewer();
  viewer.with(keys);
  viewer.state.focus = "overlay-unet";
  press(viewer, "Escape");
  assert.equal(viewer.state.focus, null);
});
