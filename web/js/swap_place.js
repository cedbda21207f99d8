/**
 * Room for nodes that are larger than those whose place they take: in a workflow's file, where a node is a place, a size
 * and flags.
 */

/** @typedef {{ id: any, pos: any, size: any, flags?: { collapsed?: boolean } }} Placed */

/** Height of a title. */
const TITLE = 30;
/** Air between two nodes. */
const AIR = 20;

/**
 * Move `node` where it covers none of the others, as near as can be to where it is; a node that others covered before it
 * was swapped may be covered still.
 * @param {Placed[]} nodes of one graph
 * @param {Placed} node one of them
 * @param {Placed[]} before the nodes whose place it takes
 */
export function makeRoom(nodes, node, before) {
  const others = nodes.filter((other) => other !== node && !before.some((old) => overlap(other, old)));
  const free = (/** @type {[number, number]} */ pos) => !others.some((other) => overlap(other, { ...node, pos }));
  const [x, y] = at(node.pos);
  if (free([x, y])) return;
  const [width, height] = sizeOf(node);
  const lefts = [x];
  const tops = [y];
  for (const old of before) tops.push(at(old.pos)[1] + sizeOf(old)[1] - height);
  for (const other of others) {
    const [left, top] = at(other.pos);
    const [wide, tall] = sizeOf(other);
    lefts.push(left - width - AIR, left + wide + AIR);
    tops.push(top - TITLE - height - AIR, top + tall + TITLE + AIR);
  }
  let nearest = Infinity;
  for (const left of lefts) {
    for (const top of tops) {
      const distance = Math.hypot(left - x, top - y);
      if (distance < nearest && free([left, top])) {
        nearest = distance;
        node.pos = [left, top];
      }
    }
  }
}

/**
 * @param {Placed} node
 * @param {Placed} above
 */
export function placeUnder(node, above) {
  const [x, y] = at(above.pos);
  node.pos = [x, y + sizeOf(above)[1] + TITLE + AIR];
}

/**
 * @param {Placed} one
 * @param {Placed} other
 * @returns {boolean} whether one covers something of the other, titles included
 */
export function overlap(one, other) {
  const [a, b] = [one, other].map((node) => {
    const [left, top] = at(node.pos);
    const [width, height] = sizeOf(node);
    return { left, right: left + width, top: top - TITLE, bottom: top + height };
  });
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/** Files hold pairs, and older ones objects with "0" and "1". @param {any} pair @returns {[number, number]} */
function at(pair) {
  return [Number(pair[0]), Number(pair[1])];
}

/** @param {Placed} node @returns {[number, number]} */
function sizeOf({ size, flags }) {
  const [width, height] = at(size);
  return [width, flags?.collapsed ? 0 : height];
}
