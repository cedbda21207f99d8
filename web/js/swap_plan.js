/**
 * Finds what a stock decode node can be replaced with: Async VAE Decode always; a saving node where the images go to a
 * saver of which the pack has an equivalent.
 *
 * A saving node takes the decode's place together with **one** saver. Whoever else uses the images keeps getting them,
 * from the saving node's `images` with `output_images` on: nothing that worked before is cut off, and the clip was held
 * in memory for them before, too. The video, in contrast, is not handed on: stock's is made of the frames and ours of
 * the file, so where somebody else uses what Create Video or Save Video gives, only the plain replacement is offered.
 */
import { ofSaveAnimatedWebp, ofSaveVideo, ofSaveWebm, ofVideoCombine, valueOf } from "./swap_formats.js";
import { inputOf, linkOf, obstacleOf, onward } from "./swap_graph.js";
import { joinedLooks, looksOf } from "./swap_looks.js";

/**
 * @typedef {any} LGraphNode
 * @typedef {import("./swap_graph.js").Swap} Swap
 * @typedef {import("./swap_formats.js").Offers} Offers
 * @typedef {{ decode?: Swap, frames?: Swap, video?: Swap }} Choices
 */

export const DECODE = "AsyncVAEDecode";
export const SAVE_FRAMES = "AsyncVAEDecodeSaveFrames";
export const SAVE_VIDEO = "AsyncVAEDecodeSaveVideo";
/** Those that save images which are there already. */
export const IMAGES_SAVE_FRAMES = "AsyncSaveFrames";
export const IMAGES_SAVE_VIDEO = "AsyncSaveVideo";
export const STOCK_DECODES = new Set(["VAEDecode", "VAEDecodeTiled"]);
/** Nodes that save a video of images alone. @type {Record<string, typeof ofSaveWebm>} */
const VIDEO_SAVERS = {
  SaveWEBM: ofSaveWebm,
  SaveAnimatedWEBP: ofSaveAnimatedWebp,
  VHS_VideoCombine: ofVideoCombine,
};
const TILES = ["tile_size", "overlap", "temporal_size", "temporal_overlap"];

/**
 * @param {LGraphNode} decode a node
 * @param {(type: string) => Offers} offersOf what a node class of ours takes
 * @returns {Choices} the replacements for it; none where it is no stock decode node
 */
export function choicesFor(decode, offersOf) {
  if (!STOCK_DECODES.has(decode.type) || !decode.graph) return {};
  /** @type {Choices} */
  const choices = { decode: plain(decode) };
  for (const { node: user, input, via } of usersOf(decode, 0)) {
    if (user.mode !== decode.mode) continue;
    const chain = { decode, via };
    const ofSaver = VIDEO_SAVERS[user.type];
    if (user.type === "SaveImage" && input === "images") {
      choices.frames ??= framesSwap({ ...chain, save: user });
    } else if (ofSaver && input === "images") {
      choices.video ??= videoSwap({ ...chain, save: user }, ofSaver(user, offersOf(SAVE_VIDEO)), offersOf);
    } else if (user.type === "CreateVideo" && input === "images") {
      const [next, ...more] = usersOf(user, 0);
      if (!next || more.length || next.node.type !== "SaveVideo" || next.node.mode !== decode.mode) continue;
      const values = ofSaveVideo(user, next.node, offersOf(SAVE_VIDEO));
      const all = { decode, via: [...via, ...next.via], create: user, save: next.node };
      choices.video ??= videoSwap(all, values, offersOf);
    }
  }
  return choices;
}

/**
 * @param {LGraphNode} decode
 * @returns {Swap}
 */
function plain(decode) {
  return {
    gone: [decode],
    made: [
      {
        type: DECODE,
        like: decode,
        looks: looksOf(decode),
        keepId: true,
        pos: [decode.pos[0], decode.pos[1]],
        values: tileValues(decode),
      },
    ],
    inputs: decodeInputs(decode),
    outputs: [{ node: decode, slot: 0, to: 0, type: "IMAGE" }],
    joined: [],
  };
}

/**
 * A decode node and its saver, with what is between them.
 * @typedef {{ decode: LGraphNode, via: LGraphNode[], create?: LGraphNode, save: LGraphNode }} Chain
 */

/**
 * @param {Chain} chain
 * @returns {Swap | undefined}
 */
