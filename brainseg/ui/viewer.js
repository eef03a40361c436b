// The slice viewer: panels on canvases, in step, drawn from arrays that Python sent (see payload.py).
//
// Streamlit calls the default export again whenever the data changes and keeps the HTML in place, so the
// state lives in objects found through the element. Packs (images, probabilities, attention) arrive through
// components of their own and wait in `packs`; the view (masks, figures) arrives through the viewer itself.

const packs = (globalThis.brainsegPacks ??= new Map()); // id -> { owners: Set, content: null | {header, arrays} }
const news = (globalThis.brainsegNews ??= new EventTarget());
const viewers = new WeakMap();
const remembered = (globalThis.brainsegViews ??= new Map()); // study id -> what the user had set

export default function mount(component) {
  const { data, parentElement } = component;
  if (!data) return undefined;
  const received = parse(data);
  if (received.header.kind === "pack") return hold(received, parentElement);
  if (received.header.kind === "downloads") return offer(received, component);
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    viewer = new Viewer(parentElement.querySelector(".viewer"));
    viewers.set(parentElement, viewer);
  }
  viewer.want = (ids) => component.setStateValue("wanted", ids);
  viewer.receive(received);
  return () => viewer.close();
}

// ---- messages ----------------------------------------------------------------------------------

function parse(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { header, body: bytes.subarray(4 + length) };
}

async function unpack({ header, body }) {
  const arrays = {};
  await Promise.all(
    Object.entries(header.blocks).map(async ([name, { shape, coding, start, size }]) => {
      const stream = new Blob([body.subarray(start, start + size)]).stream();
      const inflated = stream.pipeThrough(new DecompressionStream("deflate"));
      const bytes = new Uint8Array(await new Response(inflated).arrayBuffer());
      arrays[name] = { shape, data: decoders[coding](bytes, shape) };
    }),
  );
  return { header, arrays };
}

const decoders = {
  raw: (bytes) => bytes,
  bits(bytes, shape) {
    const out = new Uint8Array(shape.reduce((a, b) => a * b));
    for (let i = 0; i < out.length; i++) out[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1;
    return out;
  },
  plane(bytes, shape) {
    const width = shape.at(-1);
    const plane = width * shape.at(-2);
    for (let i = 0; i < bytes.length; i++) if (i % width) bytes[i] += bytes[i - 1];
    for (let i = 0; i < bytes.length; i++) if (i % plane >= width) bytes[i] += bytes[i - width];
    return bytes;
  },
};

// Several mounts may own one pack: Streamlit may mount the next copy before it removes the last.
function hold(received, owner) {
  const { id } = received.header;
  if (!packs.has(id)) {
    packs.set(id, { owners: new Set(), content: null });
    unpack(received).then((content) => {
      const pack = packs.get(id);
      if (pack) pack.content = content;
      news.dispatchEvent(new CustomEvent("pack", { detail: id }));
    });
  }
  packs.get(id).owners.add(owner);
  return () => {
    setTimeout(() => {
      const pack = packs.get(id);
      pack?.owners.delete(owner);
      if (pack?.owners.size === 0) packs.delete(id);
    }, 3000);
  };
}

const pack = (id) => packs.get(id)?.content ?? null;

// ---- downloads: files come through the session's own connection, never from an address others could open

const saved = new WeakMap(); // element -> number of the last file saved

function offer(received, { parentElement, setTriggerValue }) {
  const { offers, file } = received.header;
  const row = parentElement.querySelector(".downloads");
  row.replaceChildren(
    ...offers.map(({ name, title, hint }) => {
      const button = make("button", name, title);
      button.type = "button";
      button.title = hint;
      button.addEventListener("click", () => {
        row.querySelectorAll("button").forEach((b) => (b.disabled = true));
        button.textContent = "Preparing …";
        setTriggerValue("asked", name);
      });
      return button;
    }),
  );
  if (!file || saved.get(parentElement) === file.number) return;
  saved.set(parentElement, file.number);
  unpack(received).then(({ arrays }) => saveAs(new Blob([arrays.file.data], { type: file.type }), file.name));
}

function saveAs(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// ---- contours ----------------------------------------------------------------------------------

// Closed loops along pixel edges, mask on the right-hand side, so that dashes run on around corners.
function contour(mask, offset, height, width) {
  const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && mask[offset + y * width + x];
  const stride = width + 1;
  const next = new Map(); // corner -> corners reached by an edge that starts there
  const edge = (from, to) => {
    const ends = next.get(from);
    if (ends) ends.push(to);
    else next.set(from, [to]);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!mask[offset + y * width + x]) continue;
      const corner = y * stride + x;
      if (!inside(y - 1, x)) edge(corner, corner + 1);
      if (!inside(y, x + 1)) edge(corner + 1, corner + 1 + stride);
      if (!inside(y + 1, x)) edge(corner + 1 + stride, corner + stride);
      if (!inside(y, x - 1)) edge(corner + stride, corner);
    }
  }
  const path = new Path2D();
  for (const start of next.keys()) {
    while (next.get(start)?.length) {
      let at = start;
      path.moveTo(at % stride, Math.floor(at / stride));
      do {
        at = next.get(at).pop();
        path.lineTo(at % stride, Math.floor(at / stride));
      } while (at !== start);
      path.closePath();
    }
  }
  return path;
}

