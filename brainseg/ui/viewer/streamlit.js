// @ts-check
// The face in Streamlit: its components call the default export with every message, and keep the HTML.
import { offer } from "./downloads.js";
import { hold } from "./packs.js";
import { Viewer } from "./viewer.js";
import { parse } from "./wire.js";

/**
 * What Streamlit's components v2 hand over.
 * @typedef {object} Component
 * @property {Uint8Array | null} data
 * @property {HTMLElement | ShadowRoot} parentElement the same for every message to one element
 * @property {(name: string, value: unknown) => void} setStateValue
 * @property {(name: string, value: unknown) => void} setTriggerValue
 */

/** @type {WeakMap<object, Viewer>} */
const viewers = new WeakMap();

/**
 * @param {Component} component
 * @returns {(() => void) | undefined} called when the element leaves the page
 */
export default function mount({ data, parentElement, setStateValue, setTriggerValue }) {
  if (!data) return undefined;
  const message = parse(data);
  if (message.header.kind === "pack") return hold(message, parentElement);
  if (message.header.kind === "downloads") {
    offer(message, parentElement, (name) => setTriggerValue("asked", name));
    return undefined;
  }
  /** @param {string[]} gates */
  const want = (gates) => setStateValue("wanted", gates);
  let viewer = viewers.get(parentElement);
  if (!viewer) {
    const root = /** @type {HTMLElement} */ (parentElement.querySelector(".viewer"));
    viewer = new Viewer(root, want);
    viewers.set(parentElement, viewer);
  }
  viewer.want = want;
  viewer.receive(message);
  const shown = viewer;
  return () => {
    shown.close();
    viewers.delete(parentElement);
  };
}
