// @ts-check
// The coefficients of one attention gate, on the gate's own grid.
import { make } from "../dom.js";
import { plane } from "../layers.js";
import { ramp } from "../legend.js";
/** @import { AttentionHeader, Cursor, Gate, Model, Pack, PanelKind, State } from "../types.d.ts" */

/**
 * The gate looked at: the one chosen, or the last of the level; null if the model has none there.
 * @param {Model} model
 * @param {Pick<State, "level" | "gates">} state
 * @returns {Gate | null}
 */
export function gateShown(model, state) {
  const gates = gatesAt(model, state.level);
  return gates.find((g) => g.id === state.gates[model.name]) ?? gates.at(-1) ?? null;
}

/** @param {Model} model @param {number} level */
const gatesAt = (model, level) => model.gates.filter((g) => g.level === level);

/**
 * The coefficient at a pixel; null outside the gate's grid.
 * @param {Pack<AttentionHeader>} pack
 * @param {number} slice
 * @param {Cursor} cursor
 */
export function coefficient({ header, arrays }, slice, cursor) {
  const [top, left, height, width] = header.grid;
  const [, rows, columns] = arrays.attention.shape;
  const row = Math.floor(((cursor.row + 0.5 - top) / height) * rows);
  const column = Math.floor(((cursor.column + 0.5 - left) / width) * columns);
  if (row < 0 || column < 0 || row >= rows || column >= columns) return null;
  return plane(arrays.attention, slice)[row * columns + column] / 255;
}

/** @type {PanelKind} */
export const attention = {
  name: "attention",
  label: "Attention",
  title: () => "attention",
  about: "Attention shows where the gate let features pass, level by level.",
  legend: (panel) => (panel.model?.gates.length ? ramp(panel.palette("magma")) : null),
  control({ model, state, viewer }) {
    const gates = model ? gatesAt(model, state.level) : [];
    if (!model || gates.length < 2) return null;
    const select = make("select");
    select.setAttribute("aria-label", `Gate of ${model.title}`);
    select.append(...gates.map((g) => new Option(g.gate, g.id)));
    select.value = gateShown(model, state)?.id ?? "";
    select.addEventListener("change", () =>
      viewer.set({ gates: { ...viewer.state.gates, [model.name]: select.value } }),
    );
    return select;
  },
  paint(scene) {
    const { model, state } = scene;
    if (!model) return;
    const gate = gateShown(model, state);
    if (!gate) {
      scene.clear(`${model.title} has no ${model.gates.length ? "gate at this level" : "attention gates"}.`);
      return;
    }
    const pack = scene.pack(gate.id);
    if (pack) scene.map(gate.id, "attention", "magma", pack.header.grid);
    else scene.wait("Loading the attention map …");
    scene.outlines();
  },
  read(scene) {
    const gate = scene.model && gateShown(scene.model, scene.state);
    const pack = gate && scene.pack(gate.id);
    const value = pack && scene.cursor && coefficient(pack, scene.slice, scene.cursor);
    return { value: value === null ? "" : value.toFixed(2) };
  },
};
