// @ts-check
// Arrays that are sent once and drawn from many times.
import { shared } from "./shared.js";
import { unpack } from "./wire.js";
/** @import { Message, Pack } from "./types.d.ts" */

// A face may mount the next copy of an element before it removes the last, or just after.
const GRACE = 3000; // ms

/**
 * Keep a pack for as long as any owner wants it.
 * @param {Message<{ id: string }>} message
 * @param {object} owner
 * @returns {() => void} gives it up
 */
export function hold(message, owner) {
  const { packs, news } = shared;
  const { id } = message.header;
  let held = packs.get(id);
  if (!held) {
    held = { owners: new Set(), content: null };
    packs.set(id, held);
    const fresh = held;
    unpack(message).then((content) => {
      fresh.content = content;
      news.dispatchEvent(new Event("pack"));
    });
  }
  held.owners.add(owner);
  return () => {
    setTimeout(() => {
      const pack = packs.get(id);
      pack?.owners.delete(owner);
      if (pack?.owners.size === 0) packs.delete(id);
    }, GRACE);
  };
}

/** @param {string} id @returns {Pack | null} null while it has not come or is being unpacked */
export const pack = (id) => shared.packs.get(id)?.content ?? null;

/** @param {string} id whether it has come, unpacked or not */
export const has = (id) => shared.packs.has(id);
