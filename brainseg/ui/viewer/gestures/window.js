// @ts-check
// Dragging sets window (across) and level (down) of a channel; a double click sets them back.
import { clamp } from "../dom.js";
import { defaultWindows } from "../state.js";
/** @import { Channel, Gesture } from "../types.d.ts" */

/** @type {Gesture} */
export function windowLevel(viewer, signal) {
  /** @type {{ x: number, y: number, channel: Channel, centre: number, width: number } | null} */
  let drag = null;
  const grid = viewer.part("grid");

  /** @param {PointerEvent} event */
  const start = (event) => {
    const panel = viewer.panelAt(event);
    const { windows } = viewer.ready ? viewer.state : { windows: null };
    if (!panel || event.button !== 0 || !windows) return;
    viewer.root.focus({ preventScroll: true });
    panel.canvas.setPointerCapture(event.pointerId);
    const { channel } = panel;
    const [low, high] = windows[channel];
    drag = { x: event.clientX, y: event.clientY, channel, centre: (low + high) / 2, width: high - low };
    viewer.dragging = true;
  };
  /** @param {PointerEvent} event */
  const move = (event) => {
    const { windows } = viewer.ready ? viewer.state : { windows: null };
    if (!drag || !windows) return;
    const width = clamp(drag.width + (event.clientX - drag.x), 4, 510);
    const centre = clamp(drag.centre + (event.clientY - drag.y) / 2, -64, 320);
    viewer.set({ windows: { ...windows, [drag.channel]: [centre - width / 2, centre + width / 2] } });
  };
  const end = () => {
    drag = null;
    viewer.dragging = false;
  };
  /** @param {MouseEvent} event */
  const reset = (event) => {
    if (viewer.panelAt(event) && viewer.study) viewer.set({ windows: defaultWindows(viewer.study) });
  };
  grid.addEventListener("pointerdown", start, { signal });
  grid.addEventListener("pointermove", move, { signal });
  grid.addEventListener("pointerup", end, { signal });
  grid.addEventListener("pointercancel", end, { signal });
  grid.addEventListener("dblclick", reset, { signal });
}
