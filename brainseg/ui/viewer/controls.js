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

/** @param {Viewer} viewer */
export function listenToControls(viewer) {
  const part = viewer.part;
  /**
   * @param {"extras" | "maps"} row
   * @param {string} name
   * @param {string} label
   * @param {(add: boolean) => void} act
   */
  const addButton = (row, name, label, act) => {
    const button = make("button", name, label);
    button.type = "button";
    button.addEventListener("click", (event) => act(event.shiftKey));
    part(row).append(button);
  };
  for (const name of /** @type {(keyof typeof EXTRAS)[]} */ (Object.keys(EXTRAS))) {
    addButton("extras", name, EXTRAS[name].label, () => {
      viewer.set({ focus: null });
      viewer.toggle(name);
    });
  }
  for (const { name, label } of MAPS) {
    addButton("maps", name, label, (add) => {
      if (viewer.ready) viewer.set({ maps: chooseMap(viewer.state.maps, name, add), focus: null });
    });
  }
  part("base").append(...BASES.map(([name, title]) => new Option(title, name)));
  part("base").addEventListener("change", () =>
    viewer.set({ base: /** @type {Channel} */ (part("base").value) }),
  );
  part("level").addEventListener("change", () =>
    viewer.set({ level: Number(part("level").value), gates: {} }),
  );
  part("opacity").addEventListener("input", () =>
    viewer.set({ opacity: Number(part("opacity").value) / 100 }),
  );
  part("slice").addEventListener("input", () => viewer.go(Number(part("slice").value)));
  part("fill").addEventListener("click", () => viewer.toggle("fill"));
  part("outline").addEventListener("click", () => viewer.toggle("outline"));
  part("hide").addEventListener("click", () => viewer.toggle("hidden"));
  part("fit").addEventListener("click", () => viewer.toggle("fit"));
  part("largest").addEventListener("click", () => viewer.tour("largest"));
  part("worst").addEventListener("click", () => viewer.tour("worst"));
  part("save").addEventListener("click", () => viewer.save());
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
