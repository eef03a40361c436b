// @ts-check
// Pointing at a pixel marks it in every panel and reads its values.
import { clamp } from "../dom.js";
import { toSlice } from "../layout.js";
/** @import { Gesture } from "../types.d.ts" */

/** @type {Gesture} */
export function point(viewer, signal) {
  const grid = viewer.part("grid");
  /** @param {PointerEvent} event */
  const move = (event) => {
    if (viewer.dragging) return;
    const panel = viewer.ready ? viewer.panelAt(event) : undefined;
    if (!panel) {
      viewer.point(null);
      return;
    }
    const box = panel.canvas.getBoundingClientRect();
    const { height, width } = viewer.view.study;
    const { x, y } = toSlice(viewer.lens(box), event.clientX - box.left, event.clientY - box.top);
    viewer.point({ row: clamp(Math.floor(y), 0, height - 1), column: clamp(Math.floor(x), 0, width - 1) });
  };
  grid.addEventListener("pointermove", move, { signal });
  grid.addEventListener("pointerleave", () => viewer.point(null), { signal });
}
