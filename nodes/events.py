"""What browsers are told of runs: ``async_vae_decode.*`` events on the websocket, and who is to get previews.

Every browser gets the events of every run, so that a second tab is as live as the first; each tells by the ids of
workflow and node whether it shows what ran. Nothing of a prompt is in them but those ids.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..async_decode import FramePipeline
from ..async_decode.pipeline.live import INTERVAL, LiveRun, RecentRuns
from . import saving

#: A run has begun, has got on, has ended.
STARTED, PROGRESS, ENDED = (f"async_vae_decode.{kind}" for kind in ("started", "progress", "ended"))
#: Browsers whose wishes are remembered.
MOST_CLIENTS = 256

recent = RecentRuns()


@dataclass(frozen=True)
class PreviewWish:
    """What a browser wants to see while a node runs.

    Attributes:
        enabled: whether it wants previews.
        interval: seconds between two of them.
    """

    enabled: bool = True
    interval: float = 0.5


_wishes: OrderedDict[str, PreviewWish] = OrderedDict()


def set_preview(client: str, wish: PreviewWish) -> None:
    """Remember what the browser ``client`` wants."""
    _wishes[client] = wish
    _wishes.move_to_end(client)
    while len(_wishes) > MOST_CLIENTS:
        _wishes.popitem(last=False)


class RunEvents:
    """The events of the run of the node that executes now.

    News are told from the server's event loop: the node's thread may be within one step of the decoder for long, and
    has better things to do.
    """

    def __init__(self) -> None:
        context = get_executing_context()
        self._node_id = None if context is None else context.node_id
        self._facts = _facts()
        self._run: LiveRun | None = None
        # Between the two threads: what is told first is sent first.
        self._lock = threading.Lock()

    @property
    def preview(self) -> PreviewWish:
        """What the browser that queued the prompt wants to see; the default where it never said."""
        return _wishes.get(self._facts["client"] or "", PreviewWish())

    @property
    def run_id(self) -> str | None:
        """The id of the run, once it has begun."""
        return None if self._run is None else self._run.id

    @property
    def prompt_id(self) -> str | None:
        """The id of the prompt."""
        prompt: str | None = self._facts["prompt"]
        return prompt

    def begin(self, pipeline: FramePipeline) -> None:
        """Tell that the run begins, and from now on what is new."""
        self._run = LiveRun(pipeline, self._facts, told_as=saving.saved_at)
        recent.add(self._run)
        _send(STARTED, self._run.brief())
        PromptServer.instance.loop.call_soon_threadsafe(self._tell)

    def end(self) -> None:
        """Tell how it ended."""
        if self._run is not None:
            with self._lock:
                _send(ENDED, self._run.end())

    def tell(self, event: str, data: dict[str, Any]) -> None:
        """Tell every browser something of this run."""
        assert self._run is not None, "it has begun"
        _send(event, {**self._run.brief(), **data})

    def show(self, ui: dict[str, Any]) -> None:
        """Have the browser show ``ui`` in the node, as ComfyUI does when a node returns it."""
        facts = self._facts
        told = {"node": self._node_id, "display_node": facts["node"], "output": ui, "prompt_id": facts["prompt"]}
        if facts["client"] is not None:
            PromptServer.instance.send_sync("executed", told, facts["client"])

    def _tell(self) -> None:
        assert self._run is not None, "it has begun"
        with self._lock:
            if self._run.over:
                return
            news = self._run.news()
            if news is not None:
                _send(PROGRESS, news)
        # A little more than the interval, or every other call would come too soon.
        PromptServer.instance.loop.call_later(1.05 * INTERVAL, self._tell)


def _send(event: str, data: dict[str, Any]) -> None:
    PromptServer.instance.send_sync(event, data)


def _facts() -> dict[str, Any]:
    """Which node of which workflow runs, who queued it, and since when; None for what is not known."""
    context = get_executing_context()
    prompt_id, node_id = (None, None) if context is None else (context.prompt_id, context.node_id)
    with PromptServer.instance.prompt_queue.mutex:
        running = list(PromptServer.instance.prompt_queue.currently_running.values())
    item = next((item for item in running if item[1] == prompt_id), None)
    prompt, extra = ({}, {}) if item is None else (item[2], item[3])
    workflow = (extra.get("extra_pnginfo") or {}).get("workflow") or {}
    # A node that another one made while it ran is shown where that one is.
    shown = None if node_id is None else get_progress_state().dynprompt.get_display_node_id(node_id)
    return {
        "prompt": prompt_id,
        "node": shown,
        "type": prompt.get(node_id, {}).get("class_type"),
        "workflow": workflow.get("id") if isinstance(workflow, dict) else None,
        "client": extra.get("client_id"),
        "began": time.time(),
    }
