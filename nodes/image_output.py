"""The IMAGE output of the nodes that save what they decode: made when somebody takes it, or the widget asks for it."""

from __future__ import annotations

from typing import Any

from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

#: What a node says that takes an IMAGE which nobody could know of: an expanding node has added the link afterwards.
NO_IMAGES = (
    "This node gives IMAGE where something is connected when it runs, or with its widget output_images switched on, "
    "because a long clip does not fit in memory as IMAGE. Switch output_images on and queue again."
)


def output_images_input() -> io.Input:
    """The switch for that output."""
    return io.Boolean.Input(
        "output_images",
        default=False,
        tooltip="Give the frames as IMAGE even if nothing is connected to that output. Connected or on, the whole clip "
        "is held in memory as float32; else memory does not grow with the clip.",
    )


def is_connected(output: int) -> bool:
    """Whether another node of the prompt takes output number ``output`` of the node that executes now.

    A result may only depend on this in a node whose ``fingerprint_inputs`` says it as well: ComfyUI's cache looks at a
    node's inputs, and would hand a result without an IMAGE to a link that was added later.
    """
    context = get_executing_context()
    if context is None:
        return False
    prompt, link = get_progress_state().dynprompt, [context.node_id, output]
    return any(link in prompt.get_node(node).get("inputs", {}).values() for node in prompt.all_node_ids())


def blocker() -> Any:
    """What is given in place of an IMAGE that was not made."""
    return ExecutionBlocker(NO_IMAGES)
