"""Connecting the IMAGE output of a saving node switches `output_images` on, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer

# Where an output and an input are on the page.
_SLOTS = """
([from, output, to, input]) => {
  const source = window.testNode(from), target = window.testNode(to);
  const { canvas, ds } = window.app.canvas;
  const { left, top } = canvas.getBoundingClientRect();
  const at = ([x, y]) => [left + (x + ds.offset[0]) * ds.scale, top + (y + ds.offset[1]) * ds.scale];
  const inSlot = target.findInputSlot(input);
  return [at(source.getConnectionPos(false, output)), at(target.getConnectionPos(true, inSlot))];
}
"""


@pytest.mark.parametrize("renderer", ["litegraph", "vue"])
@pytest.mark.parametrize(
    ("node_type", "output"), [("AsyncVAEDecodeSaveFrames", 0), ("AsyncVAEDecodeSaveVideo", 1)], ids=["frames", "video"]
)
def test_connecting_the_images_switches_them_on(
    open_front_end: Callable[..., FrontEnd], renderer: Renderer, node_type: str, output: int
) -> None:
    front_end = open_front_end(renderer=renderer)
    node = front_end.add(node_type, pos=(100, 100))
    preview = front_end.add("PreviewImage", pos=(600, 100))
    assert front_end.widget(node, "output_images") is False

    front_end.connect(node, output, preview, "images")

    assert front_end.widget(node, "output_images") is True
    assert front_end.prompt()[node]["inputs"]["output_images"] is True


def test_dragging_a_link_switches_them_on(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecodeSaveFrames", pos=(100, 100))
    preview = front_end.add("PreviewImage", pos=(600, 100))
    front_end.centre(node, preview)
    (x, y), (to_x, to_y) = front_end.page.evaluate(_SLOTS, [node, 0, preview, "images"])

    mouse = front_end.page.mouse
    mouse.move(x, y)
    mouse.down()
    mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=5)
    mouse.move(to_x, to_y, steps=5)
    mouse.up()

    assert front_end.node(preview, "node.inputs[0].link !== null")
    assert front_end.widget(node, "output_images") is True


def test_connecting_the_video_leaves_them_off(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecodeSaveVideo")
    save = front_end.add("SaveVideo")

    front_end.connect(node, 0, save, "video")

    assert front_end.widget(node, "output_images") is False


def test_what_a_workflow_says_is_left_as_it_is(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecodeSaveFrames")
    preview = front_end.add("PreviewImage")
    front_end.connect(node, 0, preview, "images")
    front_end.set_widget(node, "output_images", False)
    workflow = front_end.workflow()

    front_end.load(workflow)

    assert front_end.node(preview, "node.inputs[0].link !== null")
    assert front_end.widget(node, "output_images") is False


def test_they_go_off_with_the_last_link_that_had_switched_them_on(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecodeSaveFrames")
    previews = [front_end.add("PreviewImage") for _ in range(2)]
    for preview in previews:
        front_end.connect(node, 0, preview, "images")
    # A workflow that is opened again knows it.
    front_end.load(front_end.workflow())

    front_end.node(previews[0], "node.disconnectInput(0)")
    one_left = front_end.widget(node, "output_images")
    front_end.node(previews[1], "node.disconnectInput(0)")

    assert (one_left, front_end.widget(node, "output_images")) == (True, False)


def test_what_somebody_has_switched_on_stays_on(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecodeSaveFrames")
    preview = front_end.add("PreviewImage")
    front_end.set_widget(node, "output_images", True)
    front_end.connect(node, 0, preview, "images")

    front_end.node(preview, "node.disconnectInput(0)")

    assert front_end.widget(node, "output_images") is True
