// @ts-check
// A model's mask over the anatomy.
import { hex, rgba } from "../layers.js";
/** @import { PanelKind } from "../types.d.ts" */

/** @type {PanelKind} */
export const overlay = {
  name: "overlay",
  label: "Overlay",
  title: () => "",
  about: "",
  legend: () => null,
  paint(scene) {
    const { model, mask, state } = scene;
    if (!model) return;
    if (state.fill) {
      const colour = rgba(hex(model.colour), scene.alpha);
      scene.fill(`fill ${model.name}`, (i) => (mask[i] ? colour : 0));
    }
    scene.outlines();
  },
  read(scene) {
    const { model, slice, view } = scene;
    if (!model) return {};
    const row = model.rows[slice];
    const dice = row[model.columns.indexOf("Dice")];
    const area = `${row[0]} ${view.unit}`;
    return { note: typeof dice === "string" ? `${area} · Dice ${dice}` : area, value: scene.probability() };
  },
};
