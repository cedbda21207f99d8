/**
 * Lets what is drawn in a node behave as the node's own surface: the wheel zooms, the middle button pans, a drag moves
 * the node, a right click opens its menu. Only buttons and links keep their clicks.
 */
import { app } from "../../../scripts/app.js";

/** @param {HTMLElement} element in a node, drawn by either renderer */
export function behaveAsNode(element) {
  let pressed = false;
  element.addEventListener(
    "wheel",
    (event) => {
      // Vue nodes pass the wheel on themselves.
      if (!LiteGraph.vueNodesMode) passOn(event, new WheelEvent(event.type, event));
    },
    { passive: false },
  );
  element.addEventListener("contextmenu", (event) => {
    if (!LiteGraph.vueNodesMode) event.preventDefault();
  });
  for (const type of /** @type {const} */ (["pointerdown", "pointermove", "pointerup", "pointercancel"])) {
    element.addEventListener(type, (event) => {
      if (type === "pointerdown") pressed = !(/** @type {Element} */ (event.target).closest("button, a"));
      if (pressed) passOn(event, new PointerEvent(type, event));
      if (type === "pointerup" || type === "pointercancel") pressed = false;
    });
  }
}

/**
 * @param {Event} event
 * @param {Event} copy for the node that is around the element, or for the canvas where LiteGraph draws it
 */
function passOn(event, copy) {
  const around = /** @type {Element} */ (event.currentTarget).closest("[data-node-id]");
  event.preventDefault();
  event.stopPropagation();
  (LiteGraph.vueNodesMode && around ? around : app.canvas.canvas).dispatchEvent(copy);
}

/**
 * What LiteGraph asks a widget when somebody presses a button over it: here, a drag moves the node, as it does beside
 * the widgets.
 *
 * @param {any} pointer LiteGraph's
 * @param {LGraphNode} node
 * @returns {boolean}
 */
export function dragNode(pointer, node) {
  const { canvas } = app;
  pointer.onDragStart = () => {
    const { graph } = canvas;
    canvas.emitBeforeChange();
    graph.beforeChange();
    pointer.finally = () => {
      canvas.isDragging = false;
      graph.afterChange();
      canvas.emitAfterChange();
    };
    canvas.processSelect(node, pointer.eDown, true);
    canvas.isDragging = true;
  };
  pointer.onDragEnd = (/** @type {PointerEvent} */ event) => {
    if (event.shiftKey || LiteGraph.alwaysSnapToGrid) canvas.graph.snapToGrid(canvas.selectedItems);
    canvas.setDirty(true, true);
  };
  return true;
}
