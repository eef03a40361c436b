// @ts-check
// The slice viewer: panels on canvases, in step, drawn from arrays that Python sent (see wire.js).
//
// This is the middle of it: what is shown, when it is painted, and what gestures, controls and panels may
// call. A face hosts it (see streamlit.js) and gives it the elements of viewer.html; it knows none.
import { drawControls, listenToControls } from "./controls.js";
import { saveAs } from "./dom.js";
import { keys } from "./gestures/keys.js";
import { point } from "./gestures/point.js";
import { wheel } from "./gestures/wheel.js";
import { windowLevel } from "./gestures/window.js";
import { Layers } from "./layers.js";
import { fitPanels, frameAround, lens } from "./layout.js";
import { has, pack } from "./packs.js";
import { Panel } from "./panel.js";
import { attention, gateShown } from "./panels/attention.js";
import { mapsShown, places } from "./panels/index.js";
import { picture } from "./picture.js";
import { shared } from "./shared.js";
import { defaultWindows, levels, stateOf, stops } from "./state.js";
import { sliceTable } from "./table.js";
import { unpack } from "./wire.js";
/** @import { Cursor, Gesture, Message, Pack, Parts, Place, State, StudyHeader, View } from "./types.d.ts" */

/** @type {Gesture[]} */
const GESTURES = [wheel, windowLevel, point, keys];

export class Viewer {
  /** @type {View} set by the first message; see `ready` */
  view = /** @type {any} */ (null);
  /** @type {State} set by the first message */
  state = /** @type {any} */ (null);
  /** @type {Uint8Array[]} of each model, all slices */
  masks = [];
  /** @type {Panel[]} */
  panels = [];
  layers = new Layers();
  /** @type {Cursor | null} */
  cursor = null;
  /** Whether a gesture holds the pointer. */
  dragging = false;

  /** @type {Place[][]} */
  #rows = [];
  #shown = "";
  #received = 0;
  #asked = "";
  #tabulated = "";
  #pending = false;
  /** @type {{ which: string, stop: number }} */
  #tour = { which: "", stop: 0 };
  #closing = new AbortController();

  /**
   * @param {HTMLElement} root the element of viewer.html
   * @param {(gates: string[]) => void} want asks Python for the packs of these gates
   */
  constructor(root, want) {
    this.root = root;
    this.want = want;
    const { signal } = this.#closing;
    listenToControls(this, signal);
    for (const gesture of GESTURES) gesture(this, signal);
    shared.news.addEventListener("pack", () => this.refresh(), { signal });
    window.addEventListener("resize", () => this.arrange(), { signal });
    const resizes = new ResizeObserver(() => this.arrange());
    resizes.observe(root);
    signal.addEventListener("abort", () => resizes.disconnect());
  }

  /** End it; another may be opened on the same elements. */
  close() {
    this.#closing.abort();
  }

  /**
   * An element of viewer.html by its class.
   * @template {keyof Parts} Name
   * @param {Name} name
   * @returns {Parts[Name]}
   */
  part = (name) => /** @type {Parts[Name]} */ (this.root.querySelector(`.${name}`));

  /** Whether there is anything to show; before, `view` and `state` are null. */
  get ready() {
    return this.view !== null;
  }

  /** @returns {Pack<StudyHeader> | null} the images, once they have come */
  get study() {
    return pack(this.view.study.id);
  }

  // ---- what others may do

  /**
   * Show what Python says.
   * @param {Message<View>} message
   */
  async receive(message) {
    const turn = ++this.#received;
    const { header, arrays } = await unpack(message);
    if (turn !== this.#received) return; // a newer view overtook this one
    const before = this.view;
    this.view = header;
    this.masks = this.view.models.map((_, i) => arrays[`mask${i}`].data);
    if (before?.study.id !== this.view.study.id) this.#begin();
    const { jump, models } = this.view;
    if (jump && before && jump.nonce !== before.jump?.nonce) {
      this.state.slice = jump.slice;
      this.state.touched = true;
    }
    if (!this.state.touched && models.length > 0) this.state.slice = models[0].largest ?? this.state.slice;
    this.layers.clear();
    this.refresh();
  }

  /** @param {Partial<State>} changes */
  set(changes) {
    if (!this.ready) return;
    Object.assign(this.state, changes);
    this.refresh();
  }

  /** @param {"inputs" | "agreement" | "fit" | "fill" | "outline" | "hidden"} name */
  toggle(name) {
    if (this.ready) this.set({ [name]: !this.state[name] });
  }

  /** @param {number} slice */
  go(slice) {
    if (!this.ready) return;
    this.state.touched = true;
    const target = Math.min(Math.max(Math.round(slice), 0), this.view.study.slices - 1);
    if (target === this.state.slice) return;
    this.state.slice = target;
    this.#say("");
    this.schedule();
  }

  /** Go to the next slice worth a look. @param {"largest" | "worst"} which */
  tour(which) {
    const all = this.ready ? stops(this.view, which) : [];
    if (!all.length) return;
    const stop = this.#tour.which === which ? (this.#tour.stop + 1) % all.length : 0;
    this.#tour = { which, stop };
    this.go(all[stop].slice);
    this.#say(all[stop].text);
  }

  /** @param {Cursor | null} cursor */
  point(cursor) {
    const same = cursor?.row === this.cursor?.row && cursor?.column === this.cursor?.column;
    this.cursor = cursor;
    if (!same) this.schedule();
  }

  async save() {
    if (!this.ready) return;
    const { blob, name } = await picture(this);
    saveAs(blob, name);
  }

  /** @param {Event} event */
  panelAt(event) {
    return this.panels.find((panel) => panel.canvas === event.target);
  }

  /** From slice pixels to those of a canvas. @param {{ width: number, height: number }} canvas */
  lens(canvas) {
    return lens(this.#frame(), this.view.study.mirror, canvas);
  }

  // ---- from state to elements

  #begin() {
    const { study } = this.view;
    this.state = stateOf(study);
    this.cursor = null;
    this.#asked = "";
    this.part("slice").max = String(study.slices - 1);
  }

  /** Bring the page in line with view and state. */
  refresh() {
    if (!this.ready) return;
    const { view, state, root } = this;
    if (this.study) state.windows ??= defaultWindows(this.study);
    const offered = levels(view);
    if (offered.length && !offered.includes(state.level)) state.level = offered[0];
    drawControls(this);
    root.dataset.slices = String(view.study.slices);
    root.dataset.ready = String(this.study !== null);
    this.#build();
    for (const panel of this.panels) panel.label();
    this.arrange();
    this.#askForGates();
  }

  #build() {
    const rows = places(this.view, this.state);
    if (rows.length !== 1 || rows[0][0].id !== this.state.focus) this.state.focus = null;
    const shown = JSON.stringify(rows.map((row) => row.map((place) => place.id)));
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#rows = rows;
    this.panels = rows.flat().map((place) => new Panel(place, this));
    const grid = this.part("grid");
    const around = /** @type {Document | ShadowRoot} */ (this.root.getRootNode());
    const focused = grid.contains(around.activeElement);
    grid.replaceChildren(...this.panels.map((panel) => panel.figure));
    if (focused) this.root.focus({ preventScroll: true }); // its element is gone, the keys must still work
  }

