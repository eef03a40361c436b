// @ts-check
// Messages of Python (see wire.py): a header, then arrays, each packed in its own way.
/** @import { Arrays, Block, Coding, Message, Pack } from "./types.d.ts" */

/**
 * Split a message into its header and the bytes of its blocks, which stay packed.
 * @param {Uint8Array} bytes
 * @returns {Message}
 */
export function parse(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  return { header, body: bytes.subarray(4 + length) };
}

/**
 * The arrays of a message.
 * @param {Message} message
 * @returns {Promise<Pack>} rejected if a block holds anything but what its shape asks for
 */
export async function unpack({ header, body }) {
  /** @type {Arrays} */
  const arrays = {};
  await Promise.all(
    Object.entries(header.blocks).map(async ([name, block]) => {
      arrays[name] = { shape: block.shape, data: decode(await inflate(body, block), block, name) };
    }),
  );
  return { header, arrays };
}

/** @param {Uint8Array} body @param {Block} block @returns {Promise<Uint8Array>} */
async function inflate(body, { start, size }) {
  const deflated = /** @type {Uint8Array<ArrayBuffer>} */ (body.subarray(start, start + size));
  const inflated = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(inflated).arrayBuffer());
}

/** @param {Uint8Array} bytes @param {Block} block @param {string} name @returns {Uint8Array} */
function decode(bytes, { shape, coding }, name) {
  const count = shape.reduce((a, b) => a * b, 1);
  const expected = coding === "bits" ? Math.ceil(count / 8) : count;
  if (bytes.length !== expected) {
    throw new RangeError(`${name}: ${bytes.length} bytes instead of ${expected}`);
  }
  return decoders[coding](bytes, shape, count);
}

/** @type {Record<Coding, (bytes: Uint8Array, shape: number[], count: number) => Uint8Array>} */
const decoders = {
  raw: (bytes) => bytes,
  bits(bytes, _, count) {
    const out = new Uint8Array(count);
    for (let i = 0; i < count; i++) out[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1;
    return out;
  },
  plane(bytes, shape) {
    const [height, width] = shape.slice(-2);
    const plane = height * width;
    for (let i = 0; i < bytes.length; i++) if (i % width) bytes[i] += bytes[i - 1];
    for (let i = 0; i < bytes.length; i++) if (i % plane >= width) bytes[i] += bytes[i - width];
    return bytes;
  },
};
