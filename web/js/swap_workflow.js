/**
 * Carries out swaps in a workflow as its file holds it, which is the one form of a workflow that every front end
 * documents and reads: links keep their ids, and with them their reroutes and the slots of a surrounding subgraph; the
 * node that takes another's place keeps its id, by which widgets are promoted and results are found again.
 */
import { LOOKS } from "./swap_looks.js";
import { makeRoom, placeUnder } from "./swap_place.js";
import { widgetOf } from "./swap_graph.js";

/**
 * @typedef {any} LGraphNode
 * @typedef {any} Graph the outermost one or a subgraph, in a file
 * @typedef {any} NodeEntry a node in a file
 * @typedef {import("./swap_graph.js").Swap} Swap
 * @typedef {import("./swap_graph.js").Made} Made
 * @typedef {{ id: any, origin_id: any, origin_slot: number, target_id: any, target_slot: number }} Link
 */

const SEARCH_NAME = "Node name for S&R";
/** Properties that tell where a node's class comes from, and what only the node itself has. */
const OWN_PROPERTIES = new Set([SEARCH_NAME, "cnr_id", "aux_id", "ver", LOOKS]);
/** Enough for the title of any of the nodes. */
const LEAST_WIDTH = 210;
/** How much taller about Vue draws a node than LiteGraph says. */
const VUE_HEIGHT = 1.25;
/** What a link's entry holds in the outermost graph, where it is a list. */
const LINK = ["id", "origin_id", "origin_slot", "target_id", "target_slot", "type"];

/**
 * @param {any} workflow a workflow's file
 * @returns {Graph[]} its graphs, the outermost first
 */
export function graphsOf(workflow) {
  return [workflow, ...(workflow.definitions?.subgraphs ?? [])];
}

/**
 * @param {any} entry
 * @returns {Link}
 */
export function linkIn(entry) {
  if (!Array.isArray(entry)) return entry;
  return /** @type {any} */ (Object.fromEntries(LINK.map((name, index) => [name, entry[index]])));
}

/**
 * @param {any} entry
 * @param {Partial<Link>} changes
 */
function changeLink(entry, changes) {
  for (const [name, value] of Object.entries(changes)) entry[Array.isArray(entry) ? LINK.indexOf(name) : name] = value;
}

/** @param {unknown} one @param {unknown} other */
function same(one, other) {
  return String(one) === String(other);
}

/**
 * Carry out a swap.
 * @param {any} workflow is changed
 * @param {Swap} swap nothing of it keeps anything from its place (`obstacleOf`)
 * @param {boolean} inRoot whether the nodes are those of the outermost graph
 * @returns {any[]} the ids of the nodes that were made
 * @throws {Error} a node cannot be made, or a link has no place; the workflow is of no use then
 */
export function carryOut(workflow, swap, inRoot) {
  const graph = inRoot ? workflow : graphsOf(workflow).find(({ id }) => same(id, swap.gone[0].graph.id));
  const entryOf = (/** @type {LGraphNode} */ node) => graph.nodes.find((/** @type {any} */ n) => same(n.id, node.id));
  const old = swap.gone.map(entryOf);
  const made = swap.made.map((wanted) => entryFor(workflow, wanted, entryOf(wanted.like)));
  graph.nodes = graph.nodes.filter((/** @type {any} */ entry) => !old.includes(entry));
  graph.nodes.push(...made);
  moveLinks(graph, swap, old, made);
  join(workflow, graph, swap, made, inRoot);
  for (const [index, { under }] of swap.made.entries()) {
    if (under !== undefined) placeUnder(made[index], made[under]);
    makeRoom(graph.nodes, made[index], [...old, ...made.slice(0, index)]);
  }
  return made.map(({ id }) => id);
}

/**
 * @param {Graph} graph
 * @param {Swap} swap
 * @param {NodeEntry[]} old
 * @param {NodeEntry[]} made
 */
function moveLinks(graph, swap, old, made) {
  const oldIds = new Set(old.map(({ id }) => String(id)));
  const gone = new Set();
  // The entries of the nodes that go are not in the graph any more, but still tell what their slots were.
  for (const list of [graph.links ?? [], graph.floatingLinks ?? []]) {
    for (const entry of list) {
      const link = linkIn(entry);
      const [from, to] = [oldIds.has(String(link.origin_id)), oldIds.has(String(link.target_id))];
      if (!from && !to) continue;
      if (from && to) {
        gone.add(link.id);
      } else if (from) {
        const kept = swap.outputs.find(({ node, slot }) => same(node.id, link.origin_id) && slot === link.origin_slot);
        if (!kept) throw new Error(`${link.origin_id}: output ${link.origin_slot} has no place`);
        const node = made[kept.to];
        const slot = slotOf(node, node.outputs, "type", kept.type);
        changeLink(entry, { origin_id: node.id, origin_slot: slot });
        if (list === graph.links) node.outputs[slot].links = [...(node.outputs[slot].links ?? []), link.id];
      } else {
        const name = old.find(({ id }) => same(id, link.target_id))?.inputs?.[link.target_slot]?.name;
        const kept = swap.inputs.find((input) => same(input.node.id, link.target_id) && input.name === name);
        if (!kept) throw new Error(`${link.target_id}: input ${name} has no place`);
        const node = made[kept.to];
        const slot = slotOf(node, node.inputs, "name", kept.as);
        changeLink(entry, { target_id: node.id, target_slot: slot });
        if (list === graph.links) node.inputs[slot].link = link.id;
      }
    }
  }
  const stays = (/** @type {any} */ entry) => !gone.has(linkIn(entry).id);
  graph.links = (graph.links ?? []).filter(stays);
  if (graph.floatingLinks) graph.floatingLinks = graph.floatingLinks.filter(stays);
  const { extra } = graph;
  if (extra?.linkExtensions) extra.linkExtensions = extra.linkExtensions.filter(stays);
  for (const reroutes of [graph.reroutes, extra?.reroutes]) {
    for (const reroute of reroutes ?? []) {
      if (reroute.linkIds) reroute.linkIds = reroute.linkIds.filter((/** @type {any} */ id) => !gone.has(id));
    }
  }
}

