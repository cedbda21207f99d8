"""ComfyUI's front end in a browser page, as a test uses it: add nodes, connect, queue, look."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.comfyui.client import PROMPT_TIMEOUT, PromptRejected
from tests.comfyui.server import PACK_FOLDER, REPOSITORY, Server

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Locator, Page, Response

Renderer = Literal["litegraph", "vue"]
Theme = Literal["dark", "light"]

SCREENSHOTS = REPOSITORY / "tests" / "output" / "screenshots"
#: A front end loads some hundred modules, on a machine that may be busy.
READY_TIMEOUT = 120.0
#: What an error of ours has in its text or in the address of its module.
OURS = (f"/extensions/{PACK_FOLDER}/", "AsyncVAEDecode", "async_vae_decode")
#: What a first-time user is greeted with lies over the canvas.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Workflow.ShowMissingNodesWarning": False,
    "Comfy.VueNodes.AutoScaleLayout": False,
    "Comfy.Minimap.Visible": False,
}

# The node whose id is given, in the graph that is shown or, by an execution id such as "12:3", in a subgraph.
_FIND = """
window.testNode = (id) => {
  let graph = window.app.rootGraph ?? window.app.graph.rootGraph ?? window.app.graph;
  const parts = String(id).split(":");
  for (const outer of parts.slice(0, -1)) graph = graph.getNodeById(Number(outer)).subgraph;
  const node = graph.getNodeById(Number(parts.at(-1)));
  if (!node) throw new Error(`there is no node ${id}`);
  return node;
};
"""

_ADD = """
([type, pos, values, title]) => {
  const node = window.LiteGraph.createNode(type);
  if (!node) throw new Error(`no node type ${type}`);
  node.pos = pos;
  if (title) node.title = title;
  window.app.canvas.graph.add(node);
  for (const [name, value] of Object.entries(values)) {
    const widget = node.widgets?.find((widget) => widget.name === name);
    if (!widget) throw new Error(`${type} has no widget ${name}: ${node.widgets?.map((widget) => widget.name)}`);
    widget.value = value;
    widget.callback?.(value);
  }
  return String(node.id);
}
"""

_CONNECT = """
([from, output, to, input]) => {
  const source = window.testNode(from), target = window.testNode(to);
  const slot = typeof output === "number" ? output : source.findOutputSlot(output);
  const place = target.findInputSlot(input);
  if (slot < 0 || place < 0) throw new Error(`no ${output} at ${source.type}, or no ${input} at ${target.type}`);
  if (!source.connect(slot, target, place)) throw new Error(`${source.type} does not connect to ${target.type}`);
}
"""

# A page as it was when it had been opened, but for what modules remember; false where something is left on it.
_EMPTY = """
async () => {
  const { app } = window, { toast, command, workflow } = app.extensionManager;
  const before = workflow.activeWorkflow;
  await command.execute("Comfy.NewBlankWorkflow");
  if (workflow.activeWorkflow === before) return false;
  for (const other of [...workflow.openWorkflows]) {
    if (other !== workflow.activeWorkflow) await workflow.closeWorkflow(other);
  }
  // Newest front ends call it otherwise.
  (toast.removeAll ?? toast.dismissAll).call(toast);
  document.activeElement?.blur();
  Object.assign(app.canvas.ds, { scale: 1, offset: [0, 0] });
  const left = () => document.querySelector(
    ".async-vae-decode-view, [data-node-id], .p-dialog-mask, [role=dialog], .p-contextmenu, .litecontextmenu");
  for (let frames = 0; left() && frames < 60; frames++) await new Promise(requestAnimationFrame);
  return !left() && !app.graph.nodes.length && workflow.openWorkflows.length === 1;
}
"""

# Puts the nodes into the middle of what the menus leave free.
_CENTRE = """
([ids, scale]) => {
  const boxes = ids.map((id) => {
    const { pos, size } = window.testNode(id);
    return [pos[0], pos[1] - 30, pos[0] + size[0], pos[1] + size[1]];
  });
  const [left, top] = [0, 1].map((edge) => Math.min(...boxes.map((box) => box[edge])));
  const [right, bottom] = [2, 3].map((edge) => Math.max(...boxes.map((box) => box[edge])));
  const { canvas, ds } = window.app.canvas;
  const { width, height } = canvas.getBoundingClientRect();
  ds.scale = scale ?? Math.min(1, (width - 160) / (right - left), (height - 160) / (bottom - top));
  ds.offset[0] = width / ds.scale / 2 - (left + right) / 2;
  ds.offset[1] = height / ds.scale / 2 - (top + bottom) / 2;
  window.app.canvas.setDirty(true, true);
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())));
}
"""

_BOX = """
(id) => {
  const { pos, size } = window.testNode(id);
  const { canvas, ds } = window.app.canvas;
  const { left, top } = canvas.getBoundingClientRect();
  const at = (x, y) => [left + (x + ds.offset[0]) * ds.scale, top + (y + ds.offset[1]) * ds.scale];
  const [x, y] = at(pos[0], pos[1] - 30);
  const [right, bottom] = at(pos[0] + size[0], pos[1] + size[1]);
  return { x, y, width: right - x, height: bottom - y };
}
"""


class FrontEnd:
    """One browser tab with ComfyUI's front end in it; ``page`` is playwright's, for whatever is not here.

    Nodes are named by their ids as text; in a subgraph, by execution ids such as ``"12:3"``.

    Args:
        page: an empty page.
        server: whose front end.
        label: what screenshots of it are called besides their own names, such as ``"vue-dark"``.
    """

    def __init__(self, page: Page, server: Server, label: str) -> None:
        self.page = page
        self.server = server
        self.label = label
        #: Errors of our own modules and routes; the fixture fails a test that leaves any.
        self.errors: list[str] = []
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self._note(f"{error}\n{error.stack or ''}"))
        page.on("response", self._note_response)
        page.add_init_script(_FIND)

    def open(self) -> None:
        """Load it and wait until it is ready, with an empty graph."""
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.wait_until_ready()
        self.clear()

    def reload(self) -> None:
        """Reload the page, as a user does in the middle of something; the workflow is kept by the front end."""
        self.note_change()
        # It saves the workflow some time after a change, and tells nobody when it has.
        self.page.wait_for_timeout(1500)
        self.page.reload(wait_until="domcontentloaded")
        self.wait_until_ready()

    def note_change(self) -> None:
        """Have the front end see what a script has changed, as after a click or a key: for undo and drafts."""
        self.page.evaluate(
            "() => { const tracker = window.app.extensionManager.workflow.activeWorkflow.changeTracker; "
            "(tracker.captureCanvasState ?? tracker.checkState).call(tracker); }"
        )

    def clear(self) -> None:
        """A new, empty workflow."""
        # The id of its own that every workflow has which was not made by clearing.
        self.page.evaluate("() => { window.app.graph.clear(); window.app.graph.id = crypto.randomUUID(); }")

    def empty(self) -> bool:
        """Make it as new for another test: an empty workflow without a past; False when something is left on it."""
        self.page.unroute_all(behavior="wait")
        self.page.mouse.move(0, 0)
        as_new: bool = self.page.evaluate(_EMPTY)
        self.clear()
        self.errors.clear()
        return as_new

    def load(self, workflow: dict[str, Any] | Path) -> None:
        """Open a workflow, as dropping its file on the canvas does."""
        content = json.loads(workflow.read_text("utf-8")) if isinstance(workflow, Path) else workflow
        self.page.evaluate("async (workflow) => { await window.app.loadGraphData(workflow); }", content)

    def workflow(self) -> dict[str, Any]:
        """What the front end would save."""
        graph: dict[str, Any] = self.page.evaluate(
            "() => JSON.parse(JSON.stringify((window.app.rootGraph ?? window.app.graph).serialize()))"
        )
        return graph

    def prompt(self) -> dict[str, Any]:
        """What the front end would queue, in API format: node id to ``class_type`` and ``inputs``."""
        prompt: dict[str, Any] = self.page.evaluate("async () => (await window.app.graphToPrompt()).output")
        return prompt

    def add(
        self, type: str, /, *, pos: tuple[float, float] = (100, 100), title: str | None = None, **widgets: Any
    ) -> str:
        """Add a node to the graph that is shown; return its id."""
        node: str = self.page.evaluate(_ADD, [type, list(pos), widgets, title])
        return node

    def connect(self, source: str, output: int | str, target: str, input: str) -> None:
        """Connect an output, by its number or name, with an input, by its name."""
        self.page.evaluate(_CONNECT, [source, output, target, input])

    def node(self, node: str, expression: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression about ``node`` (and ``argument``)."""
        script = f"([id, argument]) => {{ const node = window.testNode(id); return {expression}; }}"
        return self.page.evaluate(script, [node, argument])

    def widget(self, node: str, name: str) -> Any:
        """A widget's value."""
        return self.node(node, "node.widgets.find((widget) => widget.name === argument).value", name)

    def set_widget(self, node: str, name: str, value: Any) -> None:
        """Set a widget as a user does, its callback included."""
        script = "((widget) => { widget.value = argument[1]; widget.callback?.(argument[1]); })"
        self.node(node, f"{script}(node.widgets.find((widget) => widget.name === argument[0]))", [name, value])

    def queue(self) -> str:
        """Queue what is in the graph, as the button does; return the prompt's id.

        Raises:
            PromptRejected: the server refused it.
        """
        with self.page.expect_response(_is_prompt) as sent:
            self.page.evaluate("() => { window.app.queuePrompt(0, 1); }")
        answer = sent.value.json()
        if not sent.value.ok:
            raise PromptRejected(answer.get("error", {}), answer.get("node_errors", {}))
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = PROMPT_TIMEOUT) -> dict[str, Any]:
        """Wait until a prompt has ended; return its entry of the history (``status``, ``outputs``).

        Raises:
            TimeoutError: it did not end in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            entry: dict[str, Any] | None = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return entry
            # Not time.sleep: the page's events are handled meanwhile.
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"prompt {prompt_id} did not end within {timeout:g} s")

    def get(self, path: str) -> Any:
        """The answer of the server to a GET, from JSON."""
        return self.page.request.get(self.server.url + path).json()

    def setting(self, name: str, value: Any) -> None:
        """Change a setting as the settings dialog does."""
        self.page.evaluate("([id, value]) => window.app.extensionManager.setting.set(id, value)", [name, value])

    def centre(self, *nodes: str, scale: float | None = None) -> None:
        """Move the view so that these nodes are in the middle; by default as large as fits."""
        self.page.evaluate(_CENTRE, [list(nodes), scale])

    def box(self, node: str) -> dict[str, float]:
        """Where a node is on the page, in CSS pixels: ``x``, ``y``, ``width``, ``height``."""
        box: dict[str, float] = self.page.evaluate(_BOX, node)
        return box

    def click(self, x: float, y: float, shows: Locator, **options: Any) -> None:
        """Click somewhere on the canvas, in CSS pixels, until it shows something, as a user would.

        On a busy machine a click came to nothing, once in many runs: a move between its two ends, be it of a fraction
        of a pixel, makes LiteGraph take it for a drag.

        Args:
            options: Those of Playwright's ``mouse.click``.

        Raises:
            playwright.sync_api.TimeoutError: no click showed it.
        """
        from playwright.sync_api import TimeoutError as NotShown

        for last in (False, False, False, True):
            self.page.mouse.click(x, y, **options)
            try:
                return shows.first.wait_for(timeout=10_000)
            except NotShown:
                if last:
                    raise

    def screenshot(self, name: str, *nodes: str, of: Locator | None = None, margin: int = 16) -> Path:
        """Keep a picture of the page, or of some nodes with what is around them, or of an element.

        Returns:
            The file: ``tests/output/screenshots/<core>/<name>-<label>.png``.
        """
        file = SCREENSHOTS / self.server.core.version / f"{name}-{self.label}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if of is not None:
            of.screenshot(path=file)
        elif nodes:
            boxes = [self.box(node) for node in nodes]
            left, top = (min(box[edge] for box in boxes) - margin for edge in ("x", "y"))
            right = max(box["x"] + box["width"] for box in boxes) + margin
            bottom = max(box["y"] + box["height"] for box in boxes) + margin
            left, top = max(0, left), max(0, top)
            clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
            self.page.screenshot(path=file, clip=clip)  # type: ignore[arg-type]
        else:
            self.page.screenshot(path=file)
        return file

    def wait_until_ready(self) -> None:
        """Wait until the page has loaded, with the nodes and the workflow that it begins with."""
        self.page.wait_for_function(
            "() => window.app?.graph && window.app.vueAppReady !== false && window.LiteGraph && window.app.canvas "
            "&& window.LiteGraph.registered_node_types.AsyncVAEDecode && !document.querySelector('.p-blockui-mask')",
            timeout=READY_TIMEOUT * 1000,
        )
        # The workflow of the last visit, or the default one, is loaded after the nodes have been registered.
        self.page.wait_for_function(
            "() => window.app.extensionManager?.workflow?.activeWorkflow && !window.app.configuringGraph",
            timeout=READY_TIMEOUT * 1000,
        )

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(f"{message.text} ({message.location.get('url', '')})")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self._note(f"{response.status} {response.request.method} {response.url}")

    def _note(self, error: str) -> None:
        if any(mark in error for mark in OURS):
            self.errors.append(error)


def _is_prompt(response: Response) -> bool:
    return response.request.method == "POST" and response.url.endswith("/prompt")
