"""Nodes that wait until the test lets them go on, and nodes that fail."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import defaultdict
from typing import Any

from aiohttp import web
from comfy import model_management
from server import PromptServer

#: A test that fails may leave a gate shut; the server must not wait for it forever.
GATE_TIMEOUT = 120.0
_gates: dict[str, threading.Event] = defaultdict(threading.Event)


@PromptServer.instance.routes.post("/probe/gate/{name}")
async def open_gate(request: web.Request) -> web.Response:
    """Open one gate, before or after somebody has come to it."""
    _gates[request.match_info["name"]].set()
    return web.Response()


@PromptServer.instance.routes.post("/probe/release")
async def open_all_gates(request: web.Request) -> web.Response:
    """Open every gate that somebody has come to."""
    for gate in list(_gates.values()):
        gate.set()
    return web.Response()


@PromptServer.instance.routes.post("/probe/patience/{seconds}")
async def set_patience(request: web.Request) -> web.Response:
    """How long the pack waits for what gets no further, so that a test need not wait for a minute."""
    (module,) = [found for name, found in sys.modules.items() if name.endswith(".async_decode.sinks.patience")]
    assert hasattr(module, "PATIENCE")
    module.PATIENCE = float(request.match_info["seconds"])
    return web.Response()


@PromptServer.instance.routes.post("/probe/grace/{seconds}")
async def set_grace(request: web.Request) -> web.Response:
    """How long runs in the background may go on when the server ends."""
    (module,) = [found for name, found in sys.modules.items() if name.endswith(".nodes.background")]
    assert hasattr(module, "GRACE")
    module.GRACE = float(request.match_info["seconds"])
    return web.Response()


@PromptServer.instance.routes.post("/probe/memory/{size}")
async def set_memory(request: web.Request) -> web.Response:
    """Memory, in bytes, for frames that wait for a file, beside the ring: small clips would never be put on disk."""
    size = int(request.match_info["size"])
    for end, constant in ((".nodes.background", "BACKLOG"), (".async_decode.sinks.spooled", "AT_HAND")):
        (module,) = [found for name, found in sys.modules.items() if name.endswith(end)]
        assert hasattr(module, constant)
        setattr(module, constant, size)
    return web.Response()


@PromptServer.instance.routes.post("/probe/exec")
async def become_another_process(request: web.Request) -> web.Response:
    """What ComfyUI-Manager's restart does, but that the process which takes this one's place ends at once."""
    asyncio.get_running_loop().call_later(0.1, os.execv, sys.executable, [sys.executable, "-c", ""])
    return web.Response()


@PromptServer.instance.routes.post("/probe/end_when_asked/{run}/{gate}")
async def end_when_asked(request: web.Request) -> web.Response:
    """Let a run that is held end while somebody asks for its state: behind the look at it, before the answer."""
    (events,) = [found for name, found in sys.modules.items() if name.endswith(".nodes.events")]
    run, gate = events.recent.get(request.match_info["run"]), _gates[request.match_info["gate"]]
    look = run.snapshot

    def look_and_end() -> Any:
        seen = look()
        gate.set()
        deadline = time.monotonic() + GATE_TIMEOUT
        while not run.over and time.monotonic() < deadline:
            time.sleep(0.01)
        return seen

    run.snapshot = look_and_end
    return web.Response()


@PromptServer.instance.routes.get("/probe/threads")
async def threads(request: web.Request) -> web.Response:
    """The names of the threads that live."""
    return web.json_response([thread.name for thread in threading.enumerate()])


def hold(name: str, *, interruptible: bool) -> None:
    """Say ``probe.held`` to the client, then wait until its gate is open.

    Args:
        name: the gate's.
        interruptible: whether a cancelled prompt ends the wait; if not, whoever runs next learns of it first.
    """
    gate = _gates[name]
    PromptServer.instance.send_sync("probe.held", {"gate": name}, PromptServer.instance.client_id)
    waited = 0.0
    while not gate.wait(0.02):
        waited += 0.02
        if interruptible:
            model_management.throw_exception_if_processing_interrupted()
        if waited > GATE_TIMEOUT:
            raise TimeoutError(f"nobody opened the gate {name!r}")


class AnyType(str):
    """A type that links to every other; cores before the newest compare with ``!=``."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


ANY = AnyType("*")


class Gate:
    """Passes anything on when its gate is open."""

    RETURN_TYPES = (ANY,)
    FUNCTION = "wait"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"anything": (ANY, {}), "gate": ("STRING", {"default": "gate"})}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")

    def wait(self, anything: Any, gate: str) -> tuple[Any]:
        hold(gate, interruptible=True)
        return (anything,)


class Explode:
    """Fails, with the message that it is given."""

    RETURN_TYPES = (ANY,)
    FUNCTION = "explode"
    CATEGORY = "testing"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"message": ("STRING", {"default": "boom"})}, "optional": {"anything": (ANY, {})}}

    def explode(self, message: str, anything: Any = None) -> tuple[Any]:
        raise RuntimeError(message)


class LateError:
    """Waits as an asynchronous node does, so that the others go on, until its gate is open; then it fails.

    ``kind``: ``error`` fails; ``interrupt`` takes notice of the user's cancel before anybody else, without a gate, as
    a sampler may.
    """

    RETURN_TYPES = (ANY,)
    FUNCTION = "explode"
    CATEGORY = "testing"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"gate": ("STRING", {"default": "gate"}), "kind": (["error", "interrupt"],)}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")

    async def explode(self, gate: str, kind: str) -> tuple[Any]:
        deadline = asyncio.get_running_loop().time() + GATE_TIMEOUT
        while not _gates[gate].is_set():
            await asyncio.sleep(0.001)
            if kind == "interrupt":
                model_management.throw_exception_if_processing_interrupted()
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"nobody opened the gate {gate!r}")
        raise RuntimeError("another branch fails, as the test wants it")
