/**
 * The live view of a run in its node: follows `async_vae_decode.*` events, and finds the recent runs again after a
 * reload, in a second tab and when another workflow has been open.
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { behaveAsNode, dragNode } from "./canvas_events.js";
import { PIPELINE_NODES, forEachPipelineNode, isLatest, nodeAt, nodeOf, rootGraph } from "./graph_nodes.js";
import { savedIn } from "./node_media.js";
import { PipelineElement } from "./pipeline_element.js";
import { PipelineRun, runOfReport } from "./pipeline_run.js";
import { SETTINGS } from "./settings.js";
import { message } from "./texts.js";

/**
 * @typedef {import("./pipeline_run.js").News} News
 * @typedef {{ async_vae_decode?: string[], images?: import("./pipeline_run.js").Saved[] }} Output
 */

const WIDGET = "async_vae_decode_pipeline";
/** Those that save one file. */
const VIDEO_NODES = new Set(["AsyncVAEDecodeSaveVideo", "AsyncSaveVideo"]);
const ROUTES = "/async_vae_decode/runs";
const MOST_RUNS = 64;

/** Runs by id, oldest first. @type {Map<string, PipelineRun>} */
const runs = new Map();
/** Runs whose summary is on its way. @type {Set<string>} */
const fetching = new Set();
/** @type {WeakMap<LGraphNode, PipelineElement>} */
const views = new WeakMap();
/** Whether the setting says so. */
let viewsWanted = true;
/** Whether there is a graph already. */
let ready = false;

// At once, since the front end complains of events that nobody listens to, and a run goes on while a page is loaded. What
// comes before there is a graph is found again with it.
for (const kind of ["started", "progress", "ended"]) {
  api.addEventListener(`async_vae_decode.${kind}`, ({ detail }) => {
    if (ready) onNews(/** @type {News} */ (detail));
  });
}

app.registerExtension({
  name: "AsyncVAEDecode.PipelineView",
  setup() {
    ready = true;
    api.addEventListener("executed", (event) => onExecuted(event.detail));
    api.addEventListener("reconnected", () => void restore());
    viewsWanted = app.ui.settings.getSettingValue(SETTINGS.view) !== false;
    app.ui.settings.addEventListener(`${SETTINGS.view}.change`, (event) => {
      // The setting itself has the new value only afterwards.
      viewsWanted = /** @type {CustomEvent} */ (event).detail.value !== false;
      void restore();
    });
  },
  async afterConfigureGraph() {
    await restore();
  },
});

/** @param {News} news */
function onNews(news) {
  let run = runs.get(news.run);
  if (!run) {
    run = new PipelineRun(news);
    remember(run);
  }
  const node = nodeOf(news);
  if (!run.add(news)) void fetchRun(run);
  if (node && isLatest(node, news)) show(node, run);
}

/**
 * An output that comes from the cache brings the report of the run that made it.
 *
 * @param {{ node?: string, display_node?: string, output?: Output }} detail
 */
function onExecuted(detail) {
  const told = detail?.output?.async_vae_decode?.[0];
  /** @type {import("./pipeline_run.js").Report | undefined} */
  const report = told && JSON.parse(told);
  const id = detail?.display_node ?? detail?.node;
  if (!report?.run || id === undefined) return;
  const node = nodeAt(String(id));
  if (!node || !PIPELINE_NODES.has(node.comfyClass)) return;
  const known = runs.get(report.run);
  // Another workflow may have such a node under the same id.
  if (known && nodeOf(known.about) !== node) return;
  const last = views.get(node)?.run;
  const run = known ?? (last?.id === report.run ? last : runOfReport(report));
  const [file] = VIDEO_NODES.has(node.comfyClass) && !report.finishing ? savedIn(detail.output ?? {}) : [];
  if (file) run.file = file;
  show(node, run);
}

/** Shows the newest run of every node of the workflow that is open. */
async function restore() {
  if (!viewsWanted) {
    forEachPipelineNode(hide);
    return;
  }
  let found = false;
  forEachPipelineNode(() => {
    found = true;
  });
  if (!found) return;
  const response = await api.fetchApi(ROUTES);
  if (!response.ok) return;
  const known = /** @type {News[]} */ (await response.json());
  /** @type {Map<LGraphNode, News>} */
  const newest = new Map();
  for (const brief of known) {
    const node = nodeOf(brief);
    if (node) newest.set(node, brief);
  }
  forEachPipelineNode((node) => {
    const shown = views.get(node)?.run;
    if (shown?.running && !known.some((brief) => brief.run === shown.id)) {
      shown.running = false;
      shown.lost = true;
      show(node, shown);
    }
  });
  await Promise.all(
    [...newest].map(async ([node, brief]) => {
      let run = runs.get(brief.run);
      if (!run) {
        run = new PipelineRun(brief);
        remember(run);
      }
      if (run.told === 0 || run.running) await fetchRun(run);
      show(node, run);
    }),
  );
}

