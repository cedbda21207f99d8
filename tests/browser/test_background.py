"""A node that finishes its files in the background: what it shows before they are whole, and when they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.test_after_run import MEDIA, needs_videos, shows_video

# Found by pytest under its name.
from tests.comfyui.conftest import own_ffmpeg  # noqa: F401
from tests.comfyui.server import Server
from tests.comfyui.test_background import Encoders

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer

#: What a node shows that has nothing to show but the preview.
SHOWS_NOTHING_BROKEN = """
id => {
  const { video, images, text } = window.testMedia(id);
  return !video?.isConnected && !/failed to load|Unknown file/i.test(text)
    && images.every(({ src }) => src.startsWith("blob:"));
}
"""
#: How far the advice, of two lines here, stands below the words of the axis, in pixels of the node.
ROOM_FOR_ADVICE = """
() => Math.min(...[...document.querySelectorAll(".async-vae-decode-view")].map((view) => {
  const scale = view.getBoundingClientRect().width / view.offsetWidth;
  const words = [...view.querySelectorAll(".axis span")].map((word) => word.getBoundingClientRect().bottom);
  return (view.querySelector(".advice").getBoundingClientRect().top - Math.max(...words)) / scale;
}))
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
    needs_videos(front_end)
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
    view = page.evaluate(VIEW, node)
    # The axis may end at 500 ms.
    assert ".mp4" not in view and not re.search(r"(?<!\d)0 ms", view), "how long an encoder will take is not known"

    encoders.go()
    shows_video(front_end, node, "whole", [96, 64])
    front_end.screenshot("background-saved", node)
    assert ".mp4" in page.evaluate(VIEW, node)
    assert page.evaluate(ROOM_FOR_ADVICE) > -3, "the advice is written over the axis"

    # From the cache: what the node returned says that the file is not whole.
    front_end.wait(front_end.queue())
    shows_video(front_end, node, "again", [96, 64])
    page.wait_for_timeout(500)
    front_end.screenshot("background-cached", node)


def test_of_two_runs_at_once_the_later_one_is_shown(
    front_end: FrontEnd, small_demo: dict[str, str], encoders: Encoders
) -> None:
    page = front_end.page
    node = video_node(front_end, small_demo, "twice/first")
    front_end.wait(front_end.queue())
    # Encoders that have begun to wait look for this file; the second run's are held by another one.
    front_end.set_widget(node, "filename_prefix", "twice/second")
    front_end.wait(front_end.queue())
    first, second = (run["run"] for run in front_end.get("/async_vae_decode/runs")[-2:])
    page.evaluate(
        """() => {
          window.saved = [];
          window.comfyAPI.api.api.addEventListener("async_vae_decode.saved", ({ detail }) => window.saved.push(detail));
        }"""
    )

    encoders.go()
    page.wait_for_function("() => window.saved.length === 2")
    shows_video(front_end, node, "the later one", [96, 64])
    # The earlier one ends last, as it may.
    page.evaluate(
        """(run) => window.comfyAPI.api.api.dispatchCustomEvent(
          "async_vae_decode.saved", window.saved.find((news) => news.run === run))""",
        first,
    )
    shows_video(front_end, node, "still the later one", [96, 64])
    assert "second" in page.evaluate("id => window.testMedia(id).video.src", node)
    assert "second_00001_.mp4" in page.evaluate(VIEW, node)
    assert front_end.get(f"/async_vae_decode/runs/{second}")["state"] == "completed"


@pytest.mark.own_page
@pytest.mark.parametrize("renderer", ["litegraph", "vue"])
def test_a_video_that_was_finished_while_another_workflow_was_open(
    open_front_end: Callable[..., FrontEnd], small_demo: dict[str, str], encoders: Encoders, renderer: Renderer
) -> None:
    front_end = open_front_end(renderer=renderer)
    needs_videos(front_end)
    page = front_end.page
    node = video_node(front_end, small_demo, f"tabs/{renderer}")
    front_end.note_change()
    front_end.wait(front_end.queue())
    page.evaluate("() => { window.first = window.app.extensionManager.workflow.activeWorkflow; }")
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    page.wait_for_function("() => window.app.extensionManager.workflow.activeWorkflow !== window.first")
    # A node of the same id, which has nothing to do with it.
    other = front_end.add("AsyncVAEDecodeSaveVideo")
    page.evaluate(
        """() => {
          window.saved = [];
          window.comfyAPI.api.api.addEventListener("async_vae_decode.saved", ({ detail }) => window.saved.push(detail));
        }"""
    )

    encoders.go()
    page.wait_for_function("() => window.saved.length === 1")
    assert not page.evaluate("id => Boolean(window.testMedia(id).video)", other)
    switch = "() => window.app.extensionManager.workflow.openWorkflows.findIndex((one) => one === window.first)"
    assert page.evaluate(switch) >= 0
    page.evaluate("() => window.app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    page.wait_for_function("() => window.app.extensionManager.workflow.activeWorkflow.path === window.first.path")

    shows_video(front_end, node, "after the change", [96, 64])


@pytest.mark.own_page
def test_a_video_is_shown_on_a_page_that_was_reloaded(
    front_end: FrontEnd, small_demo: dict[str, str], encoders: Encoders
) -> None:
    node = video_node(front_end, small_demo, "reloaded/a")
    front_end.wait(front_end.queue())
    front_end.reload()
    front_end.centre(node)
    front_end.page.evaluate(MEDIA)

    encoders.go()

    shows_video(front_end, node, "after a reload", [96, 64])
    assert "a_00001_.mp4" in front_end.page.evaluate(VIEW, node)


@pytest.mark.parametrize("renderer", ["litegraph", "vue"])
def test_an_end_in_the_background_is_told(
    open_front_end: Callable[..., FrontEnd], small_demo: dict[str, str], encoders: Encoders, renderer: Renderer
) -> None:
    front_end = open_front_end(renderer=renderer)
    page = front_end.page
    node = video_node(front_end, small_demo, f"ended/{renderer}")
    front_end.wait(front_end.queue())

    page.evaluate("() => window.app.extensionManager.command.execute('AsyncVAEDecode.EndBackground')")

    page.get_by_text("Runs in the background that were ended: 1").first.wait_for()
    page.wait_for_function("() => document.querySelector('.async-vae-decode-view').innerText.includes('cancelled')")
    # Whoever has ended it is not told that it has failed.
    assert not page.get_by_text("Saving in the background has failed").count()
    assert page.evaluate(SHOWS_NOTHING_BROKEN, node)

    # ffmpeg is killed after the prompt's success.
    front_end.set_widget(node, "filename_prefix", f"ended/{renderer}-again")
    front_end.wait(front_end.queue())
    encoders.kill()

    page.get_by_text("Saving in the background has failed: ffmpeg failed").first.wait_for()
    assert page.evaluate(SHOWS_NOTHING_BROKEN, node)
    front_end.screenshot("background-ended")
