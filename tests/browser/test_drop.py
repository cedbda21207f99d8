"""A saved file that is dropped on the canvas brings its workflow back."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.browser.front_end import FrontEnd

TITLE = 'é 漢 "quoted" \\ = ; #'
TYPES = {".png": "image/png", ".webp": "image/webp", ".avif": "image/avif", ".jpg": "image/jpeg", ".mp4": "video/mp4"}

# What a browser does when a file is let go over the canvas.
_DROP = """
([name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  const { canvas } = window.app.canvas;
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const place = { clientX: left + width / 2, clientY: top + height / 2, bubbles: true, cancelable: true, dataTransfer };
  for (const kind of ["dragenter", "dragover", "drop"]) canvas.dispatchEvent(new DragEvent(kind, place));
}
"""


def drop(front_end: FrontEnd, file: Path) -> None:
    content = base64.b64encode(file.read_bytes()).decode()
    front_end.page.evaluate(_DROP, [file.name, TYPES[file.suffix], content])


def saved(front_end: FrontEnd, node: str) -> Path:
    """Queue the graph; the first file that ``node`` names afterwards."""
    outputs: dict[str, Any] = front_end.wait(front_end.queue())["outputs"]
    named = outputs[node]["images"][0]
    return front_end.server.output / named["subfolder"] / named["filename"]


#: What saves, in which format, and what the file is.
SAVED = [
    ("AsyncSaveFrames", "png", ".png"),
    ("AsyncSaveFrames", "png 16-bit", ".png"),
    ("AsyncSaveFrames", "webp", ".webp"),
    ("AsyncSaveFrames", "webp lossless", ".webp"),
    ("AsyncSaveFrames", "avif", ".avif"),
    ("AsyncSaveFrames", "avif 10-bit", ".avif"),
    ("AsyncSaveVideo", "mp4 (H.264)", ".mp4"),
    ("AsyncSaveVideo", "webp (animated)", ".webp"),
]


def test_workflow_comes_back(front_end: FrontEnd) -> None:
    # One page for all: opening one takes longer than everything below.
    for type, format, extension in SAVED:
        front_end.clear()
        # Frames that differ: an animation of a single picture is a file of another kind.
        source = front_end.add("TestImages", pos=(60, 120), shape="3,48,64,3")
        node = front_end.add(type, pos=(420, 120), title=TITLE, filename_prefix="dropped", format=format, quality=31)
        front_end.connect(source, 0, node, "images")
        # Queueing may change what is to come next, a seed for example.
        before = front_end.workflow()
        file = saved(front_end, node)
        assert file.suffix == extension
        front_end.clear()

        drop(front_end, file)
        front_end.page.wait_for_function("() => window.app.graph._nodes.length >= 2 && !window.app.configuringGraph")

        after = front_end.workflow()
        kept = [
            {entry["id"]: (entry["type"], entry.get("title"), entry["widgets_values"]) for entry in graph["nodes"]}
            for graph in (before, after)
        ]
        assert kept[0] == kept[1] and len(kept[0]) == 2, format
        assert front_end.widget(node, "quality") == 31 and front_end.widget(node, "format") == format
        assert front_end.node(node, "node.title") == TITLE
        # The links, too: these numbers are the outputs and inputs that they connect.
        assert [link[1:5] for link in before["links"]] == [link[1:5] for link in after["links"]] != []
