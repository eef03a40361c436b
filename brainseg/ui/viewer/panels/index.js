// @ts-check
// Which kinds of panels there are, and which of them are shown.
import { agreement } from "./agreement.js";
import { attention } from "./attention.js";
import { errors } from "./errors.js";
import { CHANNELS, input } from "./input.js";
import { overlay } from "./overlay.js";
import { probability } from "./probability.js";
/** @import { Channel, Place, State, View } from "../types.d.ts" */

/** Maps of each model, in the order of their rows. */
export const MAPS = [overlay, probability, attention, errors];

/** Panels of the study, each on or off, by the name under which the state has it. */
export const EXTRAS = /** @type {const} */ ({ inputs: input, agreement });

/**
 * The maps shown; errors need a reference, and without one the overlay stands in.
 * @param {Pick<View, "reference">} view
 * @param {Pick<State, "maps">} state
 */
export function mapsShown(view, state) {
  const shown = MAPS.filter((kind) => state.maps.includes(kind.name));
  return view.reference ? shown : [...new Set(shown.map((kind) => (kind === errors ? overlay : kind)))];
}

/**
 * The panels shown, row by row; one alone if it has the focus.
 * @param {View} view
 * @param {State} state
 * @returns {Place[][]}
 */
export function places(view, state) {
  const { models } = view;
  /** @type {Place[]} */
  const shared = [];
  if (state.inputs || !models.length) {
    for (const channel of /** @type {Channel[]} */ (Object.keys(CHANNELS))) {
      shared.push({ id: `input-${channel}`, kind: input, channel });
    }
  }
  if (state.agreement && models.length > 1) shared.push({ id: "agreement", kind: agreement });
  const maps = mapsShown(view, state).map((kind) =>
    models.map((model, index) => ({ id: `${kind.name}-${model.name}`, kind, index })),
  );
  const rows = [shared, ...maps].filter((row) => row.length);
  const one = rows.flat().filter((place) => place.id === state.focus);
  return one.length ? [one] : rows;
}
