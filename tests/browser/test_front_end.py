"""The front end loads with the pack in it, and what the fixtures promise to the other tests holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer, Theme


@pytest.mark.parametrize(("renderer", "theme"), [("litegraph", "light"), ("vue", "dark")])
def test_nodes_are_there_and_run(
    open_front_end: Callable[..., FrontEnd], renderer: Renderer, theme: Theme, demo: dict[str, str]
) -> None:
    front_end = open_front_end(renderer=renderer, theme=theme)
    latent = front_end.add("LoadLatent", latent=demo["latent"], pos=(60, 120))
    vae = front_end.add("TestLoadVAE", vae_name=demo["vae"], pos=(60, 300))
    node = front_end.add("AsyncVAEDecodeSaveFrames", pos=(420, 120), filename_prefix="browser", compression=1)
    front_end.connect(latent, 0, node, "samples")
    front_end.connect(vae, "VAE", node, "vae")
    front_end.centre(latent, vae, node)

    entry = front_end.wait(front_end.queue())

    assert entry["status"]["status_str"] == "success"
    assert json.loads(entry["outputs"][node]["async_vae_decode"][0])["outcome"] == "completed"
    assert front_end.widget(node, "compression") == 1
    assert front_end.screenshot("nodes").stat().st_size > 10_000


@pytest.mark.own_page
def test_a_reloaded_page_has_its_workflow(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecode", chunk_size=7)

    front_end.reload()

    assert front_end.widget(node, "chunk_size") == 7


def test_errors_of_our_modules_are_noted(front_end: FrontEnd) -> None:
    front_end.page.evaluate(
        "() => { console.error('Error in extension AsyncVAEDecode.Anything'); console.error('x'); }"
    )
    front_end.page.evaluate("() => fetch('/async_vae_decode/nothing-here')")

    noted, front_end.errors[:] = list(front_end.errors), []

    assert any("AsyncVAEDecode.Anything" in error for error in noted), noted
    assert any("404 GET" in error and "nothing-here" in error for error in noted), noted
    assert not any(error.startswith("x ") for error in noted), noted
