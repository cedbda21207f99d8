"""The example workflows and the help pages in the real front end: found where users look, opened without an error."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.client import Client
from tests.comfyui.server import PACK_FOLDER, REPOSITORY, Server

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd

EXAMPLES = REPOSITORY / "example_workflows"
NAMES = sorted(file.stem for file in EXAMPLES.glob("*.json"))
NODES = sorted(json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text("utf-8")))
#: The node without inputs, whose page needs no picture.
PLAIN = "AsyncDemoClip"
#: What the server says of a file that this machine does not have.
MISSING_FILE = {"value_not_in_list", "custom_validation_failed"}
#: Inputs that name such a file.
FILE_INPUTS = {"unet_name", "clip_name", "clip_name1", "clip_name2", "vae_name", "ckpt_name", "text_encoder", "latent"}

# Opens one of the pack's examples as its card in the template browser does.
_OPEN = """
async ([pack, name]) => {
  const answer = await window.app.api.fetchApi(`/workflow_templates/${pack}/${name}.json`);
  if (!answer.ok) throw new Error(`${answer.status} for ${name}`);
  await window.app.loadGraphData(await answer.json(), true, true, name, { openSource: "template" });
}
"""


def test_open_and_validate(front_end: FrontEnd, client: Client, server: Server) -> None:
    known, opened = client.object_info(), []
    for name in NAMES:
        saved = json.loads((EXAMPLES / f"{name}.json").read_text("utf-8"))
        types = {node["type"] for node in saved["nodes"]} - {"MarkdownNote"}
        if not types <= set(known):
            print(f"skipped on ComfyUI {server.core.version}: {name} needs {', '.join(sorted(types - set(known)))}")
            continue
        front_end.page.evaluate(_OPEN, [PACK_FOLDER, name])
        prompt = front_end.prompt()
        assert {node["class_type"] for node in prompt.values()} == types, name
        for node in saved["nodes"]:
            for widget, value in node.get("widgets_values_named", {}).items():
                if node["type"] != "MarkdownNote" and widget != "control_after_generate":
                    assert prompt[str(node["id"])]["inputs"][widget] == value, (name, node["type"], widget)
        assert wrong_with(client, prompt) == [], name
        opened.append(name)
    print(f"opened and validated on ComfyUI {server.core.version}: {len(opened)} of {len(NAMES)}: {', '.join(opened)}")
    assert {"wan2.1_text_to_video", "wan2.2_5B_text_to_video", "01_demo_clip"} <= set(opened)


def test_the_demo_and_its_result_are_in_view(front_end: FrontEnd, small_demo: dict[str, str]) -> None:
    front_end.page.set_viewport_size({"width": 1280, "height": 720})
    front_end.page.evaluate(_OPEN, [PACK_FOLDER, "01_demo_clip"])
    front_end.page.wait_for_function("() => window.app.graph.nodes.length === 3 && !window.app.configuringGraph")
    (node,) = front_end.page.evaluate(
        "() => window.app.graph.nodes.filter(({ type }) => type.startsWith('AsyncVAE')).map(({ id }) => String(id))"
    )
    # In place of the clip, which takes a minute, a smaller one of the same shape.
    latent = front_end.add("LoadLatent", latent=small_demo["latent"], pos=(0, 0))
    vae = front_end.add("TestLoadVAE", vae_name=small_demo["vae"], pos=(0, 0))
    front_end.connect(latent, "LATENT", node, "samples")
    front_end.connect(vae, "VAE", node, "vae")

    front_end.wait(front_end.queue())

    front_end.page.wait_for_function(
        "id => window.testNode(id).videoContainer?.querySelector('video')?.readyState >= 2 "
        "&& window.testNode(id).size[1] > 800",
        arg=node,
        timeout=60_000,
    )
    front_end.screenshot("demo-after-run")
    box = front_end.box(node)
    assert box["y"] > 40 and box["y"] + box["height"] < 710, box
    assert not front_end.page.evaluate("() => window.app.canvas.low_quality"), "too small for texts"


@pytest.mark.own_page
def test_template_browser_shows_them(front_end: FrontEnd) -> None:
    page = front_end.page
    # The server's order is that of its file system, which may be any.
    page.route(
        "**/workflow_templates",
        lambda route: route.fulfill(json={PACK_FOLDER: sorted(NAMES, reverse=True)}),
    )
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text(PACK_FOLDER, exact=True).first.click()
    card = page.get_by_text("01_demo_clip").first
    card.wait_for()
    card.scroll_into_view_if_needed()
    # The front end gives them addresses of its own, and loads them when they come into view.
    page.wait_for_function(
        "() => [...document.images].some((image) => image.naturalWidth === 960)",
        timeout=60_000,
    )
    front_end.screenshot("template-browser")
    shown = page.locator("body").inner_text()
    places = {name: shown.find(name) for name in NAMES if name in shown}
    assert min(places, key=lambda name: places[name]) == "01_demo_clip", places
    assert len(places) > 3, places
    card.click()

    page.wait_for_function(
        "() => window.app.graph.nodes.some((node) => node.type === 'AsyncVAEDecodeSaveVideo')", timeout=60_000
    )


# A page for each: with the help of one node open, the toolbox above the next one does not always stay.
@pytest.mark.parametrize(("locale", "name"), [*(("en", name) for name in NODES), ("zh", NODES[1]), ("ja", NODES[-1])])
def test_help_page_is_shown_with_its_picture(open_front_end: Callable[..., FrontEnd], locale: str, name: str) -> None:
    front_end = open_front_end(settings={"Comfy.Locale": locale})
    page = front_end.page
    file = REPOSITORY / "web" / "docs" / (f"{name}.md" if locale == "en" else f"{name}/{locale}.md")
    title, *_ = file.read_text("utf-8").splitlines()
    show_help(front_end, front_end.add(name))
    page.get_by_role("heading", name=title.removeprefix("# "), exact=True).first.wait_for(timeout=30_000)
    if name != PLAIN:
        page.wait_for_function(
            "(part) => [...document.images].some((image) => image.src.endsWith(part) && image.naturalWidth > 0)",
            arg=f"/docs/images/{name}.png",
        )
        assert page.locator("table code", has_text="chunk_size").count() == 1
    front_end.screenshot(f"help-{name}-{locale}")
    # The front end asks for English under that name, too, before it takes the page that all other languages share.
    front_end.errors[:] = [error for error in front_end.errors if "/en.md" not in error]


@pytest.mark.parametrize("locale", ["ja", "ru"])
def test_names_and_settings_are_in_the_users_language(open_front_end: Callable[..., FrontEnd], locale: str) -> None:
    front_end = open_front_end(settings={"Comfy.Locale": locale})
    names = json.loads((REPOSITORY / "locales" / locale / "nodeDefs.json").read_text("utf-8"))
    for name, texts in names.items():
        node = front_end.add(name)
        assert front_end.node(node, "node.title") == texts["display_name"]


def show_help(front_end: FrontEnd, node: str) -> None:
    """Select a node, by a click on its title, and open its help, with the button above it."""
    # Small enough for the tallest node, with room for the toolbox above it.
    front_end.centre(node, scale=0.5)
    box = front_end.box(node)
    button = front_end.page.locator(".selection-toolbox").get_by_test_id("info-button")
    front_end.click(box["x"] + box["width"] / 2, box["y"] + 12, shows=button)
    button.click()


def wrong_with(client: Client, prompt: dict[str, Any]) -> list[str]:
    """What the server has against a prompt, apart from the files that this machine does not have."""
    try:
        client.post("/prompt", {"prompt": prompt, "client_id": client.id})
    except urllib.error.HTTPError as refused:
        said = json.loads(refused.read())
        assert said["node_errors"], said
        return [
            f"{node} {error['type']} {error['message']} {error['details']}"
            for node, found in said["node_errors"].items()
            for error in found["errors"]
            if error["type"] not in MISSING_FILE or error["extra_info"].get("input_name") not in FILE_INPUTS
        ]
    client.settle()
    return []
