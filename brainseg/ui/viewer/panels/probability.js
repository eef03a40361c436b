// @ts-check
// A model's probability, before the threshold.
import { ramp } from "../legend.js";
/** @import { PanelKind } from "../types.d.ts" */

/** @type {PanelKind} */
export const probability = {
  name: "probability",
  label: "Probability",
  title: () => "probability",
  about: "Probability of tumour in each pixel, before the threshold.",
  legend: (panel) => ramp(panel.palette("viridis")),
  paint(scene) {
    if (!scene.model) return;
    if (scene.pack(scene.model.id)) scene.map(scene.model.id, "probability", "viridis");
    else scene.wait("Loading the probabilities …");
    scene.outlines();
  },
  read: (scene) => ({ value: scene.probability() }),
};
