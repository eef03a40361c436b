// @ts-check
// The bars above the panels: what they set, and how they show what is set.
import { make } from "./dom.js";
import { swatch } from "./legend.js";
import { EXTRAS, MAPS, mapsShown } from "./panels/index.js";
import { chooseMap, levels, stops } from "./state.js";
/** @import { Channel, Parts } from "./types.d.ts" */
/** @typedef {"inputs" | "agreement" | "overlay" | "probability" | "attention" | "errors" | "worst"} Switch */
/** @import { Viewer } from "./viewer.js" */

/** @type {[Channel, string][]} */
const BASES = [["pre", "T1"], ["flair", "FLAIR"], ["post", "T1 + contrast"]];
const NEEDS_REFERENCE = "Needs a reference mask in the patient's files";

/**
 * @param {Viewer} viewer
 * @param {AbortSignal} signal ends it
 */
export function listenToControls(viewer, signal) {
  const part = viewer.part;
  /** @param {string} name @param {string} label @param {(add: boolean) => void} act */
  const button = (name, label, act) => {
    const made = make("button", name, label);
    made.type = "button";
    made.addEventListener("click", (event) => act(event.shiftKey), { signal });
    return made;
  };
  const extras = /** @type {(keyof typeof EXTRAS)[]} */ (Object.keys(EXTRAS)).map((name) =>
    button(name, EXTRAS[name].label, () => {
      viewer.set({ focus: null });
      viewer.toggle(name);
    }),
  );
  const maps = MAPS.map(({ name, label }) =>
    button(name, label, (add) => {
      if (viewer.ready) viewer.set({ maps: chooseMap(viewer.state.maps, name, add), focus: null });
    }),
  );
  part("extras").replaceChildren(...extras);
  part("maps").replaceChildren(...maps);
  part("base").replaceChildren(...BASES.map(([name, title]) => new Option(title, name)));

  /** @param {keyof Parts} name @param {string} event @param {() => void} act */
  const on = (name, event, act) => part(name).addEventListener(event, act, { signal });
  on("base", "change", () => viewer.set({ base: /** @type {Channel} */ (part("base").value) }));
  on("level", "change", () => viewer.set({ level: Number(part("level").value), gates: {} }));
  on("opacity", "input", () => viewer.set({ opacity: Number(part("opacity").value) / 100 }));
  on("slice", "input", () => viewer.go(Number(part("slice").value)));
  on("fill", "click", () => viewer.toggle("fill"));
  on("outline", "click", () => viewer.toggle("outline"));
  on("hide", "click", () => viewer.toggle("hidden"));
  on("fit", "click", () => viewer.toggle("fit"));
  on("largest", "click", () => viewer.tour("largest"));
  on("worst", "click", () => viewer.tour("worst"));
  on("save", "click", () => viewer.save());
}

/** Show what is set and what can be. @param {Viewer} viewer */
export function drawControls({ part, view, state }) {
  const { models, reference } = view;
  const some = models.length > 0;
  const maps = some ? mapsShown(view, state) : [];
  /** @param {keyof Parts} name @param {boolean} on */
  const press = (name, on) => part(name).setAttribute("aria-pressed", String(on));
  /** @param {Switch} name @param {boolean} able */
  const enable = (name, able, title = "") => {
    part(name).disabled = !able;
    part(name).title = title;
  };

  press("inputs", state.inputs);
  enable("inputs", some);
  press("agreement", state.agreement && models.length > 1);
  enable("agreement", models.length > 1, models.length > 1 ? "" : "Needs the results of two models");
  for (const kind of MAPS) {
    const name = /** @type {Switch} */ (kind.name);
    const lacking = name === "errors" && !reference;
    press(name, maps.includes(kind));
    enable(name, some && !lacking, lacking ? NEEDS_REFERENCE : "With Shift: beside the maps already shown");
  }
  press("fill", state.fill);
  press("outline", state.outline);
  press("hide", state.hidden);
  press("fit", state.fit);
  part("opacity-field").hidden = !maps.some((kind) => kind.name === "overlay" || kind.name === "errors");
  part("key-reference").replaceChildren();
  if (reference) part("key-reference").append(swatch(reference.colour, []), "Reference");
  part("base").value = state.base;
  part("opacity").value = String(Math.round(state.opacity * 100));
  part("largest").disabled = !stops(view, "largest").length;
  enable(
    "worst",
    stops(view, "worst").length > 0,
    reference ? "Go to the slice with the lowest Dice; again: for the next model" : NEEDS_REFERENCE,
  );

  const offered = levels(view);
  const select = part("level");
  part("level-field").hidden = !(maps.some((kind) => kind.name === "attention") && offered.length);
  if (select.options.length !== offered.length) {
    select.replaceChildren(...offered.map((level) => new Option(levelTitle(level, offered), String(level))));
  }
  select.value = String(state.level);
}

/** @param {number} level @param {number[]} offered */
function levelTitle(level, offered) {
  if (level === 0) return "0, finest";
  return level === offered.at(-1) ? `${level}, coarsest` : String(level);
}
