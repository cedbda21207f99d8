"""What the thumbnail of an example workflow says, read from the workflow itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "example_workflows"
#: What each example is about, in the words of somebody who looks for it.
TITLES = {
    "01_demo_clip": "Async demo clip",
    "hunyuanvideo1.5_text_to_video": "HunyuanVideo 1.5",
    "image_batch_to_frames": "SD 1.5 images",
    "ltx2_text_to_video_with_audio": "LTX-2 with sound",
    "wan2.1_text_to_video": "Wan 2.1",
    "wan2.2_5B_text_to_video": "Wan 2.2 5B",
}
#: The example whose thumbnail shows its own frames, because it needs no model.
DEMO = "01_demo_clip"


def names() -> list[str]:
    """The example workflows."""
    return sorted(file.stem for file in EXAMPLES.glob("*.json"))


def lines(name: str) -> list[str]:
    """The title, what comes in, and what comes out."""
    nodes = json.loads((EXAMPLES / f"{name}.json").read_text("utf-8"))["nodes"]
    return [TITLES[name], "no model needed" if name == DEMO else _size(nodes), _output(nodes)]


def _size(nodes: list[dict[str, Any]]) -> str:
    """Width, height and length of the empty latent that the workflow begins with."""
    (values,) = (
        node["widgets_values_named"]
        for node in nodes
        if {"width", "height"} <= set(node.get("widgets_values_named", {}))
    )
    return f"{values['width']} x {values['height']}, {values.get('length', values['batch_size'])} frames"


def _output(nodes: list[dict[str, Any]]) -> str:
    """The files, as the widgets of the node that saves them say."""
    (values,) = (
        node["widgets_values_named"]
        for node in nodes
        if node["type"].startswith("Async") and "format" in node["widgets_values_named"]
    )
    container, _, codec = values["format"].partition(" ")
    if "fps" not in values:
        return f"{values['format']} files"
    return f"{container} {codec.strip('()')}, {values['fps']:g} fps"
