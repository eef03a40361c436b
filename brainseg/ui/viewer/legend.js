// @ts-check
// What colours and lines mean.
import { make } from "./dom.js";
/** @import { NdArray } from "./types.d.ts" */

const SVG = "http://www.w3.org/2000/svg";

/** A sample of a line. @param {string} colour @param {number[]} dash */
export function swatch(colour, dash) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("width", "22");
  svg.setAttribute("height", "10");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "line");
  const attributes = { x1: 0, x2: 22, y1: 5, y2: 5, stroke: colour, "stroke-width": 3 };
  for (const [name, value] of Object.entries(attributes)) line.setAttribute(name, String(value));
  if (dash.length) line.setAttribute("stroke-dasharray", dash.join(" "));
  svg.append(line);
  return svg;
}

/** Patches of colour with their meanings. @param {[string, string][]} entries text and colour */
export function keys(entries) {
  const span = make("span", "legend");
  for (const [text, colour] of entries) {
    const key = make("span", "key");
    const patch = make("i");
    patch.style.background = colour;
    key.append(patch, text);
    span.append(key);
  }
  return span;
}

/** A colour bar from 0 to 1; empty until the palette has come. @param {NdArray | undefined} palette */
export function ramp(palette) {
  const span = make("span", "key");
  if (!palette) return span;
  const { data } = palette;
  const stops = [0, 32, 64, 96, 128, 160, 192, 224, 255].map(
    (i) => `rgb(${data[3 * i]} ${data[3 * i + 1]} ${data[3 * i + 2]})`,
  );
  const bar = make("span", "ramp");
  bar.style.background = `linear-gradient(to right, ${stops.join(",")})`;
  span.append("0", bar, "1");
  return span;
}
