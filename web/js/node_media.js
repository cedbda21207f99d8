/**
 * What a node shows of its files: the live preview goes when the node has been executed, what it saved in the run before
 * goes when the next run's preview comes, and where browsers do not play a file, its stand-in is shown. Files that are
 * finished in the background are not shown before they are whole.
 *
 * The front end shows a preview in the place of outputs, and of an output it knows that it is a video: it would try to
 * play the preview, or show it where the gallery belongs, until another tab has been open.
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { PIPELINE_NODES, isLatest, nodeAt, nodeOf, rootGraph } from "./graph_nodes.js";

/** The widget in which LiteGraph draws images. */
const IMAGE_WIDGET = "$$canvas-image-preview";
/** The one in which it plays an animated image, and that for a video. */
const ANIMATION_WIDGET = "$$comfy_animation_preview";
const VIDEO_WIDGET = "video-preview";
/** Files that it draws as images; it plays all others that our nodes save. */
const PICTURES = /\.(?:gif|webp|png|jpg|avif|tif|exr)$/;
/** Nodes that have been executed: a preview that is being loaded then may come later. @type {WeakSet<LGraphNode>} */
const executed = new WeakSet();

/**
 * @typedef {import("./pipeline_run.js").News} News
 * @typedef {import("./pipeline_run.js").Report} Report
 * @typedef {import("./pipeline_run.js").Saved} Saved
 * @typedef {{ images?: Saved[], async_vae_decode?: string[], async_vae_decode_stand_in?: string[] }} Output of a node
 */

/** What was saved, by outputs in which a stand-in has its place. @type {WeakMap<object, Saved[]>} */
const saved = new WeakMap();

/**
 * @param {{ images?: Saved[] }} output of a node
 * @returns {Saved[]} the files that it has saved
 */
export function savedIn(output) {
  return saved.get(output) ?? output.images ?? [];
}

/**
 * Runs that ended while another workflow was open, and what their nodes are to show.
 * @type {Map<string, News & { output: Output }>}
 */
const unseen = new Map();

app.registerExtension({
  name: "AsyncVAEDecode.NodeMedia",
  setup() {
    api.addEventListener("executed", ({ detail }) => {
      if (!detail?.output?.images?.length) return;
      const id = String(detail.display_node ?? detail.node);
      const report = reportIn(detail.output);
      if (report?.finishing) {
        void holdBack(id, detail, report);
        return;
      }
      dropPreview(id);
      forgetOtherKind(id, detail.output.images[0].filename);
      const [name] = detail.output.async_vae_decode_stand_in ?? [];
      if (name) showInstead(id, detail.output, { filename: name, subfolder: "", type: "temp" });
    });
    api.addEventListener("async_vae_decode.saved", ({ detail }) => showSaved(detail));
    api.addEventListener("b_preview_with_metadata", ({ detail }) => dropOutputs(String(detail?.displayNodeId)));
  },
  async afterConfigureGraph() {
    // What the workflow has shown before comes back after this has returned; of that only newer front ends tell.
    if ([...unseen.values()].some(nodeOf)) void untilOpen().then(showUnseen);
  },
  nodeCreated(node) {
    let [, drawn] = node.size;
    // LiteGraph draws what has come meanwhile before it asks this.
    const previous = node.onDrawForeground;
    node.onDrawForeground = function (/** @type {any[]} */ ...args) {
      forgetPictures(node);
      if (PIPELINE_NODES.has(node.comfyClass) && node.size[1] !== drawn) {
        // It grows for a video while it is drawn, its box not before the next time; nothing else may call for that.
        [, drawn] = node.size;
        node.setDirtyCanvas(true, true);
      }
      // Only so does it move; told by the server, it would be taken for a video.
      if (PIPELINE_NODES.has(node.comfyClass) && node.images?.[0]?.filename?.endsWith(".gif")) node.animatedImages = true;
      return previous?.apply(this, args);
    };
  },
});

/**
 * Have the node show nothing of files that are not whole yet.
 * @param {string} id an execution id
 * @param {{ output: Output }} detail of the event that brought them
 * @param {Report} report
 */
async function holdBack(id, detail, report) {
  const { output } = detail;
  const { images } = output;
  // The front end keeps this object for the next time that the workflow is opened.
  delete output.images;
  const node = nodeAt(id);
  for (const outputs of [app.nodeOutputs, stored()?.nodeOutputs]) {
    if (node && outputs) outputs[locatorOf(node)] = { ...output };
  }
  // An output that comes from ComfyUI's cache says what was true when the node returned.
  const known = await stateOf(report.run ?? "");
  if (known && known.state !== "completed") return;
  const whole = { ...(known?.report ?? report), outcome: "completed", run: report.run, finishing: false };
  execute({ ...detail, output: { ...output, images, async_vae_decode: [JSON.stringify(whole)] } });
}

/** Wait until the workflow whose graph is open is what the front end calls the active one; for five seconds at most. */
async function untilOpen() {
  for (let frame = 0; frame < 300; frame++) {
    await new Promise((done) => requestAnimationFrame(done));
    if (app.extensionManager.workflow.activeWorkflow?.activeState?.id === rootGraph().id) return;
  }
}