function framesSwap(chain) {
  const values = /** @type {[string, unknown][]} */ ([
    ["format", "png"],
    ["filename_prefix", valueOf(chain.save, "filename_prefix")],
  ]);
  return saving(chain, SAVE_FRAMES, values, [[chain.save, "filename_prefix", "filename_prefix"]]);
}

/**
 * @param {Chain} chain
 * @param {[string, unknown][] | null} values
 * @param {(type: string) => Offers} offersOf
 * @returns {Swap | undefined}
 */
function videoSwap(chain, values, offersOf) {
  if (!values) return undefined;
  const rate = chain.create ?? chain.save;
  /** @type {[LGraphNode, string, string][]} */
  const inputs = [
    [chain.save, "filename_prefix", "filename_prefix"],
    [rate, inputOf(rate, "frame_rate") ? "frame_rate" : "fps", "fps"],
  ];
  if (offersOf(SAVE_VIDEO)("audio")) inputs.push([rate, "audio", "audio"]);
  return saving(chain, SAVE_VIDEO, values, inputs);
}

/**
 * @param {Chain} chain
 * @param {string} type
 * @param {[string, unknown][]} values
 * @param {[LGraphNode, string, string][]} renamed inputs that go on, by node, their names and their new names
 * @returns {Swap | undefined} undefined where something that is linked would be cut off
 */
function saving({ decode, via, create, save }, type, values, renamed) {
  const gone = create ? [decode, create, save] : [decode, save];
  gone.push(...reroutesThatGo(via, gone));
  const inputs = decodeInputs(decode);
  for (const [node, name, as] of renamed) inputs.push({ node, name, to: 0, as });
  const outputs = [{ node: decode, slot: 0, to: 0, type: "IMAGE" }];
  // Save Image and the like hand the images on where core is new enough.
  const handed = (save.outputs ?? []).findIndex((/** @type {any} */ output) => output.type === "IMAGE");
  if (handed >= 0) outputs.push({ node: save, slot: handed, to: 0, type: "IMAGE" });
  const swap = {
    gone,
    made: [
      {
        type,
        // It stands where the pictures were seen, under the id that results are found by.
        like: save,
        ...joinedLooks(create ? { decode, create, save } : { decode, save }),
        keepId: true,
        keepSize: true,
        pos: /** @type {[number, number]} */ ([save.pos[0], save.pos[1]]),
        values: [...values, ...tileValues(decode)],
      },
    ],
    inputs,
    outputs,
    joined: [],
  };
  if (obstacleOf(swap)) return undefined;
  swap.made[0].values.push(["output_images", handsOn(swap)]);
  return swap;
}

/**
 * Whether somebody who stays uses the images.
 * @param {Swap} swap
 */
function handsOn({ gone, outputs }) {
  const going = new Set(gone);
  return outputs.some(({ node, slot }) => onward(node, node.outputs[slot], going).length > 0);
}

/**
 * Reroute nodes that lead nowhere else.
 * @param {LGraphNode[]} via
 * @param {LGraphNode[]} gone
 */
function reroutesThatGo(via, gone) {
  const going = new Set(gone);
  for (const reroute of [...via].reverse()) {
    if (!onward(reroute, reroute.outputs[0], going).length) going.add(reroute);
  }
  return via.filter((reroute) => going.has(reroute));
}

/**
 * Who uses an output, seen through Reroute nodes.
 * @param {LGraphNode} node
 * @param {number} slot
 * @returns {{ node: LGraphNode, input: string, via: LGraphNode[] }[]} the outside of a subgraph is none of them, but
 *   makes the list longer
 */
function usersOf(node, slot) {
  const { graph } = node;
  return (node.outputs?.[slot]?.links ?? []).flatMap((/** @type {number} */ id) => {
    const link = linkOf(graph, id);
    if (!link) return [];
    const target = graph.getNodeById(link.target_id);
    if (target?.type !== "Reroute") {
      return [{ node: target ?? {}, input: target?.inputs[link.target_slot].name ?? "", via: [] }];
    }
    return usersOf(target, 0).map((user) => ({ ...user, via: [target, ...user.via] }));
  });
}

/**
 * @param {LGraphNode} decode
 * @returns {Swap["inputs"]}
 */
function decodeInputs(decode) {
  return ["samples", "vae", ...TILES].map((name) => ({ node: decode, name, to: 0, as: name }));
}

/**
 * @param {LGraphNode} decode
 * @returns {[string, unknown][]}
 */
function tileValues(decode) {
  return decode.type === "VAEDecodeTiled" ? TILES.map((name) => [name, valueOf(decode, name)]) : [];
}
