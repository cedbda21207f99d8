/**
 * Switches `output_images` on when somebody connects the IMAGE output of a saving node: off, that output only tells
 * that it is off. What an opened workflow says is left as it is.
 */
import { app } from "../../../scripts/app.js";

const SAVING_NODES = new Set(["AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo"]);
const OUTPUT = 2; // LiteGraph.OUTPUT

app.registerExtension({
  name: "AsyncVAEDecode.OutputImages",
  nodeCreated(node) {
    if (!SAVING_NODES.has(node.comfyClass)) return;
    const previous = node.onConnectionsChange;
    node.onConnectionsChange = function (side, slot, connected, ...rest) {
      previous?.call(this, side, slot, connected, ...rest);
      if (side !== OUTPUT || !connected || app.configuringGraph) return;
      if (this.outputs?.[slot]?.type !== "IMAGE") return;
      const widget = this.widgets?.find((candidate) => candidate.name === "output_images");
      if (widget && !widget.value) {
        widget.value = true;
        widget.callback?.(true);
      }
    };
  },
});