function showUnseen() {
  for (const news of [...unseen.values()].filter(nodeOf)) {
    unseen.delete(news.run);
    showSaved(news);
  }
}

/** @param {News & { output: Output }} news of a run whose files are whole now */
function showSaved(news) {
  const node = nodeOf(news);
  if (!node) {
    unseen.set(news.run, news);
    return;
  }
  if (!isLatest(node, news)) return;
  execute({ node: news.node, display_node: news.node, output: { ...news.output }, prompt_id: news.prompt });
}

/**
 * What the server does when a node returns.
 * @param {object} detail
 */
function execute(detail) {
  api.dispatchCustomEvent("executed", detail);
  // LiteGraph looks for outputs when it draws, and nothing else may happen that has it draw.
  app.canvas.setDirty(true, true);
}

/**
 * @param {string} run an id
 * @returns {Promise<(News & { state: string }) | null>} null where the server knows nothing of it any more
 */
async function stateOf(run) {
  const response = await api.fetchApi(`/async_vae_decode/runs/${run}`);
  return response.ok ? response.json() : null;
}

/**
 * @param {Output} output
 * @returns {Report | undefined}
 */
function reportIn(output) {
  const told = output.async_vae_decode?.[0];
  return told && JSON.parse(told);
}

/** @param {string} id an execution id */
function dropPreview(id) {
  const node = nodeAt(id);
  if (!node || !PIPELINE_NODES.has(node.comfyClass)) return;
  // The nodes that stand for the subgraphs around it show its preview, too.
  const parts = id.split(":");
  for (const [index] of parts.entries()) {
    const shown = nodeAt(parts.slice(0, index + 1).join(":"));
    if (!shown) continue;
    executed.add(shown);
    for (const previews of [app.nodePreviewImages, stored()?.nodePreviewImages]) {
      if (previews) delete previews[locatorOf(shown)];
    }
    forgetPictures(shown);
  }
}

/**
 * Have the node show another file than the one that it has saved, after a change of tabs, too.
 * @param {string} id an execution id
 * @param {{ images: Saved[] }} output is what the front end keeps for the next time that the workflow is opened
 * @param {Saved} file
 */
function showInstead(id, output, file) {
  saved.set(output, output.images);
  output.images = [file];
  const node = nodeAt(id);
  if (!node || !PIPELINE_NODES.has(node.comfyClass)) return;
  for (const outputs of [app.nodeOutputs, stored()?.nodeOutputs]) {
    if (outputs) outputs[locatorOf(node)] = { ...output };
  }
}

/**
 * Let LiteGraph's node forget the pictures of a preview that was dropped.
 * @param {LGraphNode} node
 */
function forgetPictures(node) {
  // What was saved comes from the server; a preview is in the browser's memory.
  if (!executed.has(node) || !node.imgs?.some((/** @type {HTMLImageElement} */ { src }) => src.startsWith("blob:"))) return;
  node.imgs = undefined;
  node.preview = undefined;
  // What it saved is shown anew where that was in its place.
  node.images = undefined;
  const widget = node.widgets?.find(({ name }) => name === IMAGE_WIDGET);
  if (widget) node.removeWidget(widget);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

/**
 * Let LiteGraph's node forget the video of the run before where this one saved pictures, and the other way round: it
 * would go on playing the old one.
 * @param {string} id an execution id
 * @param {string} file that the node has saved
 */
function forgetOtherKind(id, file) {
  const node = nodeAt(id);
  if (!node || !PIPELINE_NODES.has(node.comfyClass)) return;
  const picture = PICTURES.test(file);
  const names = picture ? [VIDEO_WIDGET] : [ANIMATION_WIDGET, IMAGE_WIDGET];
  const old = node.widgets?.filter(({ name }) => names.includes(name)) ?? [];
  if (!old.length) return;
  for (const widget of old) node.removeWidget(widget);
  if (picture) node.videoContainer = undefined;
  else node.imgs = undefined;
  // By this it knows a video as well.
  node.previewMediaType = undefined;
  // It looks for outputs again.
  node.images = undefined;
  node.setDirtyCanvas(true, true);
}

/** @param {string} id an execution id */
function dropOutputs(id) {
  const node = nodeAt(id);
  if (!node || !PIPELINE_NODES.has(node.comfyClass)) return;
  executed.delete(node);
  for (const outputs of [app.nodeOutputs, stored()?.nodeOutputs]) {
    if (outputs?.[locatorOf(node)]) delete outputs[locatorOf(node)];
  }
}

/**
 * @param {LGraphNode} node
 * @returns {string} what the front end finds a node's outputs by
 */
function locatorOf(node) {
  return node.graph === rootGraph() ? String(node.id) : `${node.graph?.id}:${node.id}`;
}

/** The front end's own state of outputs and previews, which Vue nodes are drawn from. @returns {any} */
function stored() {
  const vue = /** @type {any} */ (document.getElementById("vue-app"))?.__vue_app__;
  return vue?.config.globalProperties.$pinia?.state.value.nodeOutput;
}
