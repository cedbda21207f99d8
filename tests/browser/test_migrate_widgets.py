"""Workflows of the time when the widgets had another order: the same values come out, however they are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.client import PromptRejected

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer

#: The nodes as they were saved: every value another one than the widget's default, in the former order.
FORMER: dict[str, dict[str, Any]] = {
    "AsyncVAEDecodeSaveVideo": {
        "chunk_size": 5,
        "buffer_depth": 2,
        "filename_prefix": "video/former",
        "fps": 23.976,
        "format": "webm (VP9)",
        "quality": 31,
        "preset": "slow",
        "output_images": True,
        "ping_pong": True,
        "loop_count": 2,
        "trim_to_audio": True,
        "convert_on_gpu": False,
        "tile_size": 256,
        "overlap": 32,
        "temporal_size": 64,
        "temporal_overlap": 12,
    },
    "AsyncSaveVideo": {
        "chunk_size": 5,
        "buffer_depth": 2,
        "filename_prefix": "video/former",
        "fps": 23.976,
        "format": "webm (VP9)",
        "quality": 31,
        "preset": "slow",
        "ping_pong": True,
        "loop_count": 2,
        "trim_to_audio": True,
        "convert_on_gpu": False,
    },
    "AsyncVAEDecodeSaveFrames": {
        "chunk_size": 5,
        "buffer_depth": 2,
        "filename_prefix": "former",
        "format": "exr half",
        "compression": 7,
        "quality": 80,
        "input_color_space": "linear",
        "writers": 3,
        "output_images": True,
        "tile_size": 256,
        "overlap": 32,
        "temporal_size": 64,
        "temporal_overlap": 12,
    },
    "AsyncSaveFrames": {
        "chunk_size": 5,
        "buffer_depth": 2,
        "filename_prefix": "former",
        "format": "jpeg",
        "compression": 7,
        "quality": 80,
        "input_color_space": "HDR",
        "writers": 3,
    },
}

#: Widgets that came after the order had changed, with their defaults.
LATER = {"decoder": "auto", "finish": "with the node", "spool_gb": 0}


def values_of(front_end: FrontEnd, node: str) -> dict[str, Any]:
    """Every widget's value in the prompt that would be queued, without what came later and has its default."""
    inputs: dict[str, Any] = front_end.prompt()[node]["inputs"]
    return {
        name: value
        for name, value in inputs.items()
        if not isinstance(value, list) and (name not in LATER or value != LATER[name])
    }


@pytest.mark.parametrize("node_type", FORMER)
def test_an_old_workflow_has_the_values_that_it_had(
    open_front_end: Callable[..., FrontEnd], renderer: Renderer, node_type: str
) -> None:
    front_end = open_front_end(renderer=renderer)
    node = front_end.add(node_type)
    workflow = front_end.workflow()
    (saved,) = workflow["nodes"]
    saved["widgets_values"] = list(FORMER[node_type].values())
    saved.pop("widgets_values_named", None)

    front_end.load(workflow)

    assert values_of(front_end, node) == FORMER[node_type]
    # Saved again, it has today's order.
    again = front_end.workflow()
    front_end.load(again)
    assert values_of(front_end, node) == FORMER[node_type]
    assert again["nodes"][0]["widgets_values"][0] == FORMER[node_type]["filename_prefix"]


