/**
 * What a stock node's saving settings are called in this pack's saving nodes, and the other way round. Where the pack
 * has no equivalent, or does not offer it here, the answer is null: a saver that would write another file is not
 * replaced.
 */
import { isLinked, widgetOf } from "./swap_graph.js";
import { scaleOf } from "./video_formats.js";

/**
 * @typedef {any} LGraphNode
 * @typedef {[string, unknown][]} Values by widget
 * @typedef {(name: string) => { options: unknown[] } | null} Offers what a node of ours takes
 *   for a widget; null: it has no such widget
 */

/** The CRF of stock's encoders where nobody chose one. */
const CRF = { h264: 23, av1: 35 };

/**
 * Create Video and Save Video. Newer ones tell colours, and may encode at once; of what is written with other colours
 * than sRGB, or encoded twice, there is no equivalent.
 * @param {LGraphNode} create
 * @param {LGraphNode} save
 * @param {Offers} offers
 * @returns {Values | null}
 */
export function ofSaveVideo(create, save, offers) {
  const coloured = widgetOf(create, "color_space") !== undefined;
  if ((valueOf(create, "color_space") ?? "sRGB") !== "sRGB") return null;
  // "auto" is 8 for sRGB.
  const depth = valueOf(create, "bit_depth") ?? "auto";
  const deep = depth !== "auto" && Number(depth) > 8 ? " 10-bit" : "";
  // Where Save Video re-encodes, its codec brings widgets of its own; older ones have the codec beside the format.
  const under = widgetOf(save, "format.codec") ? "format.codec" : "codec";
  const [chosen, crf, colours] = ["", ".encoding.crf", ".encoding.color_space"].map((name) =>
    valueOf(save, `${under}${name}`),
  );
  if (!["auto", "sRGB"].includes(String(colours ?? "auto"))) return null;
  const container = String(valueOf(save, "format") ?? "auto");
  let codec = String(chosen ?? "auto");
  const first = String(valueOf(create, "codec") ?? "none");
  const file = container !== "auto" ? container : coloured && codec === "av1" ? "webm" : "mp4";
  if (first !== "none") {
    const encoded = first === "auto" ? "h264" : first;
    if (crf !== undefined || !["auto", encoded].includes(codec)) return null;
    codec = encoded;
  }
  if (codec === "auto") codec = container === "webm" ? "av1" : "h264";
  if (codec !== "h264" && codec !== "av1") return null;
  const format = `${file} (${codec === "h264" ? "H.264" : "AV1"}${deep})`;
  return withQuality(format, crf ?? CRF[codec], offers, [
    ["filename_prefix", valueOf(save, "filename_prefix")],
    ["fps", valueOf(create, "fps")],
  ]);
}

/**
 * Save WEBM.
 * @param {LGraphNode} save
 * @param {Offers} offers
 * @returns {Values | null}
 */
export function ofSaveWebm(save, offers) {
  /** @type {Record<string, string>} */
  const codecs = { vp9: "webm (VP9)", av1: "webm (AV1 10-bit)" };
  return withQuality(codecs[String(valueOf(save, "codec"))], valueOf(save, "crf"), offers, [
    ["filename_prefix", valueOf(save, "filename_prefix")],
    ["fps", valueOf(save, "fps")],
  ]);
}

const WEBP = "webp (animated)";
/** More frames a second than this our WebP does not take: players show none shorter than a hundredth of a second. */
const WEBP_RATE = 100;
/** Save Animated WEBP's methods and our presets that ask libwebp for the same. */
const WEBP_METHODS = [
  ["fastest", "ultrafast"],
  ["default", "medium"],
  ["slowest", "veryslow"],
];

/**
 * Save Animated WEBP, whose quality is libwebp's own, from 0 to 100; ours is on the scale of a CRF, which has 63 steps.
 * @param {LGraphNode} save
 * @param {Offers} offers
 * @returns {Values | null}
 */