  // Attention is large (a nested network has twenty gates), so only what is looked at is sent.
  #askForGates() {
    if (!mapsShown(this.view, this.state).includes(attention)) return;
    const ids = this.view.models.flatMap((model) => gateShown(model, this.state)?.id ?? []);
    const lacking = ids.filter((id) => !has(id));
    if (!lacking.length) return;
    const wanted = [...new Set([...this.view.wanted, ...lacking])].sort();
    if (this.#asked === wanted.join()) return;
    this.#asked = wanted.join();
    this.want(wanted);
  }

  /** The part of a slice that is shown: the head, and whatever any mask marks on any slice; or all of it. */
  #frame() {
    const boxes = this.state.fit && this.study ? [this.study.header.head, this.view.marks] : [];
    return frameAround(this.view.study, boxes.filter((box) => box !== null));
  }

  /** Lay the panels out for the room there is. */
  arrange() {
    const across = this.root.clientWidth - 18;
    if (!this.ready || !this.panels.length || across <= 0) return;
    const room = { across, down: Math.max(360, window.innerHeight - 210) };
    const frame = this.#frame();
    const shape = (frame.height / frame.width) * this.view.study.aspect;
    const mayFlow = this.view.models.length < 2 || this.state.focus !== null;
    const lengths = this.#rows.map((row) => row.length);
    const { columns, size, flow } = fitPanels(lengths, mayFlow, shape, room);
    this.part("grid").style.gridTemplateColumns = `repeat(${columns}, ${size}px)`;
    const cells = lengths.flatMap((length, r) => Array.from({ length }, (_, c) => `${r + 1} / ${c + 1}`));
    this.panels.forEach((panel, i) => {
      panel.figure.style.gridArea = flow ? "auto" : cells[i];
      panel.resize(size, Math.round(size * shape));
    });
    this.schedule();
  }

  // ---- painting

  /** Paint before the next frame, once however often it is asked for. */
  schedule() {
    if (this.#pending) return;
    this.#pending = true;
    requestAnimationFrame(() => {
      this.#pending = false;
      if (this.ready) this.#paint();
    });
  }

  #paint() {
    const { study } = this.view;
    const { slice } = this.state;
    const number = study.numbers[slice];
    const where = `slice ${slice + 1} / ${study.slices}`;
    this.part("slice").value = String(slice);
    this.part("slice").setAttribute("aria-valuetext", `${where}, number ${number} in the files`);
    this.part("where").textContent = `${where} · file number ${number}`;
    this.root.dataset.slice = String(slice);
    for (const panel of this.panels) panel.paint(where);
    this.#explain();
    this.#tabulate();
  }

  #explain() {
    const said = this.part("said");
    if (said.dataset.kept === "true") return;
    const { cursor, view, state } = this;
    const maps = view.models.length ? mapsShown(view, state) : [];
    const about = maps.map((kind) => kind.about).filter(Boolean).join(" ");
    said.textContent = cursor ? `row ${cursor.row + 1}, column ${cursor.column + 1}` : about;
  }

  #tabulate() {
    const key = `${this.#received} ${this.state.slice}`;
    if (this.#tabulated === key) return;
    this.#tabulated = key;
    this.part("figures").replaceChildren(
      ...(this.view.models.length ? [sliceTable(this.view, this.state.slice)] : []),
    );
  }

  /** Keep a sentence under the panels; "" to let the usual ones back. @param {string} text */
  #say(text) {
    const said = this.part("said");
    said.textContent = text;
    said.dataset.kept = String(text !== "");
  }
}
