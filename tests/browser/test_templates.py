"""Every official template with a stock decode node: "Replace every VAE Decode" leaves the server's verdict as it was.

And undo leaves nothing of it.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd

STOCK = {"VAEDecode", "VAEDecodeTiled"}
OURS = "AsyncVAEDecode"
SAVERS = {"SaveVideo", "SaveWEBM", "SaveAnimatedWEBP"}
#: Every so many templates the swap is undone.
UNDONE = 4
ENDS = ("origin_id", "origin_slot", "target_id", "target_slot")
SITE_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"

# Opened once, as a user opens it: what the file leaves out is filled in when it is opened again, which a swap does.
SWAP = """
async ([workflow, undo]) => {
  const { app } = window;
  const copy = (value) => JSON.parse(JSON.stringify(value));
  const serialized = () => copy((app.rootGraph ?? app.graph).serialize());
  const prompt = async () => copy((await app.graphToPrompt()).output);
  const open = (content) => app.loadGraphData(content, true, true, app.extensionManager.workflow.activeWorkflow);
  const { execute } = app.extensionManager.command;
  await open(workflow);
  // Lists that come from the server come after the workflow.
  const waits = () => JSON.stringify(serialized()).includes("Loading...");
  const settle = async () => {
    for (let i = 0; i < 50 && waits(); i++) await new Promise((done) => setTimeout(done, 100));
  };
  await settle();
  const before = { workflow: serialized(), prompt: await prompt() };
  await execute("AsyncVAEDecode.ReplaceAll");
  await settle();
  const after = { workflow: serialized(), prompt: await prompt() };
  if (!undo) return { before, after, undone: null };
  await execute("Comfy.Undo");
  await settle();
  return { before, after, undone: serialized() };
}
"""

# What a swap does besides swapping: a list of the server's, "Load Image (from Outputs)", then falls to its first file.
OPEN_TWICE = """
async (workflow) => {
  const { app } = window;
  const copy = (value) => JSON.parse(JSON.stringify(value));
  const open = (content) => app.loadGraphData(content, true, true, app.extensionManager.workflow.activeWorkflow);
  for (let times = 0; times < 2; times++) await open(copy(workflow));
  const serialized = () => copy((app.rootGraph ?? app.graph).serialize());
  const waits = () => JSON.stringify(serialized()).includes("Loading...");
  for (let i = 0; i < 50 && waits(); i++) await new Promise((done) => setTimeout(done, 100));
  return { workflow: serialized(), prompt: copy((await app.graphToPrompt()).output) };
}
"""


def test_every_template(front_end: FrontEnd, tell: Callable[[str], None]) -> None:
    core = front_end.server.core
    found = dict(templates(core.python))
    wrong: dict[str, list[str]] = {}
    made: Counter[str] = Counter()
    videos = 0

    for index, (name, workflow) in enumerate(found.items()):
        # Undo is one way for all, and opens the workflow once more.
        swapped = front_end.page.evaluate(SWAP, [workflow, index % UNDONE == 0])
        problems = differences(front_end, swapped)
        if problems:
            # Once more, beside what opening the workflow again changes by itself.
            swapped["before"] |= front_end.page.evaluate(OPEN_TWICE, swapped["before"]["workflow"])
            problems = differences(front_end, swapped)
        if problems:
            wrong[name] = problems
        made.update(kind for kind in classes(swapped["after"]["workflow"]) if kind.startswith(OURS))
        videos += not SAVERS.isdisjoint(classes(workflow))

    tell(
        f"ComfyUI {core.version}, front end {core.front_end}: {len(found)} templates with a stock decode node tried, "
        f"{videos} of them save a video; {len(found) - len(wrong)} passed; "
        f"{', '.join(f'{n} {kind}' for kind, n in sorted(made.items()))}"
    )
    assert not wrong, json.dumps(wrong, indent=1)
    assert found
    # Nobody watches what is converted: at least it is not nothing.
    assert {"AsyncVAEDecode", "AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo"} <= set(made)


def differences(front_end: FrontEnd, swapped: dict[str, Any]) -> list[str]:
    """What is wrong with one template after the swap, or after undo."""
    before, after = swapped["before"], swapped["after"]
    problems = []
    left = STOCK & set(classes(after["workflow"]))
    if left:
        problems.append(f"still there: {left}")
    if swapped["undone"] is not None and content(swapped["undone"]) != content(before["workflow"]):
        problems.append("undo: nodes, values or links differ")
    (status, said), (status_after, said_after) = (verdict(front_end, prompt["prompt"]) for prompt in (before, after))
    # What is wrong with a node that goes, such as a choice of a later core, goes with it.
    more = {node: errors for node, errors in said_after.items() if said.get(node) != errors}
    if status_after > status or more:
        problems.append(f"the server said {status}, then {status_after}: {more}")
    return problems


def content(workflow: dict[str, Any]) -> list[str]:
    """Every node with its values and every link, in whichever order: what a workflow does, not where it stands."""
    told = []
    for graph in [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]:
        for node in graph["nodes"]:
            values = node.get("widgets_values") or []
            while isinstance(values, list) and values and values[-1] is None:
                values = values[:-1]
            told.append(json.dumps([graph.get("id"), node["id"], node["type"], node.get("mode", 0), values]))
        for link in graph.get("links") or []:
            ends = link[1:5] if isinstance(link, list) else [link[end] for end in ENDS]
            told.append(json.dumps([graph.get("id"), *map(str, ends)]))
    return sorted(told)


def verdict(front_end: FrontEnd, prompt: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Queue a prompt: the status, and what is wrong with which node; what is valid is not run."""
    url = front_end.server.url
    answer = front_end.page.request.post(f"{url}/prompt", data={"prompt": prompt})
    said = answer.json()
    if answer.ok:
        front_end.page.request.post(f"{url}/queue", data={"clear": True})
        front_end.page.request.post(f"{url}/interrupt", data={})
    return answer.status, said.get("node_errors", {})


def templates(python: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The workflows of the templates packages that a core's interpreter has, by name, if they decode with stock."""
    asked = subprocess.run([str(python), "-c", SITE_PACKAGES], capture_output=True, text=True, check=True)
    for file in sorted(Path(asked.stdout.strip()).glob("comfyui_workflow_templates*/**/*.json")):
        workflow = json.loads(file.read_text("utf-8"))
        if isinstance(workflow, dict) and "nodes" in workflow and not STOCK.isdisjoint(classes(workflow)):
            yield file.stem, workflow


def classes(workflow: dict[str, Any]) -> list[str]:
    """The classes of a workflow's nodes, those in subgraphs included."""
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    return [node["type"] for graph in [workflow, *subgraphs] for node in graph["nodes"]]
