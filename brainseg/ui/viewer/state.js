// @ts-check
// What the user has set, and the moves that need no picture.
import { shared } from "./shared.js";
/** @import { Channel, Pack, State, StudyHeader, View, Window } from "./types.d.ts" */

/**
 * What was set for this study before, or how a study begins.
 * @param {View["study"]} study
 * @returns {State}
 */
export function stateOf(study) {
  let state = shared.states.get(study.id);
  if (!state) {
    state = {
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
    shared.states.set(study.id, state);
  }
  return state;
}

/** @param {Pack<StudyHeader>} study @returns {Record<Channel, Window>} */
export function defaultWindows(study) {
  const windows = study.header.channels.map(({ name, window: [low, high] }) => [name, [low, high]]);
  return Object.fromEntries(windows);
}

/**
 * The maps shown after a click on one: that one alone, or with Shift one more or one less, never none.
 * @param {string[]} maps
 * @param {string} name
 * @param {boolean} add
 */
export function chooseMap(maps, name, add) {
  let shown = [name];
  if (add) shown = maps.includes(name) ? maps.filter((m) => m !== name) : [...maps, name];
  return shown.length ? shown : [name];
}

/**
 * Where "Largest slice" and "Worst slice" lead, one stop for each click.
 * @param {View} view
 * @param {"largest" | "worst"} which
 * @returns {{ slice: number, text: string }[]}
 */
export function stops({ models, reference, study }, which) {
  const what = which === "largest" ? "Largest area" : "Lowest Dice";
  /** @type {[string, number | null][]} */
  const all = models.map((m) => [m.title, m[which]]);
  if (which === "largest" && reference) all.push(["the reference", reference.largest]);
  return all.flatMap(([whose, slice]) =>
    slice === null ? [] : [{ slice, text: `${what} of ${whose}: slice ${slice + 1} of ${study.slices}` }],
  );
}

/** Resolution levels at which any model has a gate, finest first. @param {Pick<View, "models">} view */
export function levels({ models }) {
  return [...new Set(models.flatMap((m) => m.gates.map((g) => g.level)))].sort((a, b) => a - b);
}
