// @ts-check
// Stand-ins for what a page gives, where a test needs no page.
/** @import { Model, State, View } from "../../brainseg/ui/viewer/types.d.ts" */

/** @param {Partial<Model>} changes @returns {Model} */
export function model(changes = {}) {
  return {
    name: "unet",
    id: "pack-unet",
    title: "U-Net",
    colour: "#e69f00",
    dash: [],
    seen: false,
    largest: null,
    worst: null,
    columns: ["Area (pixels)", "Dice"],
    rows: [],
    gates: [],
    ...changes,
  };
}

/** @param {Partial<View>} changes @returns {View} */
export function view(changes = {}) {
  return {
    label: "Research use only",
    study: {
      id: "study",
      title: "case",
      slices: 10,
      height: 4,
      width: 6,
      aspect: 1,
      numbers: [],
      edges: null,
      mirror: [false, false],
      first: 5,
    },
    unit: "pixels",
    reference: null,
    errors: { tp: "#009e73", fp: "#d55e00", fn: "#56b4e9" },
    votes: ["#440154", "#fde725"],
    marks: null,
    wanted: [],
    jump: null,
    models: [],
    ...changes,
  };
}

/** @param {Partial<State>} changes @returns {State} */
export function state(changes = {}) {
  return {
    slice: 5,
    touched: false,
    inputs: true,
    agreement: true,
    maps: ["overlay"],
    fit: true,
    base: "flair",
    level: 0,
    gates: {},
    opacity: 0.35,
    fill: true,
    outline: true,
    hidden: false,
    focus: null,
    windows: { pre: [0, 255], flair: [0, 255], post: [0, 255] },
    ...changes,
  };
}

/** An event with whatever fields a handler reads. @param {string} type @param {object} fields */
export const event = (type, fields) => Object.assign(new Event(type, { cancelable: true }), fields);

/** What gestures need of a viewer; `calls` says what they did with it. */
export class FakeViewer {
  ready = true;
  dragging = false;
  view = view();
  state = state();
  root = Object.assign(new EventTarget(), { focus: () => {} });
  grid = new EventTarget();
  /** @type {any} */
  study = { header: { channels: [{ name: "flair", scale: 1, offset: 0, window: [10, 90] }] } };
  /** @type {any[]} */
  calls = [];
  panel = {
    channel: "flair",
    canvas: {
      setPointerCapture: () => {},
      getBoundingClientRect: () => ({ left: 100, top: 50, width: 60, height: 40 }),
    },
  };

  part = () => this.grid;
  panelAt = () => this.panel;
  /** @param {{ width: number, height: number }} box */
  lens = ({ width, height }) => ({ a: width / 6, b: 0, c: 0, d: height / 4, e: 0, f: 0 });

  /** @param {number} slice */
  go(slice) {
    this.calls.push(["go", slice]);
    this.state.slice = slice;
  }

  /** @param {object} changes */
  set(changes) {
    this.calls.push(["set", changes]);
    Object.assign(this.state, changes);
  }

  /** @param {"fill"} name */
  toggle(name) {
    this.set({ [name]: !this.state[name] });
  }

  /** @param {object | null} cursor */
  point(cursor) {
    this.calls.push(["point", cursor]);
  }

  /**
   * Let a gesture listen.
   * @param {import("../../brainseg/ui/viewer/types.d.ts").Gesture} gesture
   * @returns {() => void} ends it
   */
  with(gesture) {
    const end = new AbortController();
    gesture(/** @type {any} */ (this), end.signal);
    return () => end.abort();
  }
}