// ---- small helpers -----------------------------------------------------------------------------

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const hex = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function canvasOf(height, width, fillPixels) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  fillPixels(new Uint32Array(image.data.buffer), image.data);
  context.putImageData(image, 0, 0);
  return canvas;
}

// Canvas pixels as one number: little-endian on every machine a browser runs on.
const rgba = ([r, g, b], alpha = 255) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;

const CHANNEL_TITLES = { pre: "T1 before contrast", flair: "FLAIR", post: "T1 after contrast" };
const EXTRAS = { inputs: "Inputs", agreement: "Agreement" }; // panels for the study: each on or off
const MAPS = { overlay: "Overlay", probability: "Probability", attention: "Attention", errors: "TP/FP/FN" };
const ABOUT = {
  probability: "Probability of tumour in each pixel, before the threshold.",
  attention: "Attention shows where the gate let features pass, level by level.",
  errors: "TP: model and reference; FP: model alone; FN: reference alone.",
};
const TALLEST = 1.12; // a frame around the head is not made narrower than this, or four do not fit a screen
const HELD = 350; // ms: a key pressed longer than this was held, not tapped

// ---- the viewer --------------------------------------------------------------------------------

class Viewer {
  constructor(root) {
    this.root = root;
    this.view = null;
    this.panels = [];
    this.layers = new Map();
    this.cursor = null;
    this.received = 0;
    this.asked = "";
    this.part = (name) => root.querySelector(`.${name}`);
    this.listen();
  }

  listen() {
    this.onPack = () => this.refresh();
    news.addEventListener("pack", this.onPack);
    this.resizes = new ResizeObserver(() => this.arrange());
    this.resizes.observe(this.root);
    this.onWindow = () => this.arrange();
    window.addEventListener("resize", this.onWindow);

    const choose = (place, titles, act) => {
      for (const [name, title] of Object.entries(titles)) {
        const button = make("button", name, title);
        button.type = "button";
        button.addEventListener("click", (e) => act(name, e.shiftKey));
        this.part(place).append(button);
      }
    };
    choose("extras", EXTRAS, (name) => this.set({ [name]: !this.state[name], focus: null }));
    choose("maps", MAPS, (name, add) => this.chooseMap(name, add));
    this.part("base").addEventListener("change", (e) => this.set({ base: e.target.value }));
    this.part("level").addEventListener("change", (e) => this.set({ level: Number(e.target.value), gates: {} }));
    this.part("opacity").addEventListener("input", (e) => this.set({ opacity: e.target.value / 100 }));
    this.part("fill").addEventListener("click", () => this.set({ fill: !this.state.fill }));
    this.part("outline").addEventListener("click", () => this.set({ outline: !this.state.outline }));
    this.part("hide").addEventListener("click", () => this.set({ hidden: !this.state.hidden }));
    this.part("fit").addEventListener("click", () => this.set({ fit: !this.state.fit }));
    this.part("slice").addEventListener("input", (e) => this.go(Number(e.target.value)));
    this.part("largest").addEventListener("click", () => this.cycle("largest"));
    this.part("worst").addEventListener("click", () => this.cycle("worst"));
    this.part("save").addEventListener("click", () => this.save());
    this.root.addEventListener("keydown", (e) => this.keyDown(e));
    this.root.addEventListener("keyup", (e) => this.keyUp(e));

    const grid = this.part("grid");
    grid.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    grid.addEventListener("pointerdown", (e) => this.dragStart(e));
    grid.addEventListener("pointermove", (e) => this.pointerMove(e));
    grid.addEventListener("pointerup", () => (this.drag = null));
    grid.addEventListener("pointercancel", () => (this.drag = null));
    grid.addEventListener("pointerleave", () => this.point(null));
    // Keys work where the pointer is, without a click first, unless someone is typing elsewhere.
    grid.addEventListener("pointerenter", () => {
      if (document.activeElement === document.body) this.root.focus({ preventScroll: true });
    });
    grid.addEventListener("dblclick", (e) => {
      if (e.target.closest("canvas")) this.set({ windows: this.defaultWindows() });
    });
  }

  close() {
    news.removeEventListener("pack", this.onPack);
    window.removeEventListener("resize", this.onWindow);
    this.resizes.disconnect();
  }

  async receive(received) {
    const turn = ++this.received;
    const { header, arrays } = await unpack(received);
    if (turn !== this.received) return; // a newer view overtook this one
    const before = this.view;
    this.view = header;
    this.masks = header.models.map((_, i) => arrays[`mask${i}`].data);
    if (before?.study.id !== header.study.id) this.begin();
    if (header.jump && header.jump.nonce !== before?.jump?.nonce && before) {
      this.state.slice = header.jump.slice;
      this.state.touched = true;
    }
    if (!this.state.touched && header.models.length > 0) {
      this.state.slice = header.models[0].largest ?? this.state.slice;
    }
    this.layers.clear();
    this.refresh();
  }

  begin() {
    const { study } = this.view;
    this.state = remembered.get(study.id) ?? {
      slice: study.first,
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
      windows: null,
    };
    remembered.set(study.id, this.state);
    this.cursor = null;
    this.asked = "";
    const base = this.part("base");
    base.replaceChildren(
      ...[["pre", "T1"], ["flair", "FLAIR"], ["post", "T1 + contrast"]].map(([name, title]) => new Option(title, name)),
    );
    this.part("slice").max = study.slices - 1;
  }

