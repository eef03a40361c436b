// @ts-check
// The figures of one slice, as a table.
import { make } from "./dom.js";
import { swatch } from "./legend.js";
/** @import { Model, View } from "./types.d.ts" */

/** @param {View} view @param {number} slice */
export function sliceTable({ models, study, reference }, slice) {
  const table = make("table");
  table.append(make("caption", "", `This slice (${slice + 1} of ${study.slices})`));
  const head = table.createTHead().insertRow();
  for (const name of ["", ...models[0].columns]) {
    const cell = make("th", "", name);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  for (const model of models) body.append(modelRow(model, slice));
  if (reference) {
    const rest = make("td");
    rest.colSpan = models[0].columns.length - 1;
    const row = body.insertRow();
    row.append(rowTitle("Reference", reference.colour, []), make("td", "", reference.rows[slice]), rest);
  }
  return table;
}

/** @param {Model} model @param {number} slice */
function modelRow(model, slice) {
  const row = make("tr");
  const title = rowTitle(model.title, model.colour, model.dash);
  if (model.seen) title.append(make("span", "seen", " (patient seen in training)"));
  const cells = model.rows[slice].map((figure) =>
    typeof figure === "string" ? make("td", "", figure) : make("td", "none", figure.none),
  );
  row.append(title, ...cells);
  // One reason for all figures beside the area is said once.
  const [, first, ...others] = cells;
  if (first?.className && others.every((c) => c.className && c.textContent === first.textContent)) {
    first.colSpan = cells.length - 1;
    others.forEach((c) => c.remove());
  }
  return row;
}

/** @param {string} text @param {string} colour @param {number[]} dash */
function rowTitle(text, colour, dash) {
  const title = make("th");
  title.scope = "row";
  title.append(swatch(colour, dash), ` ${text}`);
  return title;
}
