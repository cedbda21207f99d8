/**
 * Hides the widgets that do not apply to the format that a saving node writes, and gives `quality` the scale of its codec:
 * when somebody chooses another format, the value that was chosen for it before, or what is usual for it.
 *
 * Hidden widgets keep their values, and the workflow and the prompt hold them as ever. Nothing is hidden that is
 * connected, nor while the format itself is: then nobody knows it before the prompt runs.
 */
import { app } from "../../../scripts/app.js";
import { scaleOf } from "./video_formats.js";

/**
 * @typedef {Record<string, { only?: string[], not?: string[] }>} Table
 * Widgets that not every format has: the formats that have them, or those that do not.
 */

/** @type {Table} */
const FRAMES = {
  compression: { only: ["png", "png 16-bit", "tiff", "exr half", "exr float"] },
  quality: { only: ["jpeg", "webp", "avif", "avif 10-bit"] },
  input_color_space: { only: ["exr half", "exr float"] },
};

/** Codecs of one quality and one speed. */
const FIXED = [
  "mkv (FFV1)",
  "mov (ProRes 422 HQ)",
  "mov (ProRes 4444)",
  "mov (ProRes 4444 XQ)",
  "mov (DNxHR HQ)",
  "mov (DNxHR HQX)",
  "mov (DNxHR 444)",
  "gif",
];
/** Those whose frames travel in one way only, whatever the GPU could do. */
const ONE_WAY = [
  ...FIXED,
  "mp4 (H.264 4:4:4)",
  "mp4 (H.265 10-bit)",
  "mp4 (H.265 HDR)",
  "mp4 (H.265 HDR PQ)",
  "mp4 (AV1 10-bit)",
  "mp4 (AV1 HDR)",
  "mp4 (AV1 HDR PQ)",
  "webm (AV1 10-bit)",
  "webp (animated)",
];

/** @type {Table} Which hardware formats there are, nobody knows here: they have every widget. */
const VIDEO = {
  quality: { not: FIXED },
  preset: { not: FIXED },
  trim_to_audio: { not: ["gif", "webp (animated)"] },
  convert_on_gpu: { not: ONE_WAY },
};

/** @type {Record<string, Table>} by node type */
const TABLES = {
  AsyncVAEDecodeSaveFrames: FRAMES,
  AsyncSaveFrames: FRAMES,
  AsyncVAEDecodeSaveVideo: VIDEO,
  AsyncSaveVideo: VIDEO,
};

/**
 * Whether an input, which may be a widget's, is connected.
 *
 * @param {LGraphNode} node
 * @param {string} name
 */
function isConnected(node, name) {
  return (node.inputs ?? []).some((input) => input.name === name && input.link != null);
}

/**
 * Hide or show a widget.
 *
 * LiteGraph looks at `hidden`, the Vue renderer at the options. Older front ends, whose widgets have no `widgetId`, are
 * different: their LiteGraph leaves a gap where the widget was, unless it has no height (a row's gap is 4), and their
 * Vue renderer never looks again, so that a widget which is needed later would stay hidden. There it shows them all.
 *
 * @param {ComfyWidget} widget
 * @param {boolean} hidden
 * @returns {boolean} whether that changed anything
 */
function setHidden(widget, hidden) {
  if (Boolean(widget.hidden) === hidden) return false;
  widget.hidden = hidden;
  if ("widgetId" in widget) widget.options.hidden = hidden;
  else if (hidden) widget.computeSize = () => [0, -4];
  else delete widget.computeSize;
  return true;
}

/**
 * Hide and show what the format says, and let the node shrink or grow by as much.
 *
 * @param {LGraphNode} node
 * @param {Table} table
 * @param {boolean} resize false where the node's size is the right one already, because it comes from a file
 */
function update(node, table, resize) {
  const format = node.widgets?.find((widget) => widget.name === "format");
  if (!format) return;
  const before = node.computeSize()[1];
  const all = isConnected(node, "format");
  let changed = false;
  for (const [name, { only, not }] of Object.entries(table)) {
    const widget = node.widgets.find((candidate) => candidate.name === name);
    if (!widget) continue;
    const applies = only ? only.includes(format.value) : !not?.includes(format.value);
    changed = setHidden(widget, !applies && !all && !isConnected(node, name)) || changed;
  }
  if (!changed) return;
  // What the Vue renderer notices is a change of the list.
  node.widgets.push(...node.widgets.splice(-1));
  const after = node.computeSize()[1];
  const [width, height] = node.size;
  if (resize) node.setSize([width, Math.max(after, height + after - before)]);
  node.graph?.setDirtyCanvas?.(true, true);
}

/**
 * Let `quality` take what the codec takes, whose scales differ.
 *
 * @param {LGraphNode} node
 * @param {unknown} format
 */
function limitQuality(node, format) {
  const scale = TABLES[node.comfyClass] === VIDEO ? scaleOf(format) : undefined;
  const quality = node.widgets?.find((widget) => widget.name === "quality");
  if (scale && quality) Object.assign(quality.options, { min: scale.best, max: scale.smallest });
}

app.registerExtension({
  name: "AsyncVAEDecode.FormatWidgets",
  nodeCreated(node) {
    const table = TABLES[node.comfyClass];
    if (!table) return;
    const format = node.widgets?.find((widget) => widget.name === "format");
    if (!format) return;

    const chosen = format.callback;
    let last = format.value;
    /** Qualities by format, as they were when another one was chosen. @type {Map<unknown, unknown>} */
    const qualities = new Map();
    format.callback = function (/** @type {any[]} */ ...args) {
      const result = chosen?.apply(this, args);
      const quality = node.widgets?.find((widget) => widget.name === "quality");
      const scale = scaleOf(format.value);
      if (table === VIDEO && quality && format.value !== last) {
        qualities.set(last, quality.value);
        limitQuality(node, format.value);
        if (scale && !isConnected(node, "quality")) quality.value = qualities.get(format.value) ?? scale.usual;
      }
      last = format.value;
      update(node, table, true);
      return result;
    };
    const configured = node.onConfigure;
    node.onConfigure = function (/** @type {any[]} */ ...args) {
      const result = configured?.apply(this, args);
      last = format.value;
      limitQuality(node, last);
      update(node, table, false);
      return result;
    };
    const connected = node.onConnectionsChange;
    node.onConnectionsChange = function (...args) {
      const result = connected?.apply(this, args);
      // Newer front ends tell of a link before the slot has it.
      if (!app.configuringGraph) queueMicrotask(() => update(node, table, true));
      return result;
    };
    limitQuality(node, last);
    update(node, table, true);
  },
});
