/**
 * Switches `output_images` on when somebody connects the IMAGE output of a saving node: off, that output only tells
 * that it is off. When the last link is taken away, it goes off again, if a link had switched it on. What an opened
 * workflow says is left as it is.
 */
import { app } from "../../../scripts/app.js";

const SAVING_NODES = new Set(["AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo"]);
const OUTPUT = 2; // LiteGraph.OUTPUT
/** Where a node keeps that a link has switched it on, so that a workflow that is opened again knows. */
const BY_LINK = "async_vae_decode_output_images_by_link";

app.registerExtension({
  name: "AsyncVAEDecode.OutputImages",
  nodeCreated(node) {
    if (!SAVING_NODES.has(node.comfyClass)) return;
    const previous = node.onConnectionsChange;
    node.onConnectionsChange = function (side, slot, connected, ...rest) {
      previous?.call(this, side, slot, connected, ...rest);
      const output = this.outputs?.[slot];
      if (side !== OUTPUT || output?.type !== "IMAGE" || app.configuringGraph) return;
      const widget = this.widgets?.find((candidate) => candidate.name === "output_images");
      if (!widget) return;
      if (connected && !widget.value) {
        this.properties[BY_LINK] = true;
        choose(widget, true);
      } else if (!connected && this.properties[BY_LINK]) {
        // Links are taken away one by one, and the last one after this.
        queueMicrotask(() => {
          if (output.links?.length || !this.graph) return;
          delete this.properties[BY_LINK];
          if (widget.value) choose(widget, false);
        });
      }
    };
  },
});

/**
 * @param {ComfyWidget} widget
 * @param {boolean} value
 */
function choose(widget, value) {
  widget.value = value;
  widget.callback?.(value);
}
