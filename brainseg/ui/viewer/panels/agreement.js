// @ts-check
// How many of the models mark each pixel.
import { hex, rgba } from "../layers.js";
import { keys } from "../legend.js";
/** @import { PanelKind } from "../types.d.ts" */

/** @type {PanelKind} */
export const agreement = {
  name: "agreement",
  label: "Agreement",
  title: () => "Agreement of the models",
  about: "",
  legend({ view }) {
    const legend = keys(view.votes.slice(1).map((colour, i) => [String(i + 1), colour]));
    legend.append(`of ${view.models.length} models`);
    return legend;
  },
  paint(scene) {
    const colours = scene.view.votes.map((colour, n) => (n ? rgba(hex(colour), 160) : 0));
    scene.fill("agreement", (i) => colours[scene.votes(i)]);
    scene.outlines();
  },
  read(scene) {
    return { value: scene.at === null ? "" : `${scene.votes(scene.at)} of ${scene.view.models.length}` };
  },
};
