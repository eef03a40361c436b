// @ts-check
// One panel about to be painted: what its kind may see, and the brushes it may use.
import { contour } from "./contour.js";
import { coloured, greyTable, painted, paletteTable } from "./layers.js";
import { toCanvas } from "./layout.js";
import { pack } from "./packs.js";
/** @import { AttentionHeader, Cursor, Lens, Pack, Rectangle, StudyHeader } from "./types.d.ts" */
/** @import { Panel } from "./panel.js" */

const CASING = "rgb(0 0 0 / 55%)"; // keeps every hue readable on white matter and on black alike

export class Scene {
  /** Said over the picture. */
  sentence = "";
  /** Whether there is nothing to see. */
  blank = false;

  /**
   * @param {Panel} panel
   * @param {Pack<StudyHeader>} study
   */
  constructor(panel, study) {
    const { viewer } = panel;
    this.panel = panel;
    this.viewer = viewer;
    this.study = study;
    this.view = viewer.view;
    this.state = viewer.state;
    this.slice = viewer.state.slice;
    this.model = panel.model;
    this.mask = viewer.masks[panel.place.index ?? -1];
    this.truth = viewer.view.reference ? study.arrays.reference.data : null;
    this.cursor = viewer.cursor;
    this.context = /** @type {CanvasRenderingContext2D} */ (panel.canvas.getContext("2d"));
    /** @type {Lens} */
    this.lens = viewer.lens(panel.canvas);
  }

  /** The voxel under the pointer, as its place in the volume; null without a pointer. */
  get at() {
    const { height, width } = this.view.study;
    return this.cursor && (this.slice * height + this.cursor.row) * width + this.cursor.column;
  }

  /** The opacity the user has set, 0 to 255. */
  get alpha() {
    return Math.round(this.state.opacity * 255);
  }

  // ---- what every panel has

  /** Anatomy is smoothed, as on any reading station. */
  anatomy() {
    const channel = this.panel.channel;
    const window = this.windows[channel];
    const layer = this.viewer.layers.get(`anatomy ${channel} ${this.slice} ${window}`, () =>
      coloured(this.study.arrays[channel], this.slice, greyTable(window)),
    );
    this.context.imageSmoothingEnabled = true;
    this.context.imageSmoothingQuality = "high";
    this.#draw(layer);
    // Maps are not smoothed, for no value may appear that no network gave.
    this.context.imageSmoothingEnabled = false;
  }

  get windows() {
    return /** @type {NonNullable<typeof this.state.windows>} */ (this.state.windows); // set with the images
  }

  /** @param {Cursor} cursor */
  cross({ row, column }) {
    const ratio = window.devicePixelRatio || 1;
    const exact = toCanvas(this.lens, column + 0.5, row + 0.5);
    const [x, y] = [Math.round(exact.x), Math.round(exact.y)];
    const { context } = this;
    context.resetTransform();
    const hole = 6 * ratio;
    const arm = 14 * ratio;
    context.fillStyle = "rgb(255 255 255 / 75%)";
    for (const sign of [-1, 1]) {
      context.fillRect(Math.min(x + sign * hole, x + sign * arm), y, arm - hole, ratio);
      context.fillRect(x, Math.min(y + sign * hole, y + sign * arm), ratio, arm - hole);
    }
  }

  // ---- brushes of a panel's kind; they paint nothing while the overlays are hidden

  /**
   * A colour for each pixel.
   * @param {string} key names all that the colours depend on, beside slice and opacity
   * @param {(i: number) => number} colourOf
   */
  fill(key, colourOf) {
    if (this.state.hidden) return;
    const { height, width } = this.view.study;
    this.#draw(
      this.viewer.layers.get(`${key} ${this.slice} ${this.state.opacity}`, () =>
        painted(height, width, this.slice, colourOf),
      ),
    );
  }

  /**
   * An array of a pack through a palette, over the whole slice or over a rectangle of it.
   * @param {string} id of the pack, which has come
   * @param {string} name
   * @param {"viridis" | "magma"} palette
   * @param {Rectangle} [rectangle]
   */
  map(id, name, palette, rectangle) {
    const content = pack(id);
    if (this.state.hidden || !content) return;
    const layer = this.viewer.layers.get(`map ${id} ${this.slice}`, () =>
      coloured(content.arrays[name], this.slice, paletteTable(this.study.arrays[palette])),
    );
    this.#draw(layer, rectangle);
  }

  /** The reference's outline and the model's. */
  outlines() {
    if (this.state.hidden || !this.state.outline) return;
    const { reference } = this.view;
    if (this.truth && reference) this.#stroke("reference", this.truth, reference.colour, []);
    if (this.model) this.#stroke(this.model.name, this.mask, this.model.colour, this.model.dash);
  }

  /** Say what is still to come. @param {string} sentence */
  wait(sentence) {
    this.sentence = sentence;
  }

  /** Show a sentence and nothing else. @param {string} sentence */
  clear(sentence) {
    const { context } = this;
    context.resetTransform();
    context.fillStyle = "#000";
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    this.sentence = sentence;
    this.blank = true;
  }

  // ---- values under the pointer

  /** The model's probability there; "" where it is not known. */
  probability() {
    const values = this.model && pack(this.model.id)?.arrays.probability.data;
    return values && this.at !== null ? `p ${(values[this.at] / 255).toFixed(2)}` : "";
  }

  /** How many models mark a voxel. @param {number} i */
  votes(i) {
    return this.viewer.masks.reduce((sum, mask) => sum + mask[i], 0);
  }

  /** @param {string} id @returns {Pack<AttentionHeader> | null} */
  pack(id) {
    return pack(id);
  }

  /** @param {OffscreenCanvas} layer @param {Rectangle} [rectangle] */
  #draw(layer, [top, left, height, width] = [0, 0, layer.height, layer.width]) {
    const { a, b, c, d, e, f } = this.lens;
    this.context.setTransform(a, b, c, d, e, f);
    this.context.drawImage(layer, left, top, width, height);
  }

  /** @param {string} key @param {Uint8Array} mask @param {string} colour @param {number[]} dash */
  #stroke(key, mask, colour, dash) {
    const { context } = this;
    const { height, width } = this.view.study;
    const path = this.viewer.layers.get(`path ${key} ${this.slice}`, () =>
      contour(mask, this.slice * height * width, height, width),
    );
    const ratio = window.devicePixelRatio || 1;
    const scaled = new Path2D();
    scaled.addPath(path, this.lens);
    context.resetTransform(); // line widths in screen pixels, whatever the size of a slice pixel
    context.lineJoin = "round";
    context.setLineDash([]);
    context.strokeStyle = CASING;
    context.lineWidth = 3.5 * ratio;
    context.stroke(scaled);
    context.setLineDash(dash.map((d) => d * ratio));
    context.strokeStyle = colour;
    context.lineWidth = 1.75 * ratio;
    context.stroke(scaled);
    context.setLineDash([]);
  }
}
