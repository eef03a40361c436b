// @ts-check
// A model's mask against the reference: three meanings, three colours.
import { hex, rgba } from "../layers.js";
import { keys } from "../legend.js";
/** @import { PanelKind } from "../types.d.ts" */

const LEAST = 140; // of 255: three meanings must stay apart, however low the opacity is set

/** @type {PanelKind} */
export const errors = {
  name: "errors",
  label: "TP/FP/FN",
  title: () => "TP/FP/FN",
  about: "TP: model and reference; FP: model alone; FN: reference alone.",
  legend({ view: { errors: colours } }) {
    return keys([["TP", colours.tp], ["FP", colours.fp], ["FN", colours.fn]]);
  },
  paint(scene) {
    const { model, mask, truth, view } = scene;
    if (!model || !truth) return;
    const { tp, fp, fn } = view.errors;
    const [both, added, missed] = [tp, fp, fn].map((c) => rgba(hex(c), Math.max(scene.alpha, LEAST)));
    scene.fill(`errors ${model.name}`, (i) => (mask[i] ? (truth[i] ? both : added) : truth[i] ? missed : 0));
  },
  read({ mask, truth, at }) {
    if (at === null || !truth) return {};
    return { value: mask[at] ? (truth[at] ? "TP" : "FP") : truth[at] ? "FN" : "TN" };
  },
};
