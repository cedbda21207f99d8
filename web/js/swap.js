/**
 * Commands and menus that put this pack's nodes in the place of stock's decode and save nodes, and stock's back. A swap
 * is one step of undo.
 */
import { app } from "../../../scripts/app.js";
import { rootGraph } from "./graph_nodes.js";
import { OURS, wayBack } from "./swap_back.js";
import { obstacleOf } from "./swap_graph.js";
import { perform } from "./swap_perform.js";
import { STOCK_DECODES, choicesFor } from "./swap_plan.js";
import { LABELS, labelOf, loadTexts, message } from "./texts.js";

/**
 * @typedef {any} LGraphNode
 * @typedef {import("./swap_graph.js").Swap} Swap
 * @typedef {import("./swap_plan.js").Choices} Choices
 */

/** What each command on single nodes makes of one; undefined: it is not for that node. */
const SWAPS = /** @type {Record<string, (node: LGraphNode) => Swap | null | undefined>} */ ({
  "AsyncVAEDecode.Replace": (node) => choicesFor(node, offersOf).decode,
  "AsyncVAEDecode.ReplaceAndSaveFrames": (node) => choicesFor(node, offersOf).frames,
  "AsyncVAEDecode.ReplaceAndSaveVideo": (node) => choicesFor(node, offersOf).video,
  "AsyncVAEDecode.Restore": (node) => wayBack(node, choosesCodec()),
});

/** @type {Record<string, string>} */
const ICONS = {
  "AsyncVAEDecode.Replace": "pi pi-bolt",
  "AsyncVAEDecode.ReplaceAndSaveFrames": "pi pi-images",
  "AsyncVAEDecode.ReplaceAndSaveVideo": "pi pi-video",
  "AsyncVAEDecode.Restore": "pi pi-replay",
};

/** Definitions of node classes, as the server gives them. @type {Map<string, any>} */
const definitions = new Map();
const DEFINITIONS = new Set([...OURS, "SaveVideo"]);

app.registerExtension({
  name: "AsyncVAEDecode.Swap",
  commands: [
    ...Object.keys(SWAPS).map((id) => command(id, () => replace(selected(), SWAPS[id]))),
    command("AsyncVAEDecode.ReplaceAll", () => replace(everyNode(), bestChoice)),
    command("AsyncVAEDecode.ReplaceAllKeepSavers", () => replace(everyNode(), SWAPS["AsyncVAEDecode.Replace"])),
    command("AsyncVAEDecode.RestoreAll", () => replace(everyNode(), SWAPS["AsyncVAEDecode.Restore"])),
  ],
  menuCommands: [
    {
      path: ["Extensions", "Async VAE Decode"],
      commands: ["AsyncVAEDecode.ReplaceAll", "AsyncVAEDecode.ReplaceAllKeepSavers", "AsyncVAEDecode.RestoreAll"],
    },
  ],
  setup: loadTexts,
  beforeRegisterNodeDef(/** @type {any} */ nodeType, /** @type {any} */ nodeData) {
    if (DEFINITIONS.has(nodeData.name)) definitions.set(nodeData.name, nodeData);
    // Older front ends ask no extension for menu items: there, and only there, a node's class gives its own.
    if (!("collectNodeMenuItems" in app) && (STOCK_DECODES.has(nodeData.name) || OURS.has(nodeData.name))) {
      const previous = nodeType.prototype.getExtraMenuOptions;
      nodeType.prototype.getExtraMenuOptions = function (/** @type {any} */ canvas, /** @type {any[]} */ options) {
        options.unshift(...menuItems(this), null);
        return previous?.call(this, canvas, options);
      };
    }
  },
  getNodeMenuItems: menuItems,
  getSelectionToolboxCommands: commandsFor,
});

/**
 * @param {string} id
 * @param {() => void | Promise<void>} run
 */
function command(id, run) {
  return { id, label: LABELS[/** @type {import("./texts.js").CommandId} */ (id)], icon: ICONS[id], function: run };
}

/**
 * @param {LGraphNode} item a node, or something else that can be selected
 * @returns {string[]} the commands for it alone
 */
function commandsFor(item) {
  if (!STOCK_DECODES.has(item?.type) && !OURS.has(item?.type)) return [];
  return Object.keys(SWAPS).filter((id) => SWAPS[id](item));
}

/** @param {LGraphNode} node */
function menuItems(node) {
  return commandsFor(node).map((id) => ({ content: labelOf(id), callback: () => void replace([node], SWAPS[id]) }));
}

/** @returns {LGraphNode[]} */
function selected() {
  return Object.values(app.canvas.selected_nodes ?? {});
}

/** @returns {LGraphNode[]} those of the whole workflow, subgraphs included */
function everyNode() {
  const root = rootGraph();
  return [root, ...(root.subgraphs?.values() ?? [])].flatMap((graph) => [...graph.nodes]);
}

/** @param {LGraphNode} node */
function bestChoice(node) {
  const { video, frames, decode } = choicesFor(node, offersOf);
  return video ?? frames ?? decode;
}

/**
 * Replace nodes, as one step of undo, and tell how many, and which are left alone because something that is connected to
 * them would be cut off.
 * @param {LGraphNode[]} nodes those that `swapOf` has nothing for are left alone
 * @param {(node: LGraphNode) => Swap | null | undefined} swapOf
 */
async function replace(nodes, swapOf) {
  const lost = new Set();
  const left = new Set();
  const plan = () => {
    /** @type {Set<LGraphNode>} */
    const going = new Set();
    return nodes.flatMap((node) => {
      // A swap can take others of the nodes along.
      const swap = node.graph && !going.has(node) ? swapOf(node) : null;
      if (!swap) return [];
      const obstacle = obstacleOf(swap);
      if (obstacle) {
        left.add(message("leftAlone", { node: obstacle.node.title, slot: obstacle.slot }));
        return [];
      }
      for (const gone of swap.gone) going.add(gone);
      for (const name of "lost" in swap ? /** @type {string[]} */ (swap.lost) : []) lost.add(name);
      return [swap];
    });
  };
  let count;
  try {
    count = await perform(plan);
  } catch (error) {
    tell("error", String(/** @type {Error} */ (error).message));
    return;
  }
  for (const text of left) tell("warn", text);
  if (lost.size) tell("warn", message("lost", { count, what: [...lost].join(", ") }));
  else if (count) tell("success", message("replaced", { count }));
  else if (!left.size) tell("info", message("nothingToReplace"));
}

/**
 * @param {"success" | "info" | "warn" | "error"} severity
 * @param {string} detail
 */
function tell(severity, detail) {
  const life = severity === "success" ? 3000 : 8000;
  app.extensionManager.toast.add({ severity, summary: "Async VAE Decode", detail, life });
}

/**
 * @param {string} type a node class
 * @returns {import("./swap_formats.js").Offers}
 */
function offersOf(type) {
  return (name) => {
    const { required = {}, optional = {} } = definitions.get(type)?.input ?? {};
    const spec = required[name] ?? optional[name];
    if (!spec) return null;
    const [kind, settings = {}] = spec;
    return { ...settings, options: Array.isArray(kind) ? kind : (settings.options ?? []) };
  };
}

/** Whether stock's Save Video lets one choose a codec's settings: its formats come with inputs of their own then. */
function choosesCodec() {
  return (offersOf("SaveVideo")("format")?.options ?? []).some((/** @type {any} */ option) => option?.inputs);
}
