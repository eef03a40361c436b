// @ts-check
// One channel as it was read.
/** @import { PanelKind } from "../types.d.ts" */

export const CHANNELS = { pre: "T1 before contrast", flair: "FLAIR", post: "T1 after contrast" };

/** @type {PanelKind} */
export const input = {
  name: "input",
  label: "Inputs",
  title: (panel) => CHANNELS[panel.channel],
  about: "",
  legend: () => null,
  paint: (scene) => scene.outlines(),
  read({ study, panel, windows, at }) {
    const channel = study.header.channels.find((c) => c.name === panel.channel);
    if (!channel) return {};
    const intensity = (/** @type {number} */ level) => level * channel.scale + channel.offset;
    const [low, high] = windows[channel.name].map(intensity);
    const digits = channel.scale < 0.1 ? 2 : 0;
    return {
      note: `W ${(high - low).toFixed(digits)} L ${((high + low) / 2).toFixed(digits)}`,
      value: at === null ? "" : intensity(study.arrays[channel.name].data[at]).toFixed(digits),
    };
  },
};
