/**
 * Fills in `%date:yyyy-MM-dd%` and `%Node.widget%` in the prefix of the saving nodes when a prompt is queued, as the
 * front end does it for its own saving nodes.
 */
import { app } from "../../../scripts/app.js";
import { applyTextReplacements } from "../../../scripts/utils.js";

const SAVING_NODES = new Set([
  "AsyncVAEDecodeSaveFrames",
  "AsyncVAEDecodeSaveVideo",
  "AsyncSaveFrames",
  "AsyncSaveVideo",
]);

app.registerExtension({
  name: "AsyncVAEDecode.FilenamePrefix",
  nodeCreated(node) {
    if (!SAVING_NODES.has(node.comfyClass)) return;
    const widget = node.widgets?.find((candidate) => candidate.name === "filename_prefix");
    if (widget) widget.serializeValue = () => applyTextReplacements(app, widget.value);
  },
});
