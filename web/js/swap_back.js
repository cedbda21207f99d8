/**
 * The way back: which stock nodes do what a node of this pack does. Where stock cannot do it (JPEG, say), the swap says
 * what is lost.
 */
import { toStockTiles, toStockVideo, valueOf } from "./swap_formats.js";
import { looksAgain, looksOf } from "./swap_looks.js";
import { DECODE, IMAGES_SAVE_FRAMES, IMAGES_SAVE_VIDEO, SAVE_FRAMES, SAVE_VIDEO } from "./swap_plan.js";

/**
 * @typedef {any} LGraphNode
 * @typedef {import("./swap_graph.js").Swap} Swap
 * @typedef {import("./swap_graph.js").Made} Made
 * @typedef {Swap & { lost: string[] }} WayBack
 */

export const OURS = new Set([DECODE, SAVE_FRAMES, SAVE_VIDEO, IMAGES_SAVE_FRAMES, IMAGES_SAVE_VIDEO]);

/**
 * @param {LGraphNode} node
 * @param {boolean} newSaveVideo whether stock's Save Video lets one choose a codec's settings
 * @returns {WayBack | null} null where it is no node of ours, or hands on images that nobody decodes for it: not every
 *   core's savers do
 */
export function wayBack(node, newSaveVideo) {
  if (!OURS.has(node.type) || !node.graph) return null;
  if (node.type === DECODE) return toDecode(node);
  if (!decodes(node) && outputOf(node, "IMAGE").used) return null;
  return [SAVE_FRAMES, IMAGES_SAVE_FRAMES].includes(node.type) ? toSaveImage(node) : toVideo(node, newSaveVideo);
}

/** Whether a saving node makes the images itself. @param {LGraphNode} node */
function decodes(node) {
  return node.type === SAVE_FRAMES || node.type === SAVE_VIDEO;
}

/**
 * @param {LGraphNode} node
 * @param {string} type
 */
function outputOf(node, type) {
  const slot = (node.outputs ?? []).findIndex((/** @type {any} */ output) => output.type === type);
  return { slot, used: Boolean(node.outputs?.[slot]?.links?.length) };
}

/**
 * @param {LGraphNode} node
 * @param {boolean} alone whether the decode node takes the whole place of `node`
 * @returns {Made}
 */
function decodeFor(node, alone) {
  const tiles = toStockTiles(node);
  return {
    type: tiles ? "VAEDecodeTiled" : "VAEDecode",
    like: node,
    looks: alone ? looksOf(node) : looksAgain(node, "decode"),
    keepId: alone,
    pos: [node.pos[0], node.pos[1]],
    values: tiles ?? [],
  };
}

/**
 * @param {LGraphNode} node
 * @returns {WayBack}
 */
function toDecode(node) {
  const decode = decodeFor(node, true);
  return {
    gone: [node],
    made: [decode],
    inputs: decodeInputs(node, decode),
    outputs: [{ node, slot: 0, to: 0, type: "IMAGE" }],
    joined: [],
    lost: [],
  };
}

/**
 * What there is before the savers: a decode node and what leads to it and from it, or nothing but the images.
 * @param {LGraphNode} node
 * @returns {Omit<WayBack, "gone" | "lost">} the next of `made` takes the images
 */
function imagesFor(node) {
  if (!decodes(node)) {
    return { made: [], inputs: [{ node, name: "images", to: 0, as: "images" }], outputs: [], joined: [] };
  }
  const decode = decodeFor(node, false);
  return {
    made: [decode],
    inputs: decodeInputs(node, decode),
    outputs: [{ node, slot: outputOf(node, "IMAGE").slot, to: 0, type: "IMAGE" }],
    joined: [{ from: 0, type: "IMAGE", to: 1, as: "images" }],
  };
}

/**
 * @param {LGraphNode} node
 * @returns {WayBack}
 */
function toSaveImage(node) {
  const { made, inputs, outputs, joined } = imagesFor(node);
  const format = String(valueOf(node, "format"));
  const to = made.length;
  const saver = saverFor(node, "SaveImage", to, [["filename_prefix", valueOf(node, "filename_prefix")]]);
  return {
    gone: [node],
    made: [...made, saver],
    inputs: [...inputs, { node, name: "filename_prefix", to, as: "filename_prefix" }],
    outputs,
    joined,
    lost: format === "png" ? [] : [format],
  };
}

/**
 * @param {LGraphNode} node
 * @param {boolean} newSaveVideo
 * @returns {WayBack}
 */
function toVideo(node, newSaveVideo) {
  const { made, inputs, outputs, joined } = imagesFor(node);
  const video = outputOf(node, "VIDEO");
  const { saver, values, lost } = toStockVideo(node, newSaveVideo, video.used);
  const to = made.length;
  if (saver !== "SaveVideo") {
    for (const name of ["filename_prefix", "fps"]) inputs.push({ node, name, to, as: name });
    return { gone: [node], made: [...made, saverFor(node, saver, to, values)], inputs, outputs, joined, lost };
  }
  /** @type {Made} */
  const create = {
    type: "CreateVideo",
    like: node,
    looks: looksAgain(node, "create"),
    ...placeFor(node, to),
    values: [["fps", valueOf(node, "fps")]],
  };
  for (const name of ["fps", "audio"]) inputs.push({ node, name, to, as: name });
  inputs.push({ node, name: "filename_prefix", to: to + 1, as: "filename_prefix" });
  outputs.push({ node, slot: video.slot, to, type: "VIDEO" });
  joined.push({ from: to, type: "VIDEO", to: to + 1, as: "video" });
  return { gone: [node], made: [...made, create, saverFor(node, saver, to + 1, values)], inputs, outputs, joined, lost };
}

/**
 * @param {LGraphNode} node
 * @param {number} index
 * @returns {Pick<Made, "pos" | "under">} the first of those that are made stands where `node` was, each other one under
 *   the one before
 */
function placeFor(node, index) {
  return { pos: [node.pos[0], node.pos[1]], under: index ? index - 1 : undefined };
}

/**
 * @param {LGraphNode} node
 * @param {string} type
 * @param {number} index among those that are made
 * @param {[string, unknown][]} values
 * @returns {Made}
 */
function saverFor(node, type, index, values) {
  return { type, like: node, looks: looksAgain(node, "save"), keepId: true, ...placeFor(node, index), values };
}

/**
 * @param {LGraphNode} node
 * @param {Made} decode
 * @returns {Swap["inputs"]}
 */
function decodeInputs(node, decode) {
  const tiles = decode.type === "VAEDecodeTiled" ? ["tile_size", "overlap", "temporal_size", "temporal_overlap"] : [];
  return ["samples", "vae", ...tiles].map((name) => ({ node, name, to: 0, as: name }));
}