export function ofSaveAnimatedWebp(save, offers) {
  const [lossless, quality, method, fps] = ["lossless", "quality", "method", "fps"].map((name) => valueOf(save, name));
  if (!isLinked(save, "fps") && Number(fps) > WEBP_RATE) return null;
  // Of ours, 0 is lossless.
  const crf = lossless ? 0 : Math.max(1, Math.round(63 * (1 - Number(quality) / 100)));
  return withQuality(WEBP, crf, offers, [
    ["filename_prefix", valueOf(save, "filename_prefix")],
    ["fps", fps],
    ["preset", WEBP_METHODS.find(([theirs]) => theirs === method)?.[1] ?? "medium"],
  ]);
}

/**
 * @param {LGraphNode} node a node of ours that saves animated WebP
 * @returns {Values} Save Animated WEBP's
 */
function toSaveAnimatedWebp(node) {
  const crf = Number(valueOf(node, "quality"));
  return [
    ["filename_prefix", valueOf(node, "filename_prefix")],
    ["fps", valueOf(node, "fps")],
    ["lossless", crf === 0],
    // What libwebp is told, to the nearest; of lossless files it is the effort, of which stock's own default asks 80.
    ["quality", crf === 0 ? 80 : Math.round(100 * (1 - crf / 63))],
    ["method", WEBP_METHODS.find(([, ours]) => ours === valueOf(node, "preset"))?.[0] ?? "default"],
  ];
}

/** Video Combine's formats, with the pixel format or profile that each of ours has; "": the format has one. */
const COMBINE_FORMATS = [
  ["video/h264-mp4", "yuv420p", "mp4 (H.264)"],
  ["video/h265-mp4", "yuv420p", "mp4 (H.265)"],
  ["video/h265-mp4", "yuv420p10le", "mp4 (H.265 10-bit)"],
  ["video/av1-webm", "yuv420p", "webm (AV1)"],
  ["video/av1-webm", "yuv420p10le", "webm (AV1 10-bit)"],
  ["video/webm", "", "webm (VP9)"],
  ["video/ProRes", "hq", "mov (ProRes 422 HQ)"],
  ["image/gif", "", "gif"],
  ["image/webp", "", WEBP],
];
/** What Video Combine's settings have to say for ours to do the same; those that a format lacks do not matter. */
const COMBINE_SAME = /** @type {[string, unknown[]][]} */ ([
  ["save_output", [true]],
  ["save_metadata", [true, "comment"]],
]);
/** Its settings that we have too, and what ours are called. */
const COMBINE_NAMES = [
  ["filename_prefix", "filename_prefix"],
  ["frame_rate", "fps"],
  ["pingpong", "ping_pong"],
  ["loop_count", "loop_count"],
  ["trim_to_audio", "trim_to_audio"],
];

/**
 * VideoHelperSuite's Video Combine. Files without metadata or in the temp folder have no equivalent.
 * @param {LGraphNode} save
 * @param {Offers} offers
 * @returns {Values | null}
 */
export function ofVideoCombine(save, offers) {
  for (const [name, same] of COMBINE_SAME) {
    const value = valueOf(save, name);
    if (value !== undefined && !same.includes(value)) return null;
  }
  const name = valueOf(save, "format");
  const pixels = valueOf(save, "profile") ?? valueOf(save, "pix_fmt");
  const format = COMBINE_FORMATS.find(([theirs, kind]) => theirs === name && (!kind || kind === (pixels ?? kind)));
  /** @type {Values} */
  const values = [];
  for (const [theirs, ours] of COMBINE_NAMES) {
    const value = valueOf(save, theirs);
    if (value === undefined) continue;
    // Without a sound ours would be refused; theirs takes no notice.
    const idle = ours === "trim_to_audio" && !isLinked(save, "audio");
    if (offers(ours)) values.push([ours, idle ? false : value]);
    else if (value) return null;
  }
  // GIF has no quality to choose, and WebP's is another scale there.
  const quality = String(name).startsWith("image/") ? undefined : valueOf(save, "crf");
  return withQuality(format?.[2], quality, offers, values);
}

/**
 * @param {string | undefined} format
 * @param {unknown} quality undefined: the format has none, or its usual one
 * @param {Offers} offers
 * @param {Values} values
 * @returns {Values | null}
 */
