/**
 * Puts a changed workflow in the place of the one that is open, as one step of undo, and compares what the front end has
 * made of it with what was meant: a step that lost anything is taken back.
 */
import { app } from "../../../scripts/app.js";
import { rootGraph } from "./graph_nodes.js";
import { message } from "./texts.js";
import { carryOut, graphsOf, linkIn } from "./swap_workflow.js";

/** The one that is at work; the next one waits for it. @type {Promise<unknown>} */
let last = Promise.resolve();

/**
 * @param {() => import("./swap_graph.js").Swap[]} plan looks at the graph when its turn has come
 * @returns {Promise<number>} how many swaps were done, all of them; what was made is selected
 * @throws {Error} the workflow is as it was, since it could not be changed without loss
 */
export function perform(plan) {
  const turn = last.then(() => performNow(plan));
  last = turn.catch(() => {});
  return turn;
}

/**
 * @param {() => import("./swap_graph.js").Swap[]} plan
 * @returns {Promise<number>}
 */
async function performNow(plan) {
  const tracker = app.extensionManager.workflow.activeWorkflow.changeTracker;
  // What was changed before this is a step of its own. Older front ends call it otherwise.
  (tracker.captureCanvasState ?? tracker.checkState).call(tracker);
  const root = rootGraph();
  const before = serialized();
  // Afterwards: older front ends give a widget that is connected its value when they write the file.
  const swaps = plan();
  if (!swaps.length) return 0;
  const wanted = structuredClone(before);
  const made = swaps.flatMap((swap) => {
    const { graph } = swap.gone[0];
    return carryOut(wanted, swap, graph === root).map((id) => ({ id, graph: graph === root ? null : graph.id }));
  });
  const view = viewNow();
  const [undo, redo] = [[...tracker.undoQueue], [...tracker.redoQueue]];
  const load = async (/** @type {any} */ workflow, /** @type {any[]} */ steps) => {
    await tracker.updateState([structuredClone(workflow)], steps);
    return serialized();
  };
  let wrong;
  try {
    wrong = differences(wanted, await load(wanted, tracker.undoQueue));
    if (wrong.length) {
      // What opening alone changes, a list that comes from a server for example, is not the swap's doing.
      const noise = new Set(differences(before, await load(before, [])));
      wrong = wrong.filter((what) => !noise.has(what));
      if (!wrong.length) {
        wrong = differences(wanted, await load(wanted, [])).filter((what) => !noise.has(what));
      }
    }
  } catch (error) {
    wrong = [String(error)];
  }
  if (wrong.length) {
    console.warn("Async VAE Decode: the workflow is as it was before the swap, which would have changed", wrong);
    await load(before, []);
  }
  const kept = wrong.length ? [undo, redo] : [tracker.undoQueue, []];
  tracker.undoQueue.splice(0, Infinity, ...kept[0]);
  tracker.redoQueue.splice(0, Infinity, ...kept[1]);
  // Sizes that nodes got while they were loaded are no step of their own.
  tracker.activeState = serialized();
  show(view);
  if (wrong.length) throw new Error(message("swapFailed", { what: wrong[0] }));
  select(made);
  return swaps.length;
}

function serialized() {
  return JSON.parse(JSON.stringify(rootGraph().serialize()));
}

/** Which graph one looks at, and where. */
function viewNow() {
  const { graph, ds } = app.canvas;
  return { id: graph === rootGraph() ? null : graph.id, scale: ds.scale, offset: [...ds.offset] };
}

/** @param {ReturnType<typeof viewNow>} view */
function show({ id, scale, offset }) {
  const graph = graphOf(id);
  if (app.canvas.graph !== graph) app.canvas.setGraph(graph);
  const { ds } = app.canvas;
  ds.scale = scale;
  ds.offset[0] = offset[0];
  ds.offset[1] = offset[1];
  app.canvas.setDirty(true, true);
}

/** @param {string | null} id of a subgraph; null: the outermost one */
function graphOf(id) {
  const root = rootGraph();
  return (id === null ? null : root.subgraphs?.get(id)) ?? root;
}

/** @param {{ id: any, graph: string | null }[]} made */
function select(made) {
  const nodes = made
    .filter(({ graph }) => graphOf(graph) === app.canvas.graph)
    .map(({ id }) => app.canvas.graph.getNodeById(id))
    .filter(Boolean);
  if (!nodes.length) return;
  app.canvas.deselectAll();
  for (const node of nodes) app.canvas.select(node);
}

/**
 * @param {any} wanted a workflow's file
 * @param {any} got another
 * @returns {string[]} every node, link and value that one has and the other has not
 */
function differences(wanted, got) {
  const here = new Map(graphsOf(got).map((graph, index) => [index ? graph.id : "", graph]));
  return graphsOf(wanted).flatMap((graph, index) => {
    const other = here.get(index ? graph.id : "");
    if (!other) return [`${graph.name ?? graph.id}`];
    const [links, linksThere] = [linksOf(graph), linksOf(other)];
    const nodes = new Map(other.nodes.map((/** @type {any} */ node) => [String(node.id), node]));
    return [
      ...[...links].filter((link) => !linksThere.has(link)),
      ...[...linksThere].filter((link) => !links.has(link)),
      ...graph.nodes.filter((/** @type {any} */ node) => !alike(node, nodes.get(String(node.id)))).map(nameOf),
      ...(other.nodes.length === graph.nodes.length ? [] : [`${other.nodes.length} / ${graph.nodes.length}`]),
    ];
  });
}

/** @param {any} node */
function nameOf({ type, id }) {
  return `${type} (${id})`;
}

/**
 * @param {any} graph in a file
 * @returns {Set<string>} each of its links in words; those from or to a node that is not there lead nowhere, and front
 *   ends drop them when they open the workflow
 */
function linksOf(graph) {
  const nodes = new Map(graph.nodes.map((/** @type {any} */ node) => [String(node.id), node]));
  // The inside of a subgraph's inputs and outputs has a number below 0.
  const there = (/** @type {any} */ id) => nodes.has(String(id)) || Number(id) < 0;
  const words = new Set();
  for (const entry of graph.links ?? []) {
    const { origin_id: from, origin_slot: output, target_id: to, target_slot: input } = linkIn(entry);
    if (!there(from) || !there(to)) continue;
    const [origin, target] = [from, to].map((id) => nodes.get(String(id)));
    const start = `${origin?.type ?? ""} (${from}) ${origin?.outputs?.[output]?.name ?? output}`;
    words.add(`${start} → ${target?.type ?? ""} (${to}) ${target?.inputs?.[input]?.name ?? input}`);
  }
  return words;
}

/**
 * @param {any} wanted a node in a file
 * @param {any} got the one of that id in the other file
 * @returns {boolean} whether it is the same node with the same values
 */
function alike(wanted, got) {
  return (
    got?.type === wanted.type &&
    (got.mode ?? 0) === (wanted.mode ?? 0) &&
    JSON.stringify(valuesOf(wanted)) === JSON.stringify(valuesOf(got))
  );
}

/**
 * @param {any} node in a file
 * @returns {unknown} its widgets' values; what is shown of a run leaves empty places at the end
 */
function valuesOf({ widgets_values: values }) {
  if (!Array.isArray(values)) return values ?? [];
  let length = values.length;
  while (length && values[length - 1] === null) length -= 1;
  return values.slice(0, length);
}