  get study() {
    return pack(this.view.study.id);
  }

  defaultWindows() {
    return Object.fromEntries(this.study.header.channels.map((c) => [c.name, [...c.window]]));
  }

  set(changes) {
    if (!this.state) return;
    Object.assign(this.state, changes);
    this.refresh();
  }

  chooseMap(name, add) {
    const { maps } = this.state;
    let shown = [name];
    if (add) shown = maps.includes(name) ? maps.filter((m) => m !== name) : [...maps, name];
    this.set({ maps: shown.length ? shown : [name], focus: null });
  }

  // ---- moving through slices

  go(slice) {
    if (!this.state) return;
    this.state.touched = true;
    const target = clamp(Math.round(slice), 0, this.view.study.slices - 1);
    if (target === this.state.slice) return;
    this.state.slice = target;
    this.say("");
    this.schedule();
  }

  cycle(which) {
    const stops = this.stops(which);
    if (!stops.length) return;
    this.turn = this.turned === which ? (this.turn + 1) % stops.length : 0;
    this.turned = which;
    this.go(stops[this.turn].slice);
    this.say(stops[this.turn].text);
  }

  stops(which) {
    const { models, reference, study } = this.view;
    const place = (slice) => `slice ${slice + 1} of ${study.slices}`;
    const stops = models
      .filter((m) => m[which] !== null)
      .map((m) => ({
        slice: m[which],
        text: `${which === "largest" ? "Largest area" : "Lowest Dice"} of ${m.title}: ${place(m[which])}`,
      }));
    if (which === "largest" && reference && reference.largest !== null) {
      stops.push({ slice: reference.largest, text: `Largest area of the reference: ${place(reference.largest)}` });
    }
    return stops;
  }

