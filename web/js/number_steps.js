/**
 * Steps of number widgets: `fps` goes in whole frames and keeps the digits that somebody types, and sizes of tiles and
 * windows go from off to the smallest that the nodes take.
 */
import { app } from "../../../scripts/app.js";

/** @type {Record<string, number>} */
const LEAST = { tile_size: 64, temporal_size: 8 };

app.registerExtension({
  name: "AsyncVAEDecode.NumberSteps",
  nodeCreated(node) {
    if (!String(node.comfyClass).startsWith("Async")) return;
    for (const widget of node.widgets ?? []) {
      // LiteGraph's own step is a tenth of `step`.
      if (widget.name === "fps") Object.assign(widget.options, { step: 10, step2: 1, precision: 3 });
      const least = LEAST[widget.name];
      if (!least) continue;
      let last = widget.value;
      const changed = widget.callback;
      widget.callback = function (/** @type {any[]} */ ...args) {
        const result = changed?.apply(this, args);
        if (widget.value > 0 && widget.value < least) widget.value = last >= least ? 0 : least;
        last = widget.value;
        return result;
      };
    }
  },
});
