/**
 * What a swap is: which nodes go, which are made, and what goes on from the one to the other. It is read from the graph
 * that is open; `swap_workflow.js` carries it out.
 */

/**
 * @typedef {any} LGraph
 * @typedef {any} LGraphNode
 */

/**
 * A node to make.
 * @typedef {object} Made
 * @property {string} type its class
 * @property {LGraphNode} like whose mode, flags and properties it takes
 * @property {import("./swap_looks.js").Looks} looks title and colours
 * @property {Record<string, unknown>} [properties] more of its own
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
 * What keeps a swap from carrying everything: a link from or to elsewhere that has no place in the new nodes, or none of
 * its type.
 * @param {Swap} swap
 * @returns {{ node: LGraphNode, slot: string } | null} whose input or output it is
 */
export function obstacleOf({ gone, made, inputs, outputs }) {
  const going = new Set(gone);
  for (const node of gone) {
    for (const input of node.inputs ?? []) {
      const link = input.link == null ? null : linkOf(node.graph, input.link);
      if (!link || going.has(node.graph.getNodeById(link.origin_id))) continue;
      const place = inputs.find((other) => other.node === node && other.name === input.name);
      const slot = place && exampleOf(made[place.to].type)?.inputs?.find((/** @type {any} */ s) => s.name === place.as);
      if (!slot || !window.LiteGraph.isValidConnection(originType(node.graph, link), slot.type)) {
        return { node, slot: input.name };
      }
    }
    for (const [slot, output] of (node.outputs ?? []).entries()) {
      if (outputs.some((kept) => kept.node === node && kept.slot === slot)) continue;
      if (onward(node, output, going).length) return { node, slot: output.name };
    }
  }
  return null;
}

/**
 * @param {LGraphNode} node
 * @param {any} output
 * @param {Set<LGraphNode>} going
 * @returns {number[]} the links to nodes that stay, and to the outside of a subgraph
 */
export function onward(node, output, going) {
  return (output?.links ?? []).filter((/** @type {number} */ id) => {
    const link = linkOf(node.graph, id);
    return link && !going.has(node.graph.getNodeById(link.target_id));
  });
}

/**
 * The type of what a link brings; its own `type` is that of the input that it was drawn to.
 * @param {LGraph} graph
 * @param {any} link
 */
function originType(graph, link) {
  const slots = graph.getNodeById(link.origin_id)?.outputs ?? graph.inputNode?.slots;
  return slots?.[link.origin_slot]?.type ?? link.type;
}

/** Nodes by class, of no graph: only their slots are looked at. @type {Map<string, LGraphNode>} */
const examples = new Map();

/**
 * @param {string} type
 * @returns {LGraphNode | null}
 */
function exampleOf(type) {
  let example = examples.get(type);
  if (!example) {
    example = window.LiteGraph.createNode(type);
    if (example) examples.set(type, example);
  }
  return example ?? null;
}
