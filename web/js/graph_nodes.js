/**
 * Nodes of this pack in the graph that is open, found by the ids under which the server runs them.
 */
import { app } from "../../../scripts/app.js";

/** The nodes that run a pipeline. */
export const PIPELINE_NODES = new Set([
  "AsyncVAEDecode",
  "AsyncVAEDecodeSaveFrames",
  "AsyncVAEDecodeSaveVideo",
  "AsyncSaveFrames",
  "AsyncSaveVideo",
]);

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
