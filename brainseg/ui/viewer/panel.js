// @ts-check
// One panel on the page: its elements, and how its kind fills them.
import { make } from "./dom.js";
import { swatch } from "./legend.js";
import { Scene } from "./scene.js";
/** @import { Place } from "./types.d.ts" */
/** @import { Viewer } from "./viewer.js" */

export class Panel {
  /** @type {Node | null} */
  #legend = null;

  /**
   * @param {Place} place
   * @param {Viewer} viewer
   */
  constructor(place, viewer) {
    this.place = place;
    this.kind = place.kind;
    this.viewer = viewer;

    this.figure = make("figure", `panel ${place.kind.name}`);
    this.figure.dataset.panel = place.id;
    this.header = make("header");
    this.grow = make("button", "grow", "⤢");
    this.grow.type = "button";
    this.grow.addEventListener("click", () => viewer.set({ focus: viewer.state.focus ? null : place.id }));
    this.title = make("span", "title");
    this.header.append(this.title, this.grow);
    this.stage = make("div", "stage");
    this.canvas = make("canvas");
    this.canvas.setAttribute("role", "img");
    this.instead = make("p", "instead");
    this.stage.append(this.canvas, this.instead);
    for (const [side, text] of Object.entries(viewer.view.study.edges ?? {})) {
      this.stage.append(make("span", `edge ${side}`, text));
    }
    const footer = make("footer");
    this.note = make("span", "note");
    this.control = make("span", "gate");
    this.value = make("span", "value");
    footer.append(this.note, this.control, this.value);
    this.figure.append(this.header, this.stage, footer);
  }

  get view() {
    return this.viewer.view;
  }

  get state() {
    return this.viewer.state;
  }

  /** The channel under the marks. */
  get channel() {
    return this.place.channel ?? this.state.base;
  }

  /** The model shown, if it shows one. */
  get model() {
    return this.place.index === undefined ? null : this.view.models[this.place.index];
  }

  /** @param {"viridis" | "magma"} name a colour map; undefined until the images have come */
  palette(name) {
    return this.viewer.study?.arrays[name];
  }

  /** Write what stands around the picture. */
  label() {
    const { kind, model, title, grow } = this;
    const words = kind.title(this);
    this.header.querySelector("svg")?.remove();
    title.textContent = title.title = model ? model.title : words;
    if (model) {
      this.header.prepend(swatch(model.colour, model.dash));
      if (words) title.append(make("span", "what", ` ${words}`));
    }
    const large = this.state.focus !== null;
    grow.setAttribute("aria-label", large ? "Show all panels" : `Enlarge ${title.textContent}`);
    grow.title = large ? "Show all panels (Esc)" : "Enlarge";
    grow.textContent = large ? "⤡" : "⤢";
    this.#legend = kind.legend(this);
    this.control.replaceChildren(...[kind.control?.(this)].filter((node) => node != null));
  }

  /** @param {number} width of the picture in px @param {number} height */
  resize(width, height) {
    this.stage.style.height = `${height}px`;
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== h) {
      this.canvas.width = w;
      this.canvas.height = h;
    }
  }

  /** @param {string} where the slice, in words */
  paint(where) {
    const { canvas, instead, note, value, kind } = this;
    this.figure.dataset.slice = String(this.state.slice);
    canvas.setAttribute("aria-label", `${this.title.textContent}, ${where}`);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.resetTransform();
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    value.textContent = "";
    note.replaceChildren();
    const { study } = this.viewer;
    if (!study) {
      instead.textContent = "Loading the images …";
      return;
    }
    if (this.#legend) note.append(this.#legend);
    const scene = new Scene(this, study);
    scene.anatomy();
    kind.paint(scene);
    instead.textContent = scene.sentence;
    if (scene.blank) return;
    if (scene.cursor) scene.cross(scene.cursor);
    const read = kind.read(scene);
    if (read.note) note.textContent = read.note;
    value.textContent = read.value ?? "";
  }
}
