"""Why ComfyUI cancels a node that waits for its sinks: the user cancelled the prompt, or another branch has failed.

ComfyUI's executor ends a prompt with its first error and cancels every node that still waits, and a cancelled task is
not told why. What was decoded before must not be lost by what others do, so only the user's cancel cuts it short.
"""

from __future__ import annotations

import sys
from types import FrameType


def by_user() -> bool:
    """Whether the user has cancelled the prompt that ends; to be asked in a task that was cancelled.

    ComfyUI's flag does not tell: a node that raises for it clears it, and that may have been another one. The executor
    keeps the messages that it has sent to browsers, and while it ends a prompt it is among this thread's callers.
    Where a core has no such executor the answer is no: then a cancel waits for the files, and none is lost.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        messages = getattr(frame.f_locals.get("self"), "status_messages", None)
        if isinstance(messages, list):
            return any(kind == "execution_interrupted" for kind, _ in messages)
        frame = frame.f_back
    return False


#: The last prompt that the user has cancelled when its nodes had been cancelled already.
_also_by_user: str | None = None


def note_user(prompt: str | None) -> None:
    """Note that the user has cancelled ``prompt``, which had failed: ComfyUI's flag tells only one of its nodes."""
    global _also_by_user
    _also_by_user = prompt


def noted_user(prompt: str | None) -> bool:
    """Whether one of the prompt's other nodes has noted that."""
    return prompt is not None and prompt == _also_by_user
