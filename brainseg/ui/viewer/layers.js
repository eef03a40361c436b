// @ts-check
// Pictures made from arrays, remembered until something they were made from changes.
import { clamp } from "./dom.js";
/** @import { NdArray, Window } from "./types.d.ts" */

const MOST = 400;

/** A cache; a key names all that its layer was made from. */
export class Layers {
  /** @type {Map<string, any>} */
  #made = new Map();

  /**
   * @template Layer
   * @param {string} key
   * @param {() => Layer} build
   * @returns {Layer}
   */
  get(key, build) {
    let found = this.#made.get(key);
    if (!found) {
      if (this.#made.size > MOST) this.#made.clear();
      found = build();
      this.#made.set(key, found);
    }
    return found;
  }

  clear() {
    this.#made.clear();
  }
}

/** @param {string} colour "#rrggbb" */
export const hex = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

/**
 * A canvas pixel as one number: little-endian on every machine a browser runs on.
 * @param {ArrayLike<number>} rgb
 */
export const rgba = (rgb, alpha = 255) => ((alpha << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0]) >>> 0;

/** One slice of (S, H, W). @param {NdArray} array @param {number} slice */
export function plane({ data, shape }, slice) {
  const size = shape[1] * shape[2];
  return data.subarray(slice * size, (slice + 1) * size);
}

/**
 * @param {number} height
 * @param {number} width
 * @param {(pixels: Uint32Array) => void} fillPixels
 */
function canvasOf(height, width, fillPixels) {
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(width, height);
  fillPixels(new Uint32Array(image.data.buffer));
  context.putImageData(image, 0, 0);
  return canvas;
}

/**
 * One slice, each value painted as its row of the table.
 * @param {NdArray} array
 * @param {number} slice
 * @param {Uint32Array} table of 256 colours
 */
export function coloured(array, slice, table) {
  const values = plane(array, slice);
  const [, height, width] = array.shape;
  return canvasOf(height, width, (pixels) => values.forEach((v, i) => (pixels[i] = table[v])));
}

/**
 * One slice, each pixel painted as a function says.
 * @param {number} height
 * @param {number} width
 * @param {number} slice
 * @param {(i: number) => number} colourOf from a voxel's place in the volume to its colour
 */
export function painted(height, width, slice, colourOf) {
  const start = slice * height * width;
  return canvasOf(height, width, (pixels) => {
    for (let i = 0; i < pixels.length; i++) pixels[i] = colourOf(start + i);
  });
}

/** Grey levels through a window. @param {Window} window */
export function greyTable([low, high]) {
  return Uint32Array.from({ length: 256 }, (_, v) => {
    const g = clamp(Math.round(((v - low) / (high - low)) * 255), 0, 255);
    return rgba([g, g, g]);
  });
}

/** @param {NdArray} palette (256, 3) */
export const paletteTable = ({ data }) =>
  Uint32Array.from({ length: 256 }, (_, v) => rgba(data.subarray(3 * v, 3 * v + 3)));
