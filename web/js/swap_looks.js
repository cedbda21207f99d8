/**
 * Titles and colours of nodes that are swapped. Those of several nodes that became one are remembered in its
 * properties, so that each has its own again after the way back.
 */

/**
 * @typedef {any} LGraphNode
 * @typedef {{ title?: string, color?: string, bgcolor?: string, shape?: unknown }} Looks undefined: the class's
 * @typedef {"decode" | "create" | "save"} Role what a node did
 */

/** Where a node of ours keeps how those looked that it took the place of. */
export const LOOKS = "async_vae_decode_looks";
const COLOURS = /** @type {const} */ (["color", "bgcolor", "shape"]);

/** Titles that the nodes have when nobody chose one; workflows that were made in English hold them in any language. */
const TITLES = new Set([
  "VAE Decode",
  "VAE Decode (Tiled)",
  "Save Image",
  "Create Video",
  "Save Video",
  "Save WEBM",
  "SaveWEBM",
  "Save Animated WEBP",
  "SaveAnimatedWEBP",
  "Video Combine 🎥🅥🅗🅢",
  "Async VAE Decode",
  "Async VAE Decode & Save Frames",
  "Async VAE Decode & Save Video",
  "Async Save Frames",
  "Async Save Video",
]);

/**
 * @param {LGraphNode} node
 * @returns {Looks} what a user chose
 */
export function looksOf(node) {
  const { title } = node;
  const given = !title || title === node.constructor.title || title === node.type || TITLES.has(title);
  /** @type {Looks} */
  const looks = given ? {} : { title };
  for (const key of COLOURS) if (node[key] !== undefined && node[key] !== null) looks[key] = node[key];
  return looks;
}

/**
 * How a node looks that takes the place of several, and what it remembers of them.
 * @param {Partial<Record<Role, LGraphNode>>} nodes
 * @returns {{ looks: Looks, properties: Record<string, unknown> }}
 */
export function joinedLooks(nodes) {
  const each = Object.fromEntries(Object.entries(nodes).map(([role, node]) => [role, looksOf(node)]));
  const { decode = {}, create = {}, save = {} } = each;
  // Create Video's title, "Assemble" say, is no name for the whole.
  const shown = { ...create, title: undefined, ...decode, ...save };
  if (shown.title === undefined) delete shown.title;
  const any = Object.values(each).some((look) => Object.keys(look).length > 0);
  return { looks: shown, properties: any ? { [LOOKS]: { each, shown } } : {} };
}

/**
 * How a stock node looks that comes back. What was changed since the swap is the saver's, which has the node's place.
 * @param {LGraphNode} node of ours
 * @param {Role} role
 * @returns {Looks}
 */
export function looksAgain(node, role) {
  const { each, shown } = node.properties?.[LOOKS] ?? {};
  const now = looksOf(node);
  if (!each || !shown) return role === "save" ? now : {};
  const unchanged = [...COLOURS, "title"].every((key) => /** @type {any} */ (now)[key] === shown[key]);
  return role === "save" && !unchanged ? now : (each[role] ?? {});
}
