/**
 * Workflows that were saved when the saving nodes' widgets had another order: values come as a list without names, or
 * with names that the front end may not look at, and would end in other widgets.
 */
import { app } from "../../../scripts/app.js";

const TILES = ["tile_size", "overlap", "temporal_size", "temporal_overlap"];
const FRAMES = ["format", "compression", "quality", "input_color_space", "writers"];
const VIDEO = ["fps", "format", "quality", "preset"];
const VIDEO_OPTIONS = ["ping_pong", "loop_count", "trim_to_audio", "convert_on_gpu"];
const FIRST = ["chunk_size", "buffer_depth", "filename_prefix"];

/** @type {Record<string, string[]>} The former order by node type. It began with a number, today's with a text. */
const FORMER = {
  AsyncVAEDecodeSaveFrames: [...FIRST, ...FRAMES, "output_images", ...TILES],
  AsyncSaveFrames: [...FIRST, ...FRAMES],
  AsyncVAEDecodeSaveVideo: [...FIRST, ...VIDEO, "output_images", ...VIDEO_OPTIONS, ...TILES],
  AsyncSaveVideo: [...FIRST, ...VIDEO, ...VIDEO_OPTIONS],
};

/**
 * What each widget's value was, where a node was saved with the former order.
 *
 * @param {string} type
 * @param {any} saved the node as the workflow has it
 * @returns {[string, any][]}
 */
function formerValues(type, saved) {
  const values = saved?.widgets_values;
  if (!Array.isArray(values) || typeof values[0] !== "number") return [];
  // Oldest workflows have fewer values: the widgets that came later keep their defaults.
  return FORMER[type].slice(0, values.length).map((name, place) => [name, values[place]]);
}

app.registerExtension({
  name: "AsyncVAEDecode.MigrateWidgets",
  nodeCreated(node) {
    if (!(node.comfyClass in FORMER)) return;
    const defaults = new Map((node.widgets ?? []).map((widget) => [widget.name, widget.value]));
    const configured = node.onConfigure;
    node.onConfigure = function (/** @type {any} */ saved, /** @type {any[]} */ ...rest) {
      const former = formerValues(node.comfyClass, saved);
      if (former.length) {
        const values = new Map([...defaults, ...former]);
        for (const widget of this.widgets ?? []) {
          if (values.has(widget.name)) widget.value = values.get(widget.name);
        }
      }
      return configured?.call(this, saved, ...rest);
    };
  },
});
