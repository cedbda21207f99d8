/**
 * Takes nodes out of a graph and puts others in their place, with every link, value, title, colour and place.
 *
 * Links are handed over, not drawn anew: their ids, their reroutes and the slots of a surrounding subgraph stay as they
 * are, and so does the id of the node that is replaced, by which widgets are promoted and results are found again.
 */

/**
 * @typedef {any} LGraph
 * @typedef {any} LGraphNode
 */

/**
 * A node to make.
 * @typedef {object} Made
 * @property {string} type its class
 * @property {LGraphNode} like whose mode, colours, flags and properties it takes
 * @property {LGraphNode[]} named whose title it takes: the first one's that a user chose
 * @property {boolean} [keepId] whether it takes the id of `like`, too
 * @property {[number, number]} pos
 * @property {number} [under] below which of those that are made it stands, instead
 * @property {boolean} [keepSize] whether it is as large as `like` where that is larger
 * @property {[string, unknown][]} values by widget, in order: a value can bring further widgets
 */

/**
 * @typedef {object} Swap
 * @property {LGraphNode[]} gone all of one graph
 * @property {Made[]} made
 * @property {{ node: LGraphNode, name: string, to: number, as: string }[]} inputs which input of a node that goes
 *   becomes which of `made[to]`
 * @property {{ node: LGraphNode, slot: number, to: number, type: string }[]} outputs which output of a node that goes
 *   becomes which of `made[to]`: the one of that type
 * @property {{ from: number, type: string, to: number, as: string }[]} joined links between those that are made
 */

/**
 * @param {LGraph} graph
 * @param {number} id
 * @returns {any} the link
 */
export function linkOf(graph, id) {
  return graph.getLink?.(id) ?? graph.links.get?.(id) ?? graph.links[id];
}

/**
 * @param {LGraphNode} node
 * @param {string} name
 * @returns {any} the widget, or undefined
 */
export function widgetOf(node, name) {
  return node.widgets?.find((/** @type {any} */ widget) => widget.name === name);
}

/**
 * @param {LGraphNode} node
 * @param {string} name
 * @returns {any} the input slot, or undefined
 */
export function inputOf(node, name) {
  return node.inputs?.find((/** @type {any} */ input) => input.name === name);
}

/**
 * @param {LGraphNode} node
 * @param {string} name
 * @returns {boolean} whether the input of that name is linked
 */
export function isLinked(node, name) {
  return inputOf(node, name)?.link != null;
}

/**
 * Make the nodes of `swap` and take out the others.
 *
 * @param {Swap} swap
 * @param {(type: string) => LGraphNode | null} createNode LiteGraph's
 * @returns {LGraphNode[]} those that were made
 * @throws {Error} a node cannot be made; nothing has changed then
 */
export function perform(swap, createNode) {
  const graph = swap.gone[0].graph;
  const made = swap.made.map((wanted) => {
    const node = createNode(wanted.type);
    if (!node) throw new Error(`${wanted.type} cannot be made: is its node pack installed?`);
    return node;
  });
  const incoming = takeInputs(graph, swap);
  const outgoing = takeOutputs(graph, swap);
  for (const node of swap.gone) {
    forgetWidgets(node);
    // Reroutes with nothing left on one side go with their link.
    graph.remove(node);
  }
  for (const [index, wanted] of swap.made.entries()) {
    dress(made[index], wanted);
    graph.add(made[index]);
    setValues(made[index], wanted);
    setSize(made[index], wanted);
    if (wanted.under !== undefined) placeUnder(made[index], made[wanted.under]);
    else if (swap.made.length === 1) makeRoom(graph, made[index], wanted.like);
  }
  for (const { link, to, as } of incoming) arrive(graph, link, made[to], as);
  for (const { links, to, type } of outgoing) leave(links, made[to], type);
  for (const { from, type, to, as } of swap.joined) {
    made[from].connect(outputIndex(made[from], type), made[to], inputIndex(made[to], as));
  }
  graph.updateExecutionOrder?.();
  graph.setDirtyCanvas(true, true);
  return made;
}

/**
 * Take the links that go on out of the inputs that they led to.
 * @param {LGraph} graph
 * @param {Swap} swap
 */
