/**
 * Nodes of this pack in the graph that is open, found by the ids under which the server runs them.
 */
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

/** @typedef {import("./pipeline_run.js").News} News */

/** The nodes that run a pipeline. */
export const PIPELINE_NODES = new Set([
  "AsyncVAEDecode",
  "AsyncVAEDecodeSaveFrames",
  "AsyncVAEDecodeSaveVideo",
  "AsyncSaveFrames",
  "AsyncSaveVideo",
]);

/** What a workflow has that nobody gave an id. */
const NO_ID = "00000000-0000-0000-0000-000000000000";
/** When the latest run of a node began, of those that are known. @type {WeakMap<LGraphNode, number>} */
const latest = new WeakMap();

/**
 * The outermost graph of the workflow that is open, whichever subgraph is shown.
 *
 * @returns {LGraph}
 */
export function rootGraph() {
  const graph = app.rootGraph ?? app.graph;
  return graph.rootGraph ?? graph;
}

/**
 * A node by its execution id: `"3"`, or `"12:3"` for node 3 inside of the subgraph that node 12 stands for.
 *
 * @param {string} executionId
 * @returns {LGraphNode | null}
 */
export function nodeAt(executionId) {
  const ids = executionId.split(":").map(Number);
  let graph = rootGraph();
  for (const id of ids.slice(0, -1)) {
    const inner = graph.getNodeById(id)?.subgraph;
    if (!inner) return null;
    graph = inner;
  }
  return graph.getNodeById(ids[ids.length - 1]) ?? null;
}

/**
 * Calls `visit` with every node of this pack that runs a pipeline, those in subgraphs included.
 *
 * @param {(node: LGraphNode) => void} visit
 */
export function forEachPipelineNode(visit) {
  const seen = new Set();
  /** @param {LGraph} graph */
  const walk = (graph) => {
    if (seen.has(graph)) return;
    seen.add(graph);
    for (const node of graph.nodes) {
      if (PIPELINE_NODES.has(node.comfyClass)) visit(node);
      if (node.subgraph) walk(node.subgraph);
    }
  };
  walk(rootGraph());
}

/**
 * The node that `news` are about, if the workflow that is open is the one that ran.
 *
 * @param {News} news
 * @returns {LGraphNode | null}
 */
export function nodeOf(news) {
  if (!news.node) return null;
  const named = news.workflow && news.workflow !== NO_ID;
  const here = named ? news.workflow === rootGraph().id : news.client === api.clientId;
  const node = here ? nodeAt(news.node) : null;
  return node && PIPELINE_NODES.has(node.comfyClass) && (!news.type || news.type === node.comfyClass) ? node : null;
}

/**
 * Whether nobody has told of a later run of that node: an earlier one may still save in the background.
 *
 * @param {LGraphNode} node
 * @param {News} news
 * @returns {boolean}
 */
export function isLatest(node, news) {
  const began = news.began ?? 0;
  if (began < (latest.get(node) ?? 0)) return false;
  latest.set(node, began);
  return true;
}