function withQuality(format, quality, offers, values) {
  if (!format || !offers("format")?.options.includes(format)) return null;
  // First: it decides which of the others there are.
  values.unshift(["format", format]);
  const scale = scaleOf(format);
  if (quality !== undefined && scale) {
    const crf = Number(quality);
    if (!offers("quality") || !Number.isInteger(crf) || crf < scale.best || crf > scale.smallest) return null;
    values.push(["quality", crf]);
  }
  return values;
}

/**
 * What Save Video of newer cores writes, by our formats' names: container and codec.
 * @type {Record<string, string[]>}
 */
const STOCK_VIDEO = {
  "mp4 (H.264)": ["mp4", "h264"],
  "mp4 (AV1)": ["mp4", "av1"],
  "webm (AV1)": ["webm", "av1"],
};

/**
 * The stock nodes that save a video as our node does.
 * @param {LGraphNode} node Async VAE Decode & Save Video, or Async Save Video
 * @param {boolean} choosesCodec whether stock's Save Video is a newer one
 * @param {boolean} needsVideo whether somebody uses the video, which only Save Video has to do with
 * @returns {{ saver: "SaveVideo" | "SaveWEBM" | "SaveAnimatedWEBP", values: Values, lost: string[] }} `lost`: the settings, or the format,
 *   that stock does not know
 */
export function toStockVideo(node, choosesCodec, needsVideo) {
  const format = String(valueOf(node, "format"));
  const quality = Number(valueOf(node, "quality"));
  const lost = ["ping_pong", "loop_count", "trim_to_audio"].filter((name) => valueOf(node, name));
  /** @type {Values} */
  const prefix = [["filename_prefix", valueOf(node, "filename_prefix")]];
  if (format === WEBP && !needsVideo) return { saver: "SaveAnimatedWEBP", values: toSaveAnimatedWebp(node), lost };
  if (["webm (VP9)", "webm (AV1 10-bit)"].includes(format) && !needsVideo && !isLinked(node, "audio")) {
    const codec = format.includes("AV1") ? "av1" : "vp9";
    const values = [...prefix, ["codec", codec], ["fps", valueOf(node, "fps")], ["crf", quality]];
    return { saver: "SaveWEBM", values: /** @type {Values} */ (values), lost };
  }
  const [container, codec] = STOCK_VIDEO[format] ?? [];
  const asUsual = codec === "h264" && quality === CRF.h264;
  if (!asUsual && codec && choosesCodec) {
    /** @type {Values} */
    const values = [
      ["format", container],
      ["format.codec", codec],
      ["format.codec.encoding", "re-encode"],
      ["format.codec.encoding.crf", quality],
    ];
    return { saver: "SaveVideo", values: [...values, ...prefix], lost };
  }
  if (codec !== "h264") lost.push(format);
  else if (!asUsual) lost.push("quality");
  return { saver: "SaveVideo", values: [["format", "auto"], ["codec", "auto"], ...prefix], lost };
}

/**
 * @param {LGraphNode} node
 * @returns {Values | null} VAE Decode (Tiled)'s numbers; null where nothing is tiled
 */
export function toStockTiles(node) {
  const tile = Number(valueOf(node, "tile_size") ?? 0);
  const frames = Number(valueOf(node, "temporal_size") ?? 0);
  const linked = ["tile_size", "temporal_size"].some((name) => isLinked(node, name));
  if (!linked && tile <= 0 && frames <= 0) return null;
  // Off, for stock's node, is more than there is.
  return [
    ["tile_size", tile > 0 ? tile : 4096],
    ["overlap", valueOf(node, "overlap")],
    ["temporal_size", frames > 0 ? frames : 4096],
    ["temporal_overlap", Math.max(4, Number(valueOf(node, "temporal_overlap")))],
  ];
}

/**
 * @param {LGraphNode} node
 * @param {string} name
 * @returns {unknown}
 */
export function valueOf(node, name) {
  return widgetOf(node, name)?.value;
}
