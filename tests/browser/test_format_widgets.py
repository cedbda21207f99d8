"""Widgets that a format does not have are hidden, and nothing else changes: values, workflow, prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from async_decode.sinks import VIDEO_FORMATS

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd, Renderer

WITHOUT_FORMAT = {"chunk_size", "buffer_depth", "filename_prefix", "format", "writers", "finish", "spool_gb"}
FORMATS = {
    "png": {"compression"},
    "png 16-bit": {"compression"},
    "jpeg": {"quality"},
    "webp": {"quality"},
    "webp lossless": set(),
    "avif": {"quality"},
    "avif 10-bit": {"quality"},
    "tiff": {"compression"},
    "exr half": {"compression", "input_color_space"},
    "exr float": {"compression", "input_color_space"},
}
#: Every widget of Async Save Frames.
ALL = WITHOUT_FORMAT.union(*FORMATS.values())


def shown(front_end: FrontEnd, node: str) -> set[str]:
    """The widgets that a user sees."""
    drawn: set[str] = set(
        # Newest front ends hide what is connected themselves.
        front_end.node(
            node,
            "node.widgets.filter((w) => w.visibility ? !w.visibility.suppression.byExtension "
            ": node.isWidgetVisible?.(w) ?? !w.hidden).map((w) => w.name)",
        )
    )
    if not front_end.label.startswith("vue"):
        return drawn
    # Vue draws a moment after a change.
    front_end.page.wait_for_timeout(300)
    text: str = front_end.page.locator(f"[data-node-id='{node}']").inner_text()
    return {line.strip() for line in text.splitlines()} & ALL


def expected(front_end: FrontEnd, node: str, format: str) -> set[str]:
    """What a user should see; the Vue renderer of older front ends cannot show again what it has hidden."""
    if not front_end.label.startswith("vue"):
        return WITHOUT_FORMAT | FORMATS[format]
    # Newer ones fold what is advanced.
    folded = front_end.node(node, "node.widgets.filter((w) => w.advanced || w.options?.advanced).map((w) => w.name)")
    hides = front_end.node(node, "'widgetId' in node.widgets[0]")
    return (WITHOUT_FORMAT | FORMATS[format] if hides else ALL) - set(folded)


def test_each_format_shows_its_widgets(open_front_end: Callable[..., FrontEnd], renderer: Renderer) -> None:
    front_end = open_front_end(renderer=renderer)
    node = front_end.add("AsyncSaveFrames", pos=(200, 100), quality=77, compression=7, input_color_space="linear")
    front_end.centre(node)
    before = front_end.workflow()["nodes"][0]["widgets_values"]

    assert shown(front_end, node) == expected(front_end, node, "png")
    front_end.screenshot("format-widgets-png", node)
    for format in [*FORMATS, "png"]:
        front_end.set_widget(node, "format", format)
        assert shown(front_end, node) == expected(front_end, node, format), format
        values = front_end.workflow()["nodes"][0]["widgets_values"]
        assert values == [format if value == "png" else value for value in before]
        inputs = front_end.prompt()[node]["inputs"]
        assert (inputs["format"], inputs["quality"], inputs["compression"]) == (format, 77, 7)
        assert inputs["input_color_space"] == "linear"


def test_each_video_format_shows_what_its_encoder_takes(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncSaveVideo", pos=(200, 100))
    front_end.centre(node)
    every = set(front_end.node(node, "node.widgets.map((widget) => widget.name)"))

    for name, video in VIDEO_FORMATS.items():
        front_end.set_widget(node, "format", name)
        hidden = every - shown(front_end, node)
        assert hidden == {
            *(["quality"] if video.crf_range is None else []),
            *(["preset"] if len(set(video.speeds.values())) == 1 else []),
            *(["trim_to_audio"] if video.sound is None else []),
            *(["convert_on_gpu"] if video.planar is video.frames else []),
        }, name


def test_each_video_format_has_its_own_quality(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncSaveVideo", pos=(200, 100))
    limits = "(({ options }) => [options.min, options.max])(node.widgets.find(({ name }) => name === 'quality'))"

    for name, video in reversed(VIDEO_FORMATS.items()):
        front_end.set_widget(node, "format", name)
        if video.crf_range is not None:
            assert front_end.widget(node, "quality") == video.crf, name
            assert tuple(front_end.node(node, limits)) == video.crf_range, name

    # What was chosen for a format comes back with it, and stays when the workflow is opened again.
    front_end.set_widget(node, "quality", 17)
    front_end.set_widget(node, "format", "webm (VP9)")
    assert front_end.widget(node, "quality") == 31
    front_end.set_widget(node, "format", "mp4 (H.264)")
    assert front_end.widget(node, "quality") == 17
    front_end.set_widget(node, "format", "webm (AV1)")
    front_end.set_widget(node, "quality", 55)
    front_end.load(front_end.workflow())
    assert front_end.widget(node, "quality") == 55
    assert front_end.node(node, limits) == [1, 63]


def test_no_gap_is_left_where_a_widget_was(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncSaveFrames", pos=(200, 100))
    front_end.centre(node)
    places = "node.widgets.filter((w) => !w.hidden).map((w) => w.y ?? w.last_y)"

    heights = {}
    for format in ("exr half", "webp lossless", "exr half", "png"):
        front_end.set_widget(node, "format", format)
        # Widgets get their places when they are drawn.
        front_end.page.evaluate("() => { window.app.canvas.draw(true, true); }")
        tops = front_end.node(node, places)
        assert {round(below - above) for above, below in itertools.pairwise(tops)} == {24}, (format, tops)
        height = front_end.node(node, "node.size[1]")
        assert heights.setdefault(format, height) == height
        assert height >= tops[-1]
    assert heights["exr half"] - heights["webp lossless"] == 48
    front_end.screenshot("format-widgets-gap", node)


def test_an_opened_workflow_shows_the_widgets_of_its_format(
    open_front_end: Callable[..., FrontEnd], renderer: Renderer
) -> None:
    front_end = open_front_end(renderer=renderer)
    node = front_end.add("AsyncSaveFrames", format="jpeg", quality=33)
    workflow = front_end.workflow()
    front_end.clear()

    front_end.load(workflow)
    front_end.centre(node)

    assert shown(front_end, node) == expected(front_end, node, "jpeg")
    assert front_end.widget(node, "quality") == 33
    assert front_end.workflow()["nodes"][0]["widgets_values"] == workflow["nodes"][0]["widgets_values"]
    assert front_end.workflow()["nodes"][0]["size"][0] == pytest.approx(workflow["nodes"][0]["size"][0])


def test_nothing_is_hidden_that_is_connected(front_end: FrontEnd) -> None:
    node = front_end.add("AsyncSaveFrames", pos=(500, 100), format="jpeg")
    number, choice = front_end.add("PrimitiveInt", pos=(100, 100)), front_end.add("PrimitiveNode", pos=(100, 300))

    front_end.connect(number, 0, node, "compression")
    assert shown(front_end, node) == expected(front_end, node, "jpeg") | {"compression"}
    front_end.node(node, "node.disconnectInput(node.findInputSlot('compression'))")
    assert shown(front_end, node) == expected(front_end, node, "jpeg")

    # Nobody knows which format it will be.
    front_end.connect(choice, 0, node, "format")
    assert shown(front_end, node) == ALL


def test_dates_and_values_of_nodes_are_filled_into_the_prefix(front_end: FrontEnd) -> None:
    front_end.add("EmptyImage", title="Source", width=640)
    prefix = "%date:yyyy%/a %Source.width% %batch_num%"
    types = ("AsyncVAEDecodeSaveFrames", "AsyncVAEDecodeSaveVideo", "AsyncSaveFrames")
    nodes = [front_end.add(type, filename_prefix=prefix) for type in types]

    prompt: dict[str, Any] = front_end.prompt()

    year = front_end.page.evaluate("() => new Date().getFullYear()")
    for node in nodes:
        assert prompt[node]["inputs"]["filename_prefix"] == f"{year}/a 640 %batch_num%"
        assert front_end.widget(node, "filename_prefix") == prefix
