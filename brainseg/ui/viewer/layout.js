// @ts-check
// Which part of a slice is shown, where its pixels lie, and how large the panels are.
import { clamp } from "./dom.js";
/** @import { Box, Lens, View } from "./types.d.ts" */

const TALLEST = 1.12; // a frame around the head is not made narrower than this, or four do not fit a screen
const GAP = 8; // px between panels
const CHROME = 48; // px of a panel's header and footer

/** @typedef {{ top: number, left: number, height: number, width: number }} Frame */

/**
 * The part of a slice that holds all the boxes; the whole slice if there are none.
 * @param {Pick<View["study"], "height" | "width" | "aspect">} study
 * @param {Box[]} boxes
 * @returns {Frame}
 */
export function frameAround({ height, width, aspect }, boxes) {
  if (!boxes.length) return { top: 0, left: 0, height, width };
  let [top, left] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])));
  let [bottom, right] = [2, 3].map((i) => Math.max(...boxes.map((b) => b[i])));
  /** @param {number} low @param {number} high @param {number} wish @param {number} most */
  const widen = (low, high, wish, most) => {
    const size = Math.min(most, Math.max(high - low, Math.ceil(wish)));
    const start = clamp(Math.floor((low + high - size) / 2), 0, most - size);
    return [start, start + size];
  };
  [left, right] = widen(left, right, ((bottom - top) * aspect) / TALLEST, width);
  [top, bottom] = widen(top, bottom, (right - left) / aspect / TALLEST, height);
  return { top, left, height: bottom - top, width: right - left };
}

/**
 * From slice pixels to the pixels of a canvas that shows the frame.
 * @param {Frame} frame
 * @param {[boolean, boolean]} mirror whether rows and columns run the other way
 * @param {{ width: number, height: number }} canvas
 * @returns {Lens}
 */
export function lens(frame, [rows, columns], canvas) {
  const across = canvas.width / frame.width;
  const down = canvas.height / frame.height;
  const [a, d] = [columns ? -across : across, rows ? -down : down];
  return {
    a,
    b: 0,
    c: 0,
    d,
    e: (columns ? canvas.width : 0) - frame.left * a,
    f: (rows ? canvas.height : 0) - frame.top * d,
  };
}

/** @param {Lens} lens @param {number} x @param {number} y */
export const toCanvas = ({ a, d, e, f }, x, y) => ({ x: a * x + e, y: d * y + f });

/** @param {Lens} lens @param {number} x @param {number} y */
export const toSlice = ({ a, d, e, f }, x, y) => ({ x: (x - e) / a, y: (y - f) / d });

/**
 * The largest panels that fit; rather a longer page than stamps for pictures.
 * @param {number[]} rows how many panels each row has
 * @param {boolean} flow whether panels may leave their rows
 * @param {number} shape height of a picture in parts of its width
 * @param {{ across: number, down: number }} room in px
 * @returns {{ columns: number, size: number, flow: boolean }} size: width of a picture in px
 */
export function fitPanels(rows, flow, shape, { across, down }) {
  const count = rows.reduce((a, b) => a + b, 0);
  /** @param {number} columns */
  const widest = (columns) => (across - (columns - 1) * GAP) / columns;
  /** @param {number} columns @param {number} lines */
  const side = (columns, lines) =>
    Math.min(widest(columns), ((down - (lines - 1) * GAP) / lines - CHROME) / shape);

  let columns = Math.max(...rows);
  let best = side(columns, rows.length);
  if (flow) {
    best = -Infinity;
    for (let c = 1; c <= count; c++) {
      const s = side(c, Math.ceil(count / c));
      if (s > best) [best, columns] = [s, c];
    }
  }
  let size = Math.max(best, Math.min(220, widest(columns)));
  if (size < 150 && columns > 2) {
    flow = true;
    columns = Math.max(1, Math.floor((across + GAP) / 200));
    size = widest(columns);
  }
  return { columns, size: Math.floor(size), flow };
}