  wheel(event) {
    if (event.ctrlKey || !this.state) return; // the browser's own zoom
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 0 ? 1 : 40);
    // A notch of a mouse wheel is one slice whatever its size; a touch pad's trickle adds up.
    if (Math.abs(pixels) >= 50) {
      this.trickle = 0;
      this.go(this.state.slice + Math.sign(pixels));
      return;
    }
    this.trickle = (this.trickle ?? 0) + pixels;
    if (Math.abs(this.trickle) >= 30) {
      this.go(this.state.slice + Math.sign(this.trickle));
      this.trickle = 0;
    }
  }

  keyDown(event) {
    if (!this.state || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.composedPath()[0];
    const ownKeys = target.matches?.("select, .opacity");
    const last = this.view.study.slices - 1;
    const { slice } = this.state;
    const moves = {
      ArrowUp: slice - 1,
      ArrowDown: slice + 1,
      PageUp: slice - 5,
      PageDown: slice + 5,
      Home: 0,
      End: last,
    };
    if (event.key in moves && !ownKeys) {
      this.go(moves[event.key]);
    } else if (event.key === "h" && !event.repeat) {
      this.hiddenBefore = this.state.hidden;
      this.hiddenSince = performance.now();
      this.set({ hidden: !this.state.hidden });
    } else if (event.key === "o" && !event.repeat) {
      this.set({ outline: !this.state.outline });
    } else if (event.key === "f" && !event.repeat) {
      this.set({ fill: !this.state.fill });
    } else if (event.key === "z" && !event.repeat) {
      this.set({ fit: !this.state.fit });
    } else if (event.key === "Escape" && this.state.focus) {
      this.set({ focus: null });
    } else if (event.key !== "h") {
      return;
    }
    event.preventDefault();
  }

  keyUp(event) {
    if (event.key === "h" && performance.now() - (this.hiddenSince ?? 0) > HELD) {
      this.set({ hidden: this.hiddenBefore ?? false });
    }
  }

  // ---- pointer: window and level, readout

  panelAt(event) {
    const canvas = event.target.closest?.("canvas");
    return this.panels.find((p) => p.canvas === canvas);
  }

  dragStart(event) {
    const panel = this.panelAt(event);
    if (!panel || event.button !== 0 || !this.study) return;
    this.root.focus({ preventScroll: true });
    panel.canvas.setPointerCapture(event.pointerId);
    const channel = panel.channel ?? this.state.base;
    const [low, high] = this.state.windows[channel];
    this.drag = { x: event.clientX, y: event.clientY, channel, centre: (low + high) / 2, width: high - low };
  }

  pointerMove(event) {
    if (this.drag) {
      const { x, y, channel, centre, width } = this.drag;
      const newWidth = clamp(width + (event.clientX - x), 4, 510);
      const newCentre = clamp(centre + (event.clientY - y) / 2, -64, 320);
      const window = [newCentre - newWidth / 2, newCentre + newWidth / 2];
      this.set({ windows: { ...this.state.windows, [channel]: window } });
      return;
    }
    const panel = this.panelAt(event);
    if (!panel || !this.view) {
      this.point(null);
      return;
    }
    const box = panel.canvas.getBoundingClientRect();
    const { height, width } = this.view.study;
    const spot = new DOMPoint(event.clientX - box.left, event.clientY - box.top);
    const { x, y } = this.lens(box).inverse().transformPoint(spot);
    this.point({
      row: clamp(Math.floor(y), 0, height - 1),
      column: clamp(Math.floor(x), 0, width - 1),
    });
  }

  point(cursor) {
    const same = cursor?.row === this.cursor?.row && cursor?.column === this.cursor?.column;
    this.cursor = cursor;
    if (!same) this.schedule();
  }

  // ---- which panels

  wantedPanels() {
    const { models } = this.view;
    const shared = [];
    if (this.state.inputs || !models.length) {
      for (const name of Object.keys(CHANNEL_TITLES)) {
        shared.push({ id: `input-${name}`, kind: "input", channel: name, title: CHANNEL_TITLES[name] });
      }
    }
    if (this.state.agreement && models.length > 1) {
      shared.push({ id: "agreement", kind: "agreement", title: "Agreement" });
    }
    const rows = shared.length ? [shared] : [];
    for (const kind of this.mapsShown()) {
      const row = models.map((m, index) => ({ id: `${kind}-${m.name}`, kind, index, title: m.title }));
      if (row.length) rows.push(row);
    }
    if (this.state.focus) {
      const one = rows.flat().filter((p) => p.id === this.state.focus);
      if (one.length) return [one];
      this.state.focus = null;
    }
    return rows;
  }

  mapsShown() {
    const shown = Object.keys(MAPS).filter((m) => this.state.maps.includes(m));
    return this.view.reference ? shown : shown.map((m) => (m === "errors" ? "overlay" : m));
  }

  refresh() {
    if (!this.view || !this.state) return;
    if (this.study && !this.state.windows) this.state.windows = this.defaultWindows();
    this.drawControls();
    const rows = this.wantedPanels();
    const signature = JSON.stringify(rows.map((row) => row.map((p) => p.id)));
    if (signature !== this.signature) {
      this.signature = signature;
      this.rows = rows;
      this.panels = rows.flat().map((panel) => this.build(panel));
      const grid = this.part("grid");
      const focused = grid.contains(this.root.getRootNode().activeElement);
      grid.replaceChildren(...this.panels.map((p) => p.figure));
      if (focused) this.root.focus({ preventScroll: true }); // its element is gone, the keys must still work
    }
    for (const panel of this.panels) this.label(panel);
    this.arrange();
    this.askForGates();
    this.schedule();
  }

  drawControls() {
    const { models, reference, study } = this.view;
    const { state } = this;
    const press = (name, on) => this.part(name).setAttribute("aria-pressed", String(on));
    const some = models.length > 0;
    const offered = { inputs: some, agreement: models.length > 1, errors: some && reference !== null };
    const maps = some ? this.mapsShown() : [];
    for (const name of [...Object.keys(EXTRAS), ...Object.keys(MAPS)]) {
      press(name, name in EXTRAS ? state[name] && (offered[name] || name === "inputs") : maps.includes(name));
      this.part(name).disabled = !(offered[name] ?? some);
      this.part(name).title = name in MAPS ? "With Shift: beside the maps already shown" : "";
    }
    if (!reference) this.part("errors").title = "Needs a reference mask in the patient's files";
    if (models.length < 2) this.part("agreement").title = "Needs the results of two models";
    press("fill", state.fill);
    press("outline", state.outline);
    press("hide", state.hidden);
    press("fit", state.fit);
    this.part("opacity-field").hidden = !maps.some((m) => m === "overlay" || m === "errors");
    this.part("key-reference").replaceChildren();
    if (reference) this.part("key-reference").append(swatch(reference.colour, []), "Reference");
    this.part("base").value = state.base;
    this.part("opacity").value = Math.round(state.opacity * 100);
    this.part("largest").disabled = !this.stops("largest").length;
    this.part("worst").disabled = !this.stops("worst").length;
    this.part("worst").title = reference
      ? "Go to the slice with the lowest Dice; again: for the next model"
      : "Needs a reference mask in the patient's files";

    const levels = [...new Set(models.flatMap((m) => m.gates.map((g) => g.level)))].sort((a, b) => a - b);
    const select = this.part("level");
    this.part("level-field").hidden = !(maps.includes("attention") && levels.length);
    if (select.options.length !== levels.length) {
      select.replaceChildren(
        ...levels.map((l) => new Option(l === 0 ? "0, finest" : l === levels.at(-1) ? `${l}, coarsest` : `${l}`, l)),
      );
    }
    if (levels.length && !levels.includes(state.level)) state.level = levels[0];
    select.value = state.level;
    this.root.dataset.slices = study.slices;
    this.root.dataset.ready = String(Boolean(this.study));
  }

  build(panel) {
    const figure = make("figure", `panel ${panel.kind}`);
    figure.dataset.panel = panel.id;
    const header = make("header");
    const grow = make("button", "grow", "⤢");
    grow.type = "button";
    grow.addEventListener("click", () => this.set({ focus: this.state.focus ? null : panel.id }));
    const title = make("span", "title");
    header.append(title, grow);
    const stage = make("div", "stage");
    const canvas = make("canvas");
    canvas.setAttribute("role", "img");
    const instead = make("p", "instead");
    stage.append(canvas, instead);
    for (const [side, text] of Object.entries(this.view.study.edges ?? {})) {
      stage.append(make("span", `edge ${side}`, text));
    }
    const footer = make("footer");
    const note = make("span", "note");
    const gate = make("span", "gate");
    const value = make("span", "value");
    footer.append(note, gate, value);
    figure.append(header, stage, footer);
    return { ...panel, figure, header, title, grow, stage, canvas, instead, note, gate, value };
  }

  gatesShown(model) {
    return model.gates.filter((g) => g.level === this.state.level);
  }

  gateShown(model) {
    const gates = this.gatesShown(model);
    return gates.find((g) => g.id === this.state.gates[model.name]) ?? gates.at(-1) ?? null;
  }

  label(panel) {
    const { models, errors, votes } = this.view;
    const model = models[panel.index];
    const words = { probability: "probability", attention: "attention", errors: "TP/FP/FN" };
    panel.title.textContent = panel.title.title = panel.kind === "input" ? CHANNEL_TITLES[panel.channel] : "";
    panel.header.querySelector("svg")?.remove();
    panel.gate.replaceChildren();
    if (model) {
      panel.title.textContent = panel.title.title = model.title;
      panel.header.prepend(swatch(model.colour, model.dash));
      if (words[panel.kind]) panel.title.append(make("span", "what", ` ${words[panel.kind]}`));
    } else if (panel.kind === "agreement") {
      panel.title.textContent = "Agreement of the models";
    }
    const name = panel.title.textContent;
    panel.grow.setAttribute("aria-label", this.state.focus ? "Show all panels" : `Enlarge ${name}`);
    panel.grow.title = this.state.focus ? "Show all panels (Esc)" : "Enlarge";
    panel.grow.textContent = this.state.focus ? "⤡" : "⤢";

    panel.legend = null;
    if (panel.kind === "probability") panel.legend = this.ramp("viridis");
    if (panel.kind === "attention") {
      panel.legend = model.gates.length ? this.ramp("magma") : null;
      const gates = this.gatesShown(model);
      if (gates.length > 1) {
        const select = make("select");
        select.setAttribute("aria-label", `Gate of ${model.title}`);
        select.append(...gates.map((g) => new Option(g.gate, g.id)));
        select.value = this.gateShown(model).id;
        select.addEventListener("change", () =>
          this.set({ gates: { ...this.state.gates, [model.name]: select.value } }),
        );
        panel.gate.append(select);
      }
    }
    if (panel.kind === "errors") {
      panel.legend = keys([["TP", errors.tp], ["FP", errors.fp], ["FN", errors.fn]]);
    }
    if (panel.kind === "agreement") {
      panel.legend = keys(votes.slice(1).map((colour, i) => [String(i + 1), colour]));
      panel.legend.append(`of ${models.length} models`);
    }
  }

  ramp(map) {
    const span = make("span", "key");
    if (!this.study) return span;
    const { data } = this.study.arrays[map];
    const stops = [0, 32, 64, 96, 128, 160, 192, 224, 255].map(
      (i) => `rgb(${data[3 * i]} ${data[3 * i + 1]} ${data[3 * i + 2]})`,
    );
    const bar = make("span", "ramp");
    bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    span.append("0", bar, "1");
    return span;
  }

  // Attention is large (a nested network has twenty gates), so only what is looked at is sent.
  askForGates() {
    if (!this.mapsShown().includes("attention")) return;
    const ids = this.view.models.map((m) => this.gateShown(m)?.id).filter((id) => id && !packs.has(id));
    if (!ids.length) return;
    const wanted = [...new Set([...(this.view.wanted ?? []), ...ids])].sort();
    if (this.asked === wanted.join()) return;
    this.asked = wanted.join();
    this.want(wanted);
  }

  // ---- layout

  // The part of a slice that is shown: the head, and whatever any mask marks on any slice; or all of it.
  frame() {
    const { height, width, aspect } = this.view.study;
    if (!this.state.fit || !this.study) return { top: 0, left: 0, height, width };
    const boxes = [this.study.header.head, this.view.marks].filter(Boolean);
    let [top, left] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])));
    let [bottom, right] = [2, 3].map((i) => Math.max(...boxes.map((b) => b[i])));
    const widen = (low, high, wish, most) => {
      const size = Math.min(most, Math.max(high - low, Math.ceil(wish)));
      const start = clamp(Math.floor((low + high - size) / 2), 0, most - size);
      return [start, start + size];
    };
    [left, right] = widen(left, right, ((bottom - top) * aspect) / TALLEST, width);
    [top, bottom] = widen(top, bottom, (right - left) / aspect / TALLEST, height);
    return { top, left, height: bottom - top, width: right - left };
  }

  arrange() {
    if (!this.view || !this.panels.length) return;
    const frame = this.frame();
    const shape = (frame.height / frame.width) * this.view.study.aspect;
    const gap = 8;
    const chrome = 48;
    const across = this.root.clientWidth - 18;
    const down = Math.max(360, window.innerHeight - 210);
    if (across <= 0) return;
    const side = (columns, rows) =>
      Math.min((across - (columns - 1) * gap) / columns, ((down - (rows - 1) * gap) / rows - chrome) / shape);

    const all = this.rows.flat();
    const longest = Math.max(...this.rows.map((row) => row.length));
    let columns = longest;
    let flow = this.view.models.length < 2 || this.state.focus !== null;
    let best = side(longest, this.rows.length);
    if (flow) {
      best = -Infinity;
      for (let c = 1; c <= all.length; c++) {
        const s = side(c, Math.ceil(all.length / c));
        if (s > best) [best, columns] = [s, c];
      }
    }
    // Rather a longer page than stamps for pictures.
    let size = Math.max(best, Math.min(220, (across - (columns - 1) * gap) / columns));
    if (size < 150 && columns > 2) {
      flow = true;
      columns = Math.max(1, Math.floor((across + gap) / 200));
      size = (across - (columns - 1) * gap) / columns;
    }
    size = Math.floor(size);
    const grid = this.part("grid");
    grid.style.gridTemplateColumns = `repeat(${columns}, ${size}px)`;
    let i = 0;
    this.rows.forEach((row, r) =>
      row.forEach((_, c) => {
        const panel = this.panels[i++];
        panel.figure.style.gridArea = flow ? "auto" : `${r + 1} / ${c + 1}`;
        panel.stage.style.height = `${Math.round(size * shape)}px`;
        const ratio = window.devicePixelRatio || 1;
        const w = Math.round(size * ratio);
        const h = Math.round(Math.round(size * shape) * ratio);
        if (panel.canvas.width !== w || panel.canvas.height !== h) {
          panel.canvas.width = w;
          panel.canvas.height = h;
        }
      }),
    );
    this.schedule();
  }

  // ---- painting

  schedule() {
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      this.paint();
    });
  }

  paint() {
    if (!this.view || !this.state) return;
    const { study, models, reference } = this.view;
    const { slice } = this.state;
    const number = study.numbers[slice];
    this.part("slice").value = slice;
    const place = `slice ${slice + 1} / ${study.slices}`;
    this.part("slice").setAttribute("aria-valuetext", `${place}, number ${number} in the files`);
    this.part("where").textContent = `${place} · file number ${number}`;
    this.root.dataset.slice = slice;
    for (const panel of this.panels) {
      panel.figure.dataset.slice = slice;
      panel.canvas.setAttribute("aria-label", `${panel.title.textContent}, ${place}`);
      this.paintPanel(panel, models[panel.index], reference);
    }
    this.tabulate();
  }

  // A layer is remembered until something it was made from changes; `key` names all of that.
  layer(key, build) {
    let found = this.layers.get(key);
    if (!found) {
      if (this.layers.size > 400) this.layers.clear();
      found = build();
      this.layers.set(key, found);
    }
    return found;
  }

  plane({ data, shape }) {
    const size = shape.at(-1) * shape.at(-2);
    return data.subarray(this.state.slice * size, (this.state.slice + 1) * size);
  }

  anatomy(channel) {
    const [low, high] = this.state.windows[channel];
    const levels = this.study.arrays[channel];
    const [, height, width] = levels.shape;
    return this.layer(`anatomy ${channel} ${this.state.slice} ${low} ${high}`, () =>
      canvasOf(height, width, (pixels) => {
        const table = Uint32Array.from({ length: 256 }, (_, v) => {
          const g = clamp(Math.round(((v - low) / (high - low)) * 255), 0, 255);
          return rgba([g, g, g]);
        });
        this.plane(levels).forEach((v, i) => (pixels[i] = table[v]));
      }),
    );
  }

  mapped(id, name, colours) {
    const array = pack(id).arrays[name];
    const [, height, width] = array.shape;
    return this.layer(`map ${id} ${this.state.slice}`, () =>
      canvasOf(height, width, (pixels) => {
        const { data } = this.study.arrays[colours];
        const table = Uint32Array.from({ length: 256 }, (_, v) => rgba(data.subarray(3 * v, 3 * v + 3)));
        this.plane(array).forEach((v, i) => (pixels[i] = table[v]));
      }),
    );
  }

  painted(key, colourOf) {
    const { height, width } = this.view.study;
    return this.layer(`${key} ${this.state.slice} ${this.state.opacity}`, () =>
      canvasOf(height, width, (pixels) => {
        const start = this.state.slice * height * width;
        for (let i = 0; i < pixels.length; i++) pixels[i] = colourOf(start + i);
      }),
    );
  }

  path(key, mask) {
    const { height, width } = this.view.study;
    return this.layer(`path ${key} ${this.state.slice}`, () =>
      contour(mask, this.state.slice * height * width, height, width),
    );
  }

  // From slice pixels to canvas pixels.
  lens({ width: w, height: h }) {
    const { top, left, height, width } = this.frame();
    const [across, down] = [w / width, h / height];
    const [rows, columns] = this.view.study.mirror;
    return new DOMMatrix([columns ? -1 : 1, 0, 0, rows ? -1 : 1, columns ? w : 0, rows ? h : 0]).multiply(
      new DOMMatrix([across, 0, 0, down, -left * across, -top * down]),
    );
  }

  stroke(context, path, colour, dash) {
    const ratio = window.devicePixelRatio || 1;
    const scaled = new Path2D();
    scaled.addPath(path, this.lens(context.canvas));
    context.resetTransform(); // line widths in screen pixels, whatever the size of a slice pixel
    context.lineJoin = "round";
    // A dark casing keeps every hue readable on white matter and on black alike.
    context.setLineDash([]);
    context.strokeStyle = "rgb(0 0 0 / 55%)";
    context.lineWidth = 3.5 * ratio;
    context.stroke(scaled);
    context.setLineDash(dash.map((d) => d * ratio));
    context.strokeStyle = colour;
    context.lineWidth = 1.75 * ratio;
    context.stroke(scaled);
    context.setLineDash([]);
  }

  paintPanel(panel, model, reference) {
    const { canvas, instead } = panel;
    const context = canvas.getContext("2d");
    const { width: w, height: h } = canvas;
    const { state, study } = this;
    context.resetTransform();
    context.fillStyle = "#000";
    context.fillRect(0, 0, w, h);
    instead.textContent = "";
    panel.note.replaceChildren();
    panel.value.textContent = "";
    if (!study) {
      instead.textContent = "Loading the images …";
      return;
    }
    // Anatomy is smoothed, as on any reading station; maps are not, for no value may appear that no
    // network gave.
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.setTransform(this.lens(canvas));
    context.drawImage(this.anatomy(panel.channel ?? state.base), 0, 0);
    context.imageSmoothingEnabled = false;
    if (panel.legend) panel.note.append(panel.legend);
    const gate = panel.kind === "attention" ? this.gateShown(model) : null;
    if (panel.kind === "attention" && !gate) {
      context.resetTransform();
      context.fillRect(0, 0, w, h);
      instead.textContent = model.gates.length
        ? `${model.title} has no gate at this level.`
        : `${model.title} has no attention gates.`;
      return;
    }
    if (panel.kind === "probability" && !pack(model.id)) instead.textContent = "Loading the probabilities …";
    if (gate && !pack(gate.id)) instead.textContent = "Loading the attention map …";
    if (!state.hidden) this.paintMarks(context, panel, model, reference, gate);
    if (this.cursor) this.paintCursor(context);
    this.read(panel, model, reference, gate);
  }

  paintMarks(context, panel, model, reference, gate) {
    const { state, study, masks } = this;
    const { errors, votes } = this.view;
    const drawAll = (layer) => context.drawImage(layer, 0, 0);
    const truth = reference ? study.arrays.reference.data : null;
    const mask = masks[panel.index];
    const alpha = Math.round(state.opacity * 255);
    if (panel.kind === "overlay" && state.fill) {
      const colour = rgba(hex(model.colour), alpha);
      drawAll(this.painted(`fill ${panel.index}`, (i) => (mask[i] ? colour : 0)));
    } else if (panel.kind === "errors") {
      // At least half opaque: three meanings must stay apart.
      const [tp, fp, fn] = [errors.tp, errors.fp, errors.fn].map((c) => rgba(hex(c), Math.max(alpha, 140)));
      drawAll(
        this.painted(`errors ${panel.index}`, (i) => (mask[i] ? (truth[i] ? tp : fp) : truth[i] ? fn : 0)),
      );
    } else if (panel.kind === "agreement") {
      const colours = votes.map((c, n) => (n ? rgba(hex(c), 160) : 0));
      drawAll(this.painted("agreement", (i) => colours[masks.reduce((sum, m) => sum + m[i], 0)]));
    } else if (panel.kind === "probability" && pack(model.id)) {
      drawAll(this.mapped(model.id, "probability", "viridis"));
    } else if (gate && pack(gate.id)) {
      const [height, width] = pack(gate.id).header.size;
      context.drawImage(this.mapped(gate.id, "attention", "magma"), 0, 0, width, height);
    }
    if (!state.outline || panel.kind === "errors") return;
    if (truth) this.stroke(context, this.path("reference", truth), reference.colour, []);
    if (model) this.stroke(context, this.path(panel.index, mask), model.colour, model.dash);
  }

  paintCursor(context) {
    const ratio = window.devicePixelRatio || 1;
    const spot = new DOMPoint(this.cursor.column + 0.5, this.cursor.row + 0.5);
    const { x: exactX, y: exactY } = this.lens(context.canvas).transformPoint(spot);
    const [x, y] = [Math.round(exactX), Math.round(exactY)];
    context.resetTransform();
    const hole = 6 * ratio;
    const arm = 14 * ratio;
    context.fillStyle = "rgb(255 255 255 / 75%)";
    for (const sign of [-1, 1]) {
      context.fillRect(Math.min(x + sign * hole, x + sign * arm), y, arm - hole, ratio);
      context.fillRect(x, Math.min(y + sign * hole, y + sign * arm), ratio, arm - hole);
    }
  }

  // The line under a panel: its figures for this slice, and the value under the pointer.
  read(panel, model, reference, gate) {
    const { study, state, cursor, masks } = this;
    const { height, width } = this.view.study;
    const at = cursor && state.slice * height * width + cursor.row * width + cursor.column;
    const say = (text) => (panel.value.textContent = text);
    if (panel.kind === "input") {
      const channel = study.header.channels.find((c) => c.name === panel.channel);
      const [low, high] = state.windows[panel.channel].map((v) => v * channel.scale + channel.offset);
      const digits = channel.scale < 0.1 ? 2 : 0;
      panel.note.textContent = `W ${(high - low).toFixed(digits)} L ${((high + low) / 2).toFixed(digits)}`;
      if (cursor) say((study.arrays[panel.channel].data[at] * channel.scale + channel.offset).toFixed(digits));
      return;
    }
    if (panel.kind === "overlay") {
      const row = model.rows[state.slice];
      const dice = model.columns.indexOf("Dice");
      panel.note.textContent = `${row[0]} ${this.view.unit}`;
      if (dice > 0) panel.note.textContent += typeof row[dice] === "string" ? ` · Dice ${row[dice]}` : "";
    }
    if (!cursor) return;
    const probability = model && pack(model.id)?.arrays.probability.data[at];
    if (panel.kind === "agreement") say(`${masks.reduce((sum, m) => sum + m[at], 0)} of ${masks.length}`);
    else if (panel.kind === "errors") {
      const truth = study.arrays.reference.data[at];
      say(masks[panel.index][at] ? (truth ? "TP" : "FP") : truth ? "FN" : "TN");
    } else if (gate) {
      const value = this.coefficient(gate);
      if (value !== null) say(value.toFixed(2));
    } else if (probability !== undefined) say(`p ${(probability / 255).toFixed(2)}`);
  }

  coefficient(gate) {
    const content = pack(gate.id);
    if (!content) return null;
    const { size } = content.header;
    const [, rows, columns] = content.arrays.attention.shape;
    const row = Math.floor(((this.cursor.row + 0.5) / size[0]) * rows);
    const column = Math.floor(((this.cursor.column + 0.5) / size[1]) * columns);
    return this.plane(content.arrays.attention)[row * columns + column] / 255;
  }

  // ---- the table of this slice's figures, and what is said

  tabulate() {
    const { models, study, reference } = this.view;
    const place = this.cursor && `row ${this.cursor.row + 1}, column ${this.cursor.column + 1}`;
    const about = models.length ? this.mapsShown().map((m) => ABOUT[m]).filter(Boolean).join(" ") : "";
    if (this.part("said").dataset.kept !== "true") this.part("said").textContent = place ?? about;
    const key = `${this.received} ${this.state.slice}`;
    if (this.tabulated === key) return;
    this.tabulated = key;
    const figures = this.part("figures");
    if (!models.length) {
      figures.replaceChildren();
      return;
    }
    const table = make("table");
    table.append(make("caption", "", `This slice (${this.state.slice + 1} of ${study.slices})`));
    const head = table.createTHead().insertRow();
    for (const name of ["", ...models[0].columns]) {
      const cell = make("th", "", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const model of models) {
      const row = body.insertRow();
      const title = make("th");
      title.scope = "row";
      title.append(swatch(model.colour, model.dash), ` ${model.title}`);
      if (model.seen) title.append(make("span", "seen", " (patient seen in training)"));
      row.append(title);
      const [area, ...figures] = model.rows[this.state.slice];
      row.append(make("td", "", area));
      const reason = figures[0]?.none;
      if (reason && figures.every((f) => f.none === reason)) {
        const cell = make("td", "none", reason);
        cell.colSpan = figures.length;
        row.append(cell);
        continue;
      }
      for (const figure of figures) {
        row.append(make("td", figure.none ? "none" : "", figure.none ?? figure));
      }
    }
    if (reference) {
      const row = body.insertRow();
      const title = make("th");
      title.scope = "row";
      title.append(swatch(reference.colour, []), " Reference");
      const rest = make("td");
      rest.colSpan = models[0].columns.length - 1;
      row.append(title, make("td", "", reference.rows[this.state.slice]), rest);
    }
    figures.replaceChildren(table);
  }

  say(text) {
    const said = this.part("said");
    said.textContent = text;
    said.dataset.kept = String(text !== "");
  }

  // ---- the panels as one picture

  async save() {
    const { study } = this.view;
    const ratio = window.devicePixelRatio || 1;
    const grid = this.part("grid").getBoundingClientRect();
    const foot = 28;
    const canvas = new OffscreenCanvas(Math.ceil(grid.width * ratio), Math.ceil((grid.height + foot) * ratio));
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.fillStyle = "#060708";
    context.fillRect(0, 0, grid.width, grid.height + foot);
    context.font = "600 13px system-ui, sans-serif";
    context.textBaseline = "middle";
    for (const panel of this.panels) {
      const box = panel.stage.getBoundingClientRect();
      const [x, y] = [box.left - grid.left, box.top - grid.top];
      context.drawImage(panel.canvas, x, y, box.width, box.height);
      context.fillStyle = "#e8ebee";
      context.fillText(panel.title.textContent, x, y - 12, box.width);
      if (panel.instead.textContent) {
        context.textAlign = "center";
        context.fillText(panel.instead.textContent, x + box.width / 2, y + box.height / 2, box.width);
        context.textAlign = "left";
      }
    }
    context.fillStyle = "#a9b1ba";
    const place = `slice ${this.state.slice + 1} of ${study.slices}, file number ${study.numbers[this.state.slice]}`;
    context.fillText(`${study.title} · ${place} · ${this.view.label}`, 8, grid.height + foot / 2, grid.width - 16);
    const name = `${study.title}_${study.numbers[this.state.slice]}.png`;
    saveAs(await canvas.convertToBlob({ type: "image/png" }), name);
  }
}

// ---- legends -----------------------------------------------------------------------------------

function swatch(colour, dash) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", "22");
  svg.setAttribute("height", "10");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const attributes = { x1: 0, x2: 22, y1: 5, y2: 5, stroke: colour, "stroke-width": 3 };
  if (dash.length) attributes["stroke-dasharray"] = dash.join(" ");
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, String(value));
  svg.append(line);
  return svg;
}

function keys(entries) {
  const span = make("span", "legend");
  for (const [text, colour] of entries) {
    const key = make("span", "key");
    const patch = make("i");
    patch.style.background = colour;
    key.append(patch, text);
    span.append(key);
  }
  return span;
}
