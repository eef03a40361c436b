// @ts-check
// The wheel moves through the slices.
/** @import { Gesture } from "../types.d.ts" */

const NOTCH = 50; // px: from here on it is a wheel, whose notch is one slice whatever its size
const STEP = 30; // px: a touch pad's trickle adds up to a slice
const LINE = 40; // px: one line or page, as some browsers count

/** @type {Gesture} */
export function wheel(viewer, signal) {
  let trickle = 0;
  /** @param {WheelEvent} event */
  const turn = (event) => {
    if (event.ctrlKey || !viewer.ready) return; // the browser's own zoom
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 0 ? 1 : LINE);
    trickle = Math.abs(pixels) >= NOTCH ? pixels : trickle + pixels;
    if (Math.abs(trickle) < STEP) return;
    viewer.go(viewer.state.slice + Math.sign(trickle));
    trickle = 0;
  };
  viewer.part("grid").addEventListener("wheel", turn, { signal, passive: false });
}
