"""The settings of the pack: widgets of new nodes, previews, and where they are found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.client import Client
from tests.comfyui.fixtures import Models

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer

DEFAULTS = {
    "AsyncVAEDecode.Defaults.ChunkSize": 6,
    "AsyncVAEDecode.Defaults.BufferDepth": 5,
    "AsyncVAEDecode.Defaults.Writers": 3,
}
WIDGETS = {"chunk_size": 6, "buffer_depth": 5, "writers": 3}
NODE = "AsyncVAEDecodeSaveFrames"


def values(front_end: FrontEnd, node: str) -> dict[str, Any]:
    return {name: front_end.widget(node, name) for name in WIDGETS}


@pytest.mark.parametrize("renderer", ["litegraph", "vue"])
def test_new_nodes_begin_with_the_settings(open_front_end: Callable[..., FrontEnd], renderer: Renderer) -> None:
    front_end = open_front_end(renderer=renderer, settings=DEFAULTS)

    node = front_end.add(NODE)

    assert values(front_end, node) == WIDGETS
    assert {name: front_end.prompt()[node]["inputs"][name] for name in WIDGETS} == WIDGETS


def test_nodes_of_a_workflow_keep_their_values(open_front_end: Callable[..., FrontEnd]) -> None:
    front_end = open_front_end(settings=DEFAULTS)
    own = {"chunk_size": 4, "buffer_depth": 3, "writers": 0}
    node = front_end.add(NODE, **own)
    workflow = front_end.workflow()

    front_end.load(workflow)

    assert values(front_end, node) == own


def test_a_setting_that_makes_no_sense_is_left_aside(open_front_end: Callable[..., FrontEnd]) -> None:
    front_end = open_front_end(
        settings={"AsyncVAEDecode.Defaults.ChunkSize": 0, "AsyncVAEDecode.Defaults.Writers": "many"}
    )

    node = front_end.add(NODE)

    assert values(front_end, node) == {"chunk_size": 4, "buffer_depth": 3, "writers": 0}


@pytest.mark.own_page
def test_previews_are_switched_off_and_on(front_end: FrontEnd, client: Client, models: Models) -> None:
    front_end.page.evaluate(
        """() => {
          window.previews = 0;
          window.ended = [];
          const { api } = window.comfyAPI.api;
          api.addEventListener("b_preview", () => (window.previews += 1));
          api.addEventListener("execution_success", ({ detail }) => window.ended.push(detail.prompt_id));
        }"""
    )
    vae = front_end.add("TestLoadVAE", vae_name=models.file("wan21"))
    latent = front_end.add("TestLatent", shape="1,16,3,8,8", seed=5)
    node = front_end.add("AsyncVAEDecodeSaveFrames", filename_prefix="settings")
    front_end.connect(vae, "VAE", node, "vae")
    front_end.connect(latent, "LATENT", node, "samples")
    seeds = iter(range(10**5))

    def previews(enabled: bool) -> int:
        with front_end.page.expect_response(lambda answer: answer.url.endswith("/async_vae_decode/preview")) as told:
            front_end.setting("AsyncVAEDecode.Preview.Enabled", enabled)
        assert told.value.ok
        front_end.set_widget(latent, "seed", next(seeds))
        before = front_end.page.evaluate("() => window.previews")
        prompt_id = front_end.queue()
        assert front_end.wait(prompt_id)["status"]["status_str"] == "success"
        # The page hears of it later than the history does, but behind the previews.
        front_end.page.wait_for_function("id => window.ended.includes(id)", arg=prompt_id)
        return int(front_end.page.evaluate("() => window.previews") - before)

    assert previews(False) == 0
    assert previews(True) > 0
    told = front_end.page.request.post(front_end.server.url + "/async_vae_decode/preview", data={"client_id": ""})
    assert told.status == 400


def test_the_server_is_told_at_the_start(open_front_end: Callable[..., FrontEnd], client: Client) -> None:
    front_end = open_front_end(
        settings={"AsyncVAEDecode.Preview.Enabled": False, "AsyncVAEDecode.Preview.Interval": 1234}
    )
    asked: list[Any] = []
    front_end.page.on(
        "request",
        lambda request: asked.append(request.post_data_json) if request.url.endswith("_decode/preview") else None,
    )

    front_end.reload()
    front_end.page.wait_for_function("() => window.comfyAPI.api.api.clientId")
    front_end.page.wait_for_timeout(500)

    client_id = front_end.page.evaluate("() => window.comfyAPI.api.api.clientId")
    # Beyond what the server takes, so the longest that it does.
    assert {"client_id": client_id, "enabled": False, "interval": 60} in asked


@pytest.mark.own_page
def test_the_section_is_in_the_dialog(front_end: FrontEnd) -> None:
    page = front_end.page
    page.keyboard.press("Control+,")
    page.get_by_text("Async VAE Decode", exact=True).first.click()

    for name in ("Show the pipeline in the node", "Show a preview frame", "chunk_size (frames)"):
        page.get_by_text(name).first.wait_for()
    front_end.screenshot("settings")