/** @param {PipelineRun} run */
async function fetchRun(run) {
  if (fetching.has(run.id)) return;
  fetching.add(run.id);
  try {
    const response = await api.fetchApi(`${ROUTES}/${run.id}`);
    if (!response.ok) return;
    run.replace(/** @type {News} */ (await response.json()));
    const node = nodeOf(run.about);
    if (node && isLatest(node, run.about)) show(node, run);
  } finally {
    fetching.delete(run.id);
  }
}

/** @param {PipelineRun} run */
function remember(run) {
  runs.set(run.id, run);
  for (const id of runs.keys()) {
    if (runs.size <= MOST_RUNS) break;
    runs.delete(id);
  }
}

/**
 * @param {LGraphNode} node
 * @param {PipelineRun} run
 */
function show(node, run) {
  if (!viewsWanted) return;
  let view = views.get(node);
  if (!view) {
    const inputs = () => (node.widgets ?? []).filter(({ hidden }) => !hidden).map(({ name }) => name);
    view = new PipelineElement({ onTrace: downloadTrace, addressOf, inputs });
    behaveAsNode(view.element);
    views.set(node, view);
    attach(node, view);
  }
  const { height } = view;
  view.show(run);
  if (view.height !== height) fit(node, view.height - height);
  putIntoVueNode(node, view.element);
}

/**
 * Where nodes are drawn by Vue, older front ends draw no DOM widgets: there the view goes below the node's widgets.
 * Newer ones take it from there to its own place.
 *
 * Front ends as old as that draw the nodes of the outermost graph even while a subgraph is open, and none of its own:
 * what has the id of a node inside is another node.
 *
 * @param {LGraphNode} node
 * @param {HTMLElement} element
 */
function putIntoVueNode(node, element) {
  if (!LiteGraph.vueNodesMode || element.isConnected) return;
  if (node.graph !== rootGraph() || node.graph !== app.canvas.graph) return;
  document.querySelector(`[data-node-id="${node.id}"] .lg-node-widgets`)?.append(element);
}

/**
 * @param {LGraphNode} node
 * @param {PipelineElement} view
 */
function attach(node, view) {
  const widget = node.addDOMWidget(WIDGET, WIDGET, view.element, {
    serialize: false,
    hideOnZoom: false,
    // It is no input that a side panel could list.
    hideInPanel: true,
    getMinHeight: () => view.height,
    getMaxHeight: () => view.height,
  });
  // Not in the workflow either, where widgets' values are told apart by their places.
  widget.serialize = false;
  widget.onPointerDown = dragNode;
  // Above the preview, which ComfyUI adds as a widget, too.
  const preview = (node.widgets ?? []).findIndex((other) => other.name.startsWith("$$"));
  if (preview >= 0 && preview < node.widgets.length - 1) {
    node.widgets.splice(preview, 0, ...node.widgets.splice(node.widgets.indexOf(widget), 1));
  }
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas(true, true);
}

/**
 * @param {LGraphNode} node
 * @param {number} more pixels that its view takes now
 */
function fit(node, more) {
  node.setSize([node.size[0], Math.max(node.computeSize()[1], node.size[1] + more)]);
  node.setDirtyCanvas(true, true);
}

/** @param {LGraphNode} node */
function hide(node) {
  const view = views.get(node);
  if (!view) return;
  views.delete(node);
  const widget = node.widgets?.find((candidate) => candidate.name === WIDGET);
  if (!widget) return;
  node.removeWidget(widget);
  widget.element.remove();
  fit(node, -view.height);
}

/** @param {import("./pipeline_run.js").Saved} file */
function addressOf(file) {
  return api.apiURL(`/view?${new URLSearchParams(Object.entries(file))}`);
}

/** @param {PipelineRun} run */
async function downloadTrace(run) {
  const response = run.id ? await api.fetchApi(`${ROUTES}/${run.id}/trace`) : null;
  if (!response?.ok) {
    app.extensionManager.toast.add({
      severity: "warn",
      summary: message("noTrace"),
      detail: message("noTraceDetail"),
      life: 5000,
    });
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = `async-vae-decode-${run.id.slice(0, 8)}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
