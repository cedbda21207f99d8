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

/** @param {string[]} names that were not there yet */
const framesWithout = (...names) => FRAMES.filter((name) => !names.includes(name));

/**
 * The former orders by node type, latest first. They began with a number, today's begins with a text.
 * @type {Record<string, string[][]>}
 */
const FORMER = {
  AsyncVAEDecodeSaveFrames: [FRAMES, framesWithout("input_color_space"), framesWithout("input_color_space", "quality")].map(
    (frames) => [...FIRST, ...frames, "output_images", ...TILES],
  ),
  AsyncSaveFrames: [FRAMES, framesWithout("input_color_space")].map((frames) => [...FIRST, ...frames]),
  AsyncVAEDecodeSaveVideo: [VIDEO_OPTIONS, []].map((options) => [...FIRST, ...VIDEO, "output_images", ...options, ...TILES]),
  AsyncSaveVideo: [[...FIRST, ...VIDEO, ...VIDEO_OPTIONS]],
};

/**
 * What each widget's value was, where a node was saved with a former order.
 *
 * @param {string} type
 * @param {any} saved the node as the workflow has it
 * @param {Map<string, any>} defaults by the names of the widgets
 * @returns {[string, any][]}
 */
function formerValues(type, saved, defaults) {
  const values = saved?.widgets_values;
  if (!Array.isArray(values) || typeof values[0] !== "number") return [];
  const [latest, ...earlier] = FORMER[type];
  // A number in the place of a switch, say, belongs to another widget.
  const fits = (/** @type {string[]} */ order) =>
    values.length <= order.length && values.every((value, place) => typeof value === typeof defaults.get(order[place]));
  const order = [latest, ...earlier].find(fits) ?? latest;
  // Oldest workflows have fewer values: the widgets that came later keep their defaults.
  return order.slice(0, values.length).map((name, place) => [name, values[place]]);
}

app.registerExtension({
  name: "AsyncVAEDecode.MigrateWidgets",
  nodeCreated(node) {
    if (!(node.comfyClass in FORMER)) return;
    const defaults = new Map((node.widgets ?? []).map((widget) => [widget.name, widget.value]));
    const configured = node.onConfigure;
    node.onConfigure = function (/** @type {any} */ saved, /** @type {any[]} */ ...rest) {
      const former = formerValues(node.comfyClass, saved, defaults);
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