def test_values_that_did_not_exist_yet_are_the_defaults(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecodeSaveFrames")
    defaults = values_of(front_end, node)
    workflow = front_end.workflow()
    (saved,) = workflow["nodes"]
    saved["widgets_values"] = [5, 2, "former"]
    saved.pop("widgets_values_named", None)

    front_end.load(workflow)

    given = {"chunk_size": 5, "buffer_depth": 2, "filename_prefix": "former"}
    assert values_of(front_end, node) == {**defaults, **given}


@pytest.mark.parametrize(
    ("node_type", "missing"),
    [
        ("AsyncVAEDecodeSaveVideo", {"ping_pong", "loop_count", "trim_to_audio", "convert_on_gpu"}),
        ("AsyncVAEDecodeSaveFrames", {"input_color_space"}),
        ("AsyncVAEDecodeSaveFrames", {"input_color_space", "quality"}),
        ("AsyncSaveFrames", {"input_color_space"}),
    ],
)
def test_widgets_that_came_in_the_middle(front_end: FrontEnd, node_type: str, missing: set[str]) -> None:
    node = front_end.add(node_type)
    defaults = values_of(front_end, node)
    workflow = front_end.workflow()
    (saved,) = workflow["nodes"]
    given = {name: value for name, value in FORMER[node_type].items() if name not in missing}
    saved["widgets_values"] = list(given.values())
    saved.pop("widgets_values_named", None)

    front_end.load(workflow)

    assert values_of(front_end, node) == {**defaults, **given}


def test_todays_values_are_left_alone(front_end: FrontEnd) -> None:
    given = {**FORMER["AsyncVAEDecodeSaveVideo"]}
    node = front_end.add("AsyncVAEDecodeSaveVideo", **given)

    front_end.load(front_end.workflow())

    assert values_of(front_end, node) == given


@pytest.mark.parametrize("node_type", FORMER)
def test_a_workflow_of_the_time_before_the_last_widget_came(front_end: FrontEnd, node_type: str) -> None:
    node = front_end.add(node_type, **FORMER[node_type], finish="in the background", spool_gb=7)
    workflow = front_end.workflow()
    (saved,) = workflow["nodes"]
    assert saved["widgets_values"].pop() == 7
    saved.get("widgets_values_named", {}).pop("spool_gb", None)

    front_end.load(workflow)

    assert values_of(front_end, node) == {**FORMER[node_type], "finish": "in the background"}
    assert front_end.widget(node, "spool_gb") == 0


def test_a_rate_keeps_its_digits_and_goes_in_whole_frames(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncSaveVideo")

    assert front_end.node(node, "node.widgets.find((w) => w.name === 'fps').options.step2") == 1
    front_end.set_widget(node, "fps", 23.976)

    assert front_end.prompt()[node]["inputs"]["fps"] == 23.976


def test_a_rate_of_0_that_is_typed_is_refused_and_not_changed(front_end: FrontEnd) -> None:
    images = front_end.add("TestImages", shape="5,32,48,3", pos=(40, 100))
    node = front_end.add("AsyncSaveVideo", pos=(400, 100))
    front_end.connect(images, 0, node, "images")
    front_end.centre(node, scale=1.0)
    # Widgets know where they are once they have been drawn.
    drawn = "node.widgets.find(({ name }) => name === 'fps').last_y"
    front_end.page.wait_for_function(f"(id) => {{ const node = window.testNode(id); return {drawn} > 0; }}", arg=node)
    box = front_end.box(node)
    top = front_end.node(node, f"window.LiteGraph.NODE_TITLE_HEIGHT + {drawn}")
    typed = front_end.page.locator(".graphdialog input")
    front_end.click(box["x"] + box["width"] / 2, box["y"] + top + 10, shows=typed)
    typed.fill("0")
    front_end.page.keyboard.press("Enter")
    front_end.page.wait_for_function(
        "id => window.testNode(id).widgets.find(({ name }) => name === 'fps').value === 0", arg=node
    )

    with pytest.raises(PromptRejected) as refused:
        front_end.queue()

    (error,) = refused.value.node_errors[node]["errors"]
    assert error["details"] == "fps: expected 0.01 to 1000 frames a second, got 0"


def test_sizes_go_from_off_to_the_smallest(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncVAEDecode")

    for name, step, least in (("tile_size", 32, 64), ("temporal_size", 4, 8)):
        front_end.set_widget(node, name, step)
        assert front_end.widget(node, name) == least
        front_end.set_widget(node, name, step)
        assert front_end.widget(node, name) == 0