function takeInputs(graph, swap) {
  const taken = [];
  for (const { node, name, to, as } of swap.inputs) {
    const input = inputOf(node, name);
    const link = input?.link == null ? null : linkOf(graph, input.link);
    if (!link) continue;
    input.link = null;
    taken.push({ link, to, as });
  }
  return taken;
}

/**
 * Take the links that go on out of the outputs that they came from; those between nodes that go stay, to go with them.
 * @param {LGraph} graph
 * @param {Swap} swap
 */
function takeOutputs(graph, swap) {
  const gone = new Set(swap.gone.map((node) => node.id));
  const taken = [];
  for (const { node, slot, to, type } of swap.outputs) {
    const output = node.outputs[slot];
    const links = (output.links ?? []).map((/** @type {number} */ id) => linkOf(graph, id)).filter(Boolean);
    const onward = links.filter((/** @type {any} */ link) => !gone.has(link.target_id));
    output.links = links.filter((/** @type {any} */ link) => gone.has(link.target_id)).map(idOf);
    taken.push({ links: onward, to, type });
  }
  return taken;
}

/** @param {any} link */
function idOf(link) {
  return link.id;
}

/**
 * Let a link end at an input of `node`.
 * @param {LGraph} graph
 * @param {any} link
 * @param {LGraphNode} node
 * @param {string} name
 */
function arrive(graph, link, node, name) {
  const index = inputIndex(node, name);
  link.target_id = node.id;
  link.target_slot = index;
  node.inputs[index].link = link.id;
  if (link.origin_id === graph.inputNode?.id) {
    passLimitsOn(graph, graph.inputNode.slots[link.origin_slot], node, node.inputs[index]);
  }
  node.onConnectionsChange?.(1, index, true, link, node.inputs[index]);
}

/**
 * Let links begin at the output of `node` that has that type.
 * @param {any[]} links
 * @param {LGraphNode} node
 * @param {string} type
 */
function leave(links, node, type) {
  if (!links.length) return;
  const index = outputIndex(node, type);
  for (const link of links) {
    link.origin_id = node.id;
    link.origin_slot = index;
  }
  node.outputs[index].links = [...(node.outputs[index].links ?? []), ...links.map(idOf)];
  for (const link of links) node.onConnectionsChange?.(2, index, true, link, node.outputs[index]);
}

/**
 * @param {LGraphNode} node
 * @param {string} name
 */
function inputIndex(node, name) {
  const index = node.inputs.findIndex((/** @type {any} */ input) => input.name === name);
  if (index < 0) throw new Error(`${node.type} has no input ${name}`);
  return index;
}

/**
 * @param {LGraphNode} node
 * @param {string} type
 */
function outputIndex(node, type) {
  const index = node.outputs.findIndex((/** @type {any} */ output) => output.type === type);
  if (index < 0) throw new Error(`${node.type} has no output of type ${type}`);
  return index;
}

/**
 * Give the limits of a widget to those that stand for it on the subgraph's nodes. They keep those of the widget of the
 * node that went (from 64 on, say, where it may be 0 now), and so does the subgraph's input, which takes no other
 * widget with other limits then.
 *
 * @param {LGraph} graph the subgraph
 * @param {any} slot its input
 * @param {LGraphNode} node the node that the input leads to now
 * @param {any} input its input slot
 */
function passLimitsOn(graph, slot, node, input) {
  const widget = node.getWidgetFromSlot?.(input);
  if (!widget) return;
  slot._widget = widget;
  for (const host of hostsOf(graph)) {
    const outside = host.getWidgetFromSlot?.(inputOf(host, slot.name));
    if (outside) Object.assign(outside.options, widget.options);
  }
}

/**
 * @param {LGraph} subgraph
 * @returns {LGraphNode[]} the nodes, in whichever graph, that stand for it
 */
function hostsOf(subgraph) {
  const root = subgraph.rootGraph;
  return [root, ...(root.subgraphs?.values() ?? [])].flatMap((graph) =>
    graph.nodes.filter((/** @type {any} */ node) => node.subgraph === subgraph),
  );
}

/**
 * @param {LGraphNode} node
 * @param {Made} wanted
 */
