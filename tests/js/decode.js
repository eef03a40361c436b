// @ts-check
// Unpack the message on stdin as the viewer does; print shape and values of each array, for tests in Python.
import { buffer } from "node:stream/consumers";
import { parse, unpack } from "../../brainseg/ui/viewer/wire.js";

const { arrays } = await unpack(parse(new Uint8Array(await buffer(process.stdin))));
const printed = Object.entries(arrays).map(([name, { shape, data }]) => [
  name,
  { shape, data: Buffer.from(data).toString("base64") },
]);
process.stdout.write(JSON.stringify(Object.fromEntries(printed)));
