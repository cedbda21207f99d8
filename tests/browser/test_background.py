"""A node that finishes its files in the background: what it shows before they are whole, and when they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.test_after_run import MEDIA, shows_gallery, shows_video

# Found by pytest under its name.
from tests.comfyui.conftest import own_ffmpeg  # noqa: F401
from tests.comfyui.outputs import wait_until
from tests.comfyui.server import Server
from tests.comfyui.test_background import Encoders

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer

#: What a node shows that has nothing to show but the preview.
SHOWS_NOTHING_BROKEN = """
id => {
  const { video, images, text } = window.testMedia(id);
  return !video?.isConnected && !/failed|Unknown file|Error/i.test(text)
    && images.every(({ src }) => src.startsWith("blob:"));
}
"""
VIEW = """id => [...document.querySelectorAll(".async-vae-decode-view")].map((view) => view.innerText).join(" ")"""


@pytest.fixture
def server(own_ffmpeg: Server) -> Server:  # noqa: F811
    """The server whose encoders can be held."""
    return own_ffmpeg


@pytest.fixture
def encoders(server: Server) -> Iterator[Encoders]:
    held = Encoders(server)
    held.stop()
    yield held
    held.go()


def video_node(front_end: FrontEnd, demo: dict[str, str], prefix: str) -> str:
    """A node in the graph that saves a video in the background."""
    front_end.page.evaluate(MEDIA)
    latent = front_end.add("LoadLatent", latent=demo["latent"], pos=(40, 100))
    vae = front_end.add("TestLoadVAE", vae_name=demo["vae"], pos=(40, 320))
    node = front_end.add(
        "AsyncVAEDecodeSaveVideo", pos=(400, 100), fps=8, filename_prefix=prefix, finish="in the background"
    )
    front_end.connect(latent, "LATENT", node, "samples")
    front_end.connect(vae, "VAE", node, "vae")
    front_end.centre(node)
    return node


def state(front_end: FrontEnd) -> str:
    """What the server says of the newest run."""
    newest = front_end.get("/async_vae_decode/runs")[-1]["run"]
    return str(front_end.get(f"/async_vae_decode/runs/{newest}")["state"])


@pytest.mark.parametrize("renderer", ["litegraph", "vue"])
def test_a_video_is_shown_when_it_is_whole(
    open_front_end: Callable[..., FrontEnd], small_demo: dict[str, str], encoders: Encoders, renderer: Renderer
) -> None:
    front_end = open_front_end(renderer=renderer, settings={"AsyncVAEDecode.Preview.Interval": 0.1})
    page = front_end.page
    node = video_node(front_end, small_demo, f"shown/{renderer}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    front_end.wait(front_end.queue())
    page.wait_for_timeout(1500)
    assert state(front_end) == "saving"
    front_end.screenshot("background-saving", node)
    assert not [url for url in asked if "/view?" in url and ".mp4" in url], "it asks for a file that is not there"
    assert page.evaluate(SHOWS_NOTHING_BROKEN, node)
    assert ".mp4" not in page.evaluate(VIEW, node)

    encoders.go()
    shows_video(front_end, node, "whole", [96, 64])
    front_end.screenshot("background-saved", node)
    assert ".mp4" in page.evaluate(VIEW, node)

    # From the cache: what the node returned says that the file is not whole.
    front_end.wait(front_end.queue())
    shows_video(front_end, node, "again", [96, 64])
    page.wait_for_timeout(500)
    front_end.screenshot("background-cached", node)
