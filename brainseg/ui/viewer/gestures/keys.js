// @ts-check
// Keys move through the slices and switch what is drawn.
/** @import { Gesture } from "../types.d.ts" */

const HELD = 350; // ms: a key pressed longer than this was held, not tapped

/** @type {Record<string, (slice: number, last: number) => number>} */
const MOVES = {
  ArrowUp: (slice) => slice - 1,
  ArrowDown: (slice) => slice + 1,
  PageUp: (slice) => slice - 5,
  PageDown: (slice) => slice + 5,
  Home: () => 0,
  End: (_, last) => last,
};

/** @type {Record<string, "outline" | "fill" | "fit">} */
const SWITCHES = { o: "outline", f: "fill", z: "fit" };

/** @type {Gesture} */
export function keys(viewer, signal) {
  let hiddenBefore = false;
  let hiddenSince = 0;

  /** @param {KeyboardEvent} event */
  const down = (event) => {
    if (!viewer.ready || event.ctrlKey || event.metaKey || event.altKey) return;
    const { key, repeat } = event;
    const { state } = viewer;
    if (key in MOVES && !hasOwnKeys(event.composedPath()[0])) {
      viewer.go(MOVES[key](state.slice, viewer.view.study.slices - 1));
    } else if (key === "h") {
      if (!repeat) {
        hiddenBefore = state.hidden;
        hiddenSince = event.timeStamp;
        viewer.set({ hidden: !state.hidden });
      }
    } else if (key in SWITCHES && !repeat) {
      viewer.toggle(SWITCHES[key]);
    } else if (key === "Escape" && state.focus) {
      viewer.set({ focus: null });
    } else {
      return;
    }
    event.preventDefault();
  };
  /** @param {KeyboardEvent} event */
  const up = (event) => {
    if (event.key === "h" && viewer.ready && event.timeStamp - hiddenSince > HELD) {
      viewer.set({ hidden: hiddenBefore });
    }
  };
  // Keys work where the pointer is, without a click first, unless someone is typing elsewhere.
  const enter = () => {
    if (document.activeElement === document.body) viewer.root.focus({ preventScroll: true });
  };
  viewer.root.addEventListener("keydown", down, { signal });
  viewer.root.addEventListener("keyup", up, { signal });
  viewer.part("grid").addEventListener("pointerenter", enter, { signal });
}

/** Whether arrows mean something else where they were pressed. @param {EventTarget} target */
const hasOwnKeys = (target) => target instanceof Element && target.matches("select, .opacity");