/**
 * @param {any} workflow
 * @param {Graph} graph
 * @param {Swap} swap
 * @param {NodeEntry[]} made
 * @param {boolean} inRoot
 */
function join(workflow, graph, swap, made, inRoot) {
  for (const { from, type, to, as } of swap.joined) {
    const id = freshLink(workflow, graph, inRoot);
    const origin = slotOf(made[from], made[from].outputs, "type", type);
    const target = slotOf(made[to], made[to].inputs, "name", as);
    const ends = { origin_id: made[from].id, origin_slot: origin, target_id: made[to].id, target_slot: target };
    const link = /** @type {Record<string, unknown>} */ ({ id, ...ends, type });
    graph.links.push(inRoot ? LINK.map((name) => link[name]) : link);
    made[from].outputs[origin].links = [...(made[from].outputs[origin].links ?? []), id];
    made[to].inputs[target].link = id;
  }
}

/**
 * @param {NodeEntry} node
 * @param {any[]} slots
 * @param {"name" | "type"} key
 * @param {string} value
 * @returns {number}
 */
function slotOf(node, slots, key, value) {
  const index = (slots ?? []).findIndex((slot) => slot[key] === value);
  if (index < 0) throw new Error(`${node.type} has no slot ${value}`);
  return index;
}

/**
 * @param {any} workflow
 * @param {Made} wanted
 * @param {NodeEntry} like
 * @returns {NodeEntry}
 */
function entryFor(workflow, wanted, like) {
  const node = window.LiteGraph.createNode(wanted.type);
  if (!node) throw new Error(`${wanted.type} cannot be made: is its node pack installed?`);
  for (const [name, value] of wanted.values) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    widget.value = value;
    widget.callback?.(value);
  }
  const [width, computed] = node.computeSize();
  const height = computed * (window.LiteGraph.vueNodesMode ? VUE_HEIGHT : 1);
  const entry = JSON.parse(JSON.stringify(node.serialize()));
  const [before, tall] = wanted.keepSize ? [Number(like.size[0]), Number(like.size[1])] : [0, 0];
  const { title, ...colours } = wanted.looks;
  delete entry.title;
  if (title !== undefined) entry.title = title;
  Object.assign(entry, colours, {
    id: wanted.keepId ? like.id : freshNode(workflow),
    pos: [...wanted.pos],
    size: [Math.max(width, Number(entry.size[0]), before, LEAST_WIDTH), Math.max(height, tall)],
    flags: { ...like.flags },
    order: like.order,
    mode: like.mode,
    properties: { ...propertiesFor(entry, wanted, like), ...wanted.properties },
  });
  return entry;
}

/**
 * @param {NodeEntry} entry
 * @param {Made} wanted
 * @param {NodeEntry} like
 */
function propertiesFor(entry, wanted, like) {
  const properties = { ...entry.properties };
  for (const [key, value] of Object.entries(like.properties ?? {})) {
    if (!OWN_PROPERTIES.has(key) && !(key in properties)) properties[key] = value;
  }
  // The name by which a file name's %variables% find a node; only one that a user chose is worth keeping.
  const known = like.properties?.[SEARCH_NAME];
  if (known && known !== like.type) properties[SEARCH_NAME] = known;
  return properties;
}

/**
 * @param {any} workflow
 * @returns {number} an id that no node of the workflow has
 */
function freshNode(workflow) {
  const ids = graphsOf(workflow).flatMap((graph) => graph.nodes.map((/** @type {any} */ node) => Number(node.id)));
  const counters = graphsOf(workflow).map((graph) => Number(graph.last_node_id ?? graph.state?.lastNodeId ?? 0));
  const id = Math.max(...ids.filter(Number.isFinite), ...counters) + 1;
  for (const graph of graphsOf(workflow)) {
    if (graph.state) graph.state.lastNodeId = Math.max(graph.state.lastNodeId ?? 0, id);
  }
  workflow.last_node_id = id;
  return id;
}

/**
 * @param {any} workflow
 * @param {Graph} graph
 * @param {boolean} inRoot
 * @returns {number} an id that no link of the graph has
 */
function freshLink(workflow, graph, inRoot) {
  const ids = graphsOf(workflow).flatMap(({ links }) => (links ?? []).map((/** @type {any} */ l) => Number(linkIn(l).id)));
  const id = Math.max(0, ...ids, Number(workflow.last_link_id ?? 0), Number(graph.state?.lastLinkId ?? 0)) + 1;
  if (graph.state) graph.state.lastLinkId = id;
  if (inRoot) workflow.last_link_id = id;
  return id;
}
