/**
 * The section "Async VAE Decode" of ComfyUI's settings: widgets of new nodes, previews, the live view.
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

/** Ids of the settings. */
export const SETTINGS = /** @type {const} */ ({
  chunkSize: "AsyncVAEDecode.Defaults.ChunkSize",
  bufferDepth: "AsyncVAEDecode.Defaults.BufferDepth",
  writers: "AsyncVAEDecode.Defaults.Writers",
  preview: "AsyncVAEDecode.Preview.Enabled",
  previewInterval: "AsyncVAEDecode.Preview.Interval",
  view: "AsyncVAEDecode.View.Enabled",
});

const SECTION = "Async VAE Decode";

/** The widget that each setting is the default of. @type {Record<string, string>} */
const WIDGETS = {
  chunk_size: SETTINGS.chunkSize,
  buffer_depth: SETTINGS.bufferDepth,
  writers: SETTINGS.writers,
};

/** The client that the server was last told about. @type {string | undefined} */
let toldFor;

app.registerExtension({
  name: "AsyncVAEDecode.Settings",
  settings: [
    // The dialog shows those of a group in the reverse order.
    {
      id: SETTINGS.previewInterval,
      name: "Seconds between previews",
      category: [SECTION, "While a node runs", "Preview interval"],
      tooltip: "Also for a video that you watch over a slow connection: fewer previews, less traffic.",
      type: "slider",
      attrs: { min: 0.1, max: 10, step: 0.1 },
      defaultValue: 0.5,
      onChange: (interval) => void tellPreview({ interval }),
    },
    {
      id: SETTINGS.preview,
      name: "Show a preview frame",
      category: [SECTION, "While a node runs", "Preview"],
      type: "boolean",
      defaultValue: true,
      onChange: (enabled) => void tellPreview({ enabled }),
    },
    {
      id: SETTINGS.view,
      name: "Show the pipeline in the node",
      category: [SECTION, "While a node runs", "Pipeline view"],
      tooltip: "Three lanes (decode, copy, save) that fill while the node runs, and the timeline afterwards.",
      type: "boolean",
      defaultValue: true,
    },
    {
      id: SETTINGS.writers,
      name: "writers (0: automatic)",
      category: [SECTION, "Widgets of new nodes", "writers"],
      tooltip: "Nodes that are in a workflow already keep theirs.",
      type: "number",
      attrs: { min: 0, max: 64, step: 1 },
      defaultValue: 0,
    },
    {
      id: SETTINGS.bufferDepth,
      name: "buffer_depth (chunks)",
      category: [SECTION, "Widgets of new nodes", "buffer_depth"],
      tooltip: "Nodes that are in a workflow already keep theirs.",
      type: "number",
      attrs: { min: 1, max: 64, step: 1 },
      defaultValue: 3,
    },
    {
      id: SETTINGS.chunkSize,
      name: "chunk_size (frames)",
      category: [SECTION, "Widgets of new nodes", "chunk_size"],
      tooltip: "Nodes that are in a workflow already keep theirs.",
      type: "number",
      attrs: { min: 1, max: 4096, step: 1 },
      defaultValue: 4,
    },
  ],
  setup() {
    // The first one tells the client's id.
    api.addEventListener("status", () => {
      if (api.clientId !== toldFor) void tellPreview();
    });
    api.addEventListener("reconnected", () => void tellPreview());
    void tellPreview();
  },
  nodeCreated(node) {
    if (!/^Async(VAEDecode|Save)/.test(node.comfyClass)) return;
    // A node of a workflow gets the workflow's values after this.
    for (const [name, id] of Object.entries(WIDGETS)) {
      const widget = node.widgets?.find((candidate) => candidate.name === name);
      const value = app.ui.settings.getSettingValue(id);
      if (widget && isWhole(value, widget.options)) widget.value = value;
    }
  },
});

/**
 * Tells the server whether, and how often, this browser wants previews.
 *
 * @param {{ enabled?: unknown, interval?: unknown }} changed a setting that is only about to have this value
 */
async function tellPreview(changed = {}) {
  const client = api.clientId;
  if (!client) return;
  toldFor = client;
  const enabled = changed.enabled ?? app.ui.settings.getSettingValue(SETTINGS.preview);
  const interval = Number(changed.interval ?? app.ui.settings.getSettingValue(SETTINGS.previewInterval));
  await api.fetchApi("/async_vae_decode/preview", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      client_id: client,
      enabled: enabled !== false,
      interval: Math.min(60, Math.max(0.1, interval || 0.5)),
    }),
  });
}

/**
 * Whether `value` is a whole number that the widget takes; a settings file may hold anything.
 *
 * @param {unknown} value
 * @param {{ min?: number, max?: number }} limits
 * @returns {value is number}
 */
function isWhole(value, { min = -Infinity, max = Infinity }) {
  return Number.isInteger(value) && Number(value) >= min && Number(value) <= max;
}