function dress(node, wanted) {
  const { like } = wanted;
  if (wanted.keepId) node.id = like.id;
  node.pos = wanted.pos;
  node.mode = like.mode;
  node.flags = { ...like.flags };
  for (const key of ["color", "bgcolor", "shape"]) if (like[key] !== undefined) node[key] = like[key];
  for (const [key, value] of Object.entries(like.properties ?? {})) {
    if (!OWN_PROPERTIES.has(key) && !(key in node.properties)) node.properties[key] = value;
  }
  // The name by which a file name's %variables% find a node; only one that a user chose is worth keeping.
  const known = like.properties?.[SEARCH_NAME];
  if (known && known !== like.type) node.properties[SEARCH_NAME] = known;
  const title = wanted.named.map(titleChosenFor).find((chosen) => chosen !== undefined);
  if (title !== undefined) node.title = title;
}

const SEARCH_NAME = "Node name for S&R";
/** Properties that tell where a node's class comes from. */
const OWN_PROPERTIES = new Set([SEARCH_NAME, "cnr_id", "aux_id", "ver"]);
/** Titles that the nodes have when nobody chose one; workflows that were made in English hold them in any language. */
const TITLES = new Set([
  "VAE Decode",
  "VAE Decode (Tiled)",
  "Save Image",
  "Create Video",
  "Save Video",
  "Save WEBM",
  "SaveWEBM",
  "Save Animated WEBP",
  "SaveAnimatedWEBP",
  "Video Combine 🎥🅥🅗🅢",
  "Async VAE Decode",
  "Async VAE Decode & Save Frames",
  "Async VAE Decode & Save Video",
  "Async Save Frames",
  "Async Save Video",
]);

/**
 * @param {LGraphNode} node
 * @returns {string | undefined} its title, if it is not its class's
 */
function titleChosenFor(node) {
  const { title } = node;
  const given = !title || title === node.constructor.title || title === node.type || TITLES.has(title);
  return given ? undefined : title;
}

/**
 * Have the front end forget the widgets of a node that goes: newer ones remember a widget's choices and limits by the
 * node's id and the widget's name, and would give them to the new node's widget of that name.
 * @param {LGraphNode} node
 */
function forgetWidgets(node) {
  for (const widget of node.widgets ?? []) if (widget._state) widget._state.type = "gone";
}

/**
 * @param {LGraphNode} node
 * @param {Made} wanted
 */
function setValues(node, wanted) {
  for (const [name, value] of wanted.values) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    widget.value = value;
    widget.callback?.(value);
  }
}

/**
 * @param {LGraphNode} node
 * @param {Made} wanted
 */
function setSize(node, wanted) {
  const [width, height] = node.computeSize();
  const [before, tall] = wanted.keepSize ? wanted.like.size : [0, 0];
  node.setSize([Math.max(width, node.size[0], before, LEAST_WIDTH), Math.max(height, tall)]);
}

/** Enough for the title of any of the nodes. */
const LEAST_WIDTH = 210;

/**
 * Let a node that is taller than the one before it grow upwards, where it would otherwise cover another and has room
 * above; where it has none, it stays where it is.
 * @param {LGraph} graph
 * @param {LGraphNode} node
 * @param {LGraphNode} before
 */
function makeRoom(graph, node, before) {
  if (node.flags.collapsed) return;
  const others = graph.nodes.filter((/** @type {any} */ other) => other !== node && !overlap(other, before));
  const free = () => !others.some((/** @type {any} */ other) => overlap(other, node));
  if (free()) return;
  const [x, y] = node.pos;
  node.pos = [x, y + before.size[1] - node.size[1]];
  if (!free()) node.pos = [x, y];
}

/**
 * @param {LGraphNode} one
 * @param {LGraphNode} other
 * @returns {boolean} whether one covers something of the other, titles included
 */
function overlap(one, other) {
  const [a, b] = [one, other].map(({ pos, size, flags }) => {
    const height = flags?.collapsed ? 0 : size[1];
    return { left: pos[0], right: pos[0] + size[0], top: pos[1] - TITLE, bottom: pos[1] + height };
  });
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

/** Height of a title. */
const TITLE = 30;

/** Room for a title and some air between two nodes. */
const GAP = 2 * TITLE;

/**
 * @param {LGraphNode} node
 * @param {LGraphNode} above
 */
function placeUnder(node, above) {
  node.pos = [above.pos[0], above.pos[1] + above.size[1] + GAP];
}
