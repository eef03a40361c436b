// @ts-check
// The panels as one picture, with the patient, the slice and the label under them.
/** @import { Viewer } from "./viewer.js" */

const FOOT = 28; // px

/**
 * @param {Viewer} viewer
 * @returns {Promise<{ blob: Blob, name: string }>}
 */
export async function picture({ view, state, panels, part }) {
  const { study } = view;
  const ratio = window.devicePixelRatio || 1;
  const grid = part("grid").getBoundingClientRect();
  const canvas = new OffscreenCanvas(Math.ceil(grid.width * ratio), Math.ceil((grid.height + FOOT) * ratio));
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.scale(ratio, ratio);
  context.fillStyle = "#060708";
  context.fillRect(0, 0, grid.width, grid.height + FOOT);
  context.font = "600 13px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const panel of panels) {
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
  const number = study.numbers[state.slice];
  const place = `slice ${state.slice + 1} of ${study.slices}, file number ${number}`;
  context.fillText(`${study.title} · ${place} · ${view.label}`, 8, grid.height + FOOT / 2, grid.width - 16);
  return { blob: await canvas.convertToBlob({ type: "image/png" }), name: `${study.title}_${number}.png` };
}
