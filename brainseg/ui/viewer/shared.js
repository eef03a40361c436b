// @ts-check
// What the elements of one page share. A face may load this code once for each element, so it lies in the
// page and not in a module.
/** @import { Pack, State } from "./types.d.ts" */

/**
 * @typedef {object} Shared
 * @property {Map<string, { owners: Set<object>, content: Pack | null }>} packs by id; null while unpacked
 * @property {EventTarget} news says "pack" when one has arrived
 * @property {Map<string, State>} states by study
 */

const page = /** @type {{ brainseg?: Shared }} */ (globalThis);

/** @type {Shared} */
export const shared = (page.brainseg ??= { packs: new Map(), news: new EventTarget(), states: new Map() });
