// @ts-check
// Files come through the session's own connection, never from an address that others could open.
import { make, saveAs } from "./dom.js";
import { unpack } from "./wire.js";
/** @import { Downloads, Message } from "./types.d.ts" */

/** @type {WeakMap<object, number>} element -> number of the last file saved */
const saved = new WeakMap();

/**
 * Buttons for what is offered; and the file that came with them, saved once.
 * @param {Message<Downloads>} message
 * @param {ParentNode} root of the element, which holds the row
 * @param {(name: string) => void} ask
 */
export function offer(message, root, ask) {
  const { offers, file } = message.header;
  const row = /** @type {HTMLElement} */ (root.querySelector(".downloads"));
  row.replaceChildren(
    ...offers.map(({ name, title, hint }) => {
      const button = make("button", name, title);
      button.type = "button";
      button.title = hint;
      button.addEventListener("click", () => {
        row.querySelectorAll("button").forEach((b) => (b.disabled = true));
        button.textContent = "Preparing …";
        ask(name);
      });
      return button;
    }),
  );
  if (!file || saved.get(root) === file.number) return;
  saved.set(root, file.number);
  unpack(message).then(({ arrays }) => {
    const bytes = /** @type {Uint8Array<ArrayBuffer>} */ (arrays.file.data);
    saveAs(new Blob([bytes], { type: file.type }), file.name);
  });
}
