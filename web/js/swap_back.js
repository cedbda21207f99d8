/**
 * The way back: which stock nodes do what a node of this pack does. Where stock cannot do it (JPEG, say), the swap says
 * what is lost.
 */
import { toStockTiles, toStockVideo, valueOf } from "./swap_formats.js";
import { DECODE, SAVE_FRAMES, SAVE_VIDEO } from "./swap_plan.js";

/**
 * @typedef {any} LGraphNode
 * @typedef {import("./swap_graph.js").Swap} Swap
 * @typedef {import("./swap_graph.js").Made} Made
 * @typedef {Swap & { lost: string[] }} WayBack
 */

export const OURS = new Set([DECODE, SAVE_FRAMES, SAVE_VIDEO]);

/**
 * @param {LGraphNode} node
 * @param {boolean} newSaveVideo whether stock's Save Video lets one choose a codec's settings
 * @returns {WayBack | null} null where it is no node of ours
 */
export function wayBack(node, newSaveVideo) {
  if (!OURS.has(node.type) || !node.graph) return null;
  if (node.type === DECODE) return toDecode(node);
  return node.type === SAVE_FRAMES ? toSaveImage(node) : toVideo(node, newSaveVideo);
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
    named: alone ? [node] : [],
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
 * @param {LGraphNode} node
 * @returns {WayBack}
 */
function toSaveImage(node) {
  const decode = decodeFor(node, false);
  const format = String(valueOf(node, "format"));
  return {
    gone: [node],
    made: [decode, saverFor(node, "SaveImage", 0, [["filename_prefix", valueOf(node, "filename_prefix")]])],
    inputs: [...decodeInputs(node, decode), { node, name: "filename_prefix", to: 1, as: "filename_prefix" }],
    outputs: [{ node, slot: 0, to: 0, type: "IMAGE" }],
    joined: [{ from: 0, type: "IMAGE", to: 1, as: "images" }],
    lost: format === "png" ? [] : [format],
  };
}

/**
 * @param {LGraphNode} node
 * @param {boolean} newSaveVideo
 * @returns {WayBack}
 */
function toVideo(node, newSaveVideo) {
  const decode = decodeFor(node, false);
  const slots = (node.outputs ?? []).map((/** @type {any} */ { type }) => type);
  const video = slots.indexOf("VIDEO");
  const needsVideo = Boolean(node.outputs?.[video]?.links?.length);
  const { saver, values, lost } = toStockVideo(node, newSaveVideo, needsVideo);
  const inputs = decodeInputs(node, decode);
  const outputs = [{ node, slot: slots.indexOf("IMAGE"), to: 0, type: "IMAGE" }];
  if (saver === "SaveWEBM") {
    for (const name of ["filename_prefix", "fps"]) inputs.push({ node, name, to: 1, as: name });
    const made = [decode, saverFor(node, saver, 0, values)];
    return { gone: [node], made, inputs, outputs, joined: [{ from: 0, type: "IMAGE", to: 1, as: "images" }], lost };
  }
  /** @type {Made} */
  const create = {
    type: "CreateVideo",
    like: node,
    named: [],
    pos: [0, 0],
    under: 0,
    values: [["fps", valueOf(node, "fps")]],
  };
  for (const name of ["fps", "audio"]) inputs.push({ node, name, to: 1, as: name });
  inputs.push({ node, name: "filename_prefix", to: 2, as: "filename_prefix" });
  outputs.push({ node, slot: video, to: 1, type: "VIDEO" });
  return {
    gone: [node],
    made: [decode, create, saverFor(node, saver, 1, values)],
    inputs,
    outputs,
    joined: [
      { from: 0, type: "IMAGE", to: 1, as: "images" },
      { from: 1, type: "VIDEO", to: 2, as: "video" },
    ],
    lost,
  };
}

/**
 * @param {LGraphNode} node
 * @param {string} type
 * @param {number} under
 * @param {[string, unknown][]} values
 * @returns {Made}
 */
function saverFor(node, type, under, values) {
  return { type, like: node, named: [node], keepId: true, pos: [0, 0], under, values };
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
