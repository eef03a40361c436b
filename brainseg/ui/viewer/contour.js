// @ts-check
// The outline of a mask, along the edges of its pixels.

/**
 * Closed loops, mask on the right-hand side, so that dashes run on around corners.
 * @param {Uint8Array} mask of many slices
 * @param {number} offset where the slice begins
 * @param {number} height
 * @param {number} width
 * @returns {number[][]} of each loop the corners passed, the first not repeated; a corner is given as
 *   row * (width + 1) + column
 */
export function loops(mask, offset, height, width) {
  /** @param {number} y @param {number} x */
  const inside = (y, x) => y >= 0 && x >= 0 && y < height && x < width && mask[offset + y * width + x];
  const stride = width + 1;
  /** @type {Map<number, number[]>} corner -> corners reached by an edge that starts there */
  const next = new Map();
  /** @param {number} from @param {number} to */
  const edge = (from, to) => {
    const ends = next.get(from);
    if (ends) ends.push(to);
    else next.set(from, [to]);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!mask[offset + y * width + x]) continue;
      const corner = y * stride + x;
      if (!inside(y - 1, x)) edge(corner, corner + 1);
      if (!inside(y, x + 1)) edge(corner + 1, corner + 1 + stride);
      if (!inside(y + 1, x)) edge(corner + 1 + stride, corner + stride);
      if (!inside(y, x - 1)) edge(corner + stride, corner);
    }
  }
  const found = [];
  for (const [start, ends] of next) {
    while (ends.length) {
      const loop = [];
      let at = start;
      do {
        loop.push(at);
        // As many edges leave a corner as reach it, so there is one to go on by.
        at = /** @type {number} */ (next.get(at)?.pop());
      } while (at !== start);
      found.push(loop);
    }
  }
  return found;
}

/**
 * The outline in slice pixels.
 * @param {Uint8Array} mask
 * @param {number} offset
 * @param {number} height
 * @param {number} width
 */
export function contour(mask, offset, height, width) {
  const stride = width + 1;
  const path = new Path2D();
  for (const loop of loops(mask, offset, height, width)) {
    for (const [i, corner] of loop.entries()) {
      const [x, y] = [corner % stride, Math.floor(corner / stride)];
      if (i) path.lineTo(x, y);
      else path.moveTo(x, y);
    }
    path.closePath();
  }
  return path;
}
