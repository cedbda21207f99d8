"""Runs that go on after their node has returned: files are finished while the next prompt runs.

A node that finishes in the background returns when its last frame has left the compute device. What is left (encoding,
the second pass, the names) goes on in a thread of its own; ``saved`` or ``failed`` on the websocket, and the run's
state under ``/async_vae_decode/runs/{id}``, say how it ended.

At most ``MOST`` runs are in the background at once; one more waits for the first of them, since each holds a ring. One
that gets no further for a minute (or as long as its node took, where that is more) is cut short, and so makes room.
When the server ends, they get ``GRACE`` seconds more, then they are cut short: what is left plays.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from comfy import model_management
from comfy_api.v0_0_2 import InputImpl, io
from server import PromptServer

from ..async_decode import Cancelled, FramePipeline
from ..async_decode.device.ring import MAX_HOST_BYTES
from .events import RunEvents

WITH_THE_NODE, IN_THE_BACKGROUND = "with the node", "in the background"
#: When a saving node returns; the default first.
FINISH = [WITH_THE_NODE, IN_THE_BACKGROUND]
#: Runs in the background at once.
MOST = 2
#: Host memory for frames that wait for their writers, in bytes: all runs together keep within one ring's limit.
BACKLOG = MAX_HOST_BYTES // (MOST + 1)
#: How long they may go on when the server ends, in seconds.
GRACE = 10.0
#: How often somebody who waits looks whether to go on waiting, in seconds.
_INTERVAL = 0.05

#: A run's files are whole; or they are not, and the message says why and what is left.
SAVED, FAILED = "async_vae_decode.saved", "async_vae_decode.failed"


class BackgroundRun:
    """One run whose node has returned.

    Args:
        pipeline: the run; all its frames are on the host.
        held: leaving it waits for the sinks and ends the run.
        events: the events of the run.
        shown: what the node shows once its files are whole.
    """

    def __init__(
        self, pipeline: FramePipeline, held: ExitStack, events: RunEvents, shown: Callable[[], dict[str, Any]]
    ) -> None:
        self.id = events.run_id
        self.error: BaseException | None = None
        self._pipeline: FramePipeline | None = pipeline
        self._held = held
        self._events = events
        self._shown = shown
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether its files are whole, or never will be."""
        return self._over.is_set()

    def cancel(self, reason: str) -> None:
        """Cut it short; from any thread."""
        pipeline = self._pipeline
        if pipeline is not None:
            pipeline.cancel(Cancelled(reason))

    def wait(self) -> None:
        """Wait until its files are whole; in the thread of a node that wants to read them.

        Raises:
            InterruptProcessingException: the user has cancelled that node's prompt.
            BaseException: why the files are not whole.
        """
        while not self._over.wait(_INTERVAL):
            model_management.throw_exception_if_processing_interrupted()
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        """Wait for the sinks and say how it ended; the program of the run's thread."""
        pipeline = self._pipeline
        assert pipeline is not None, "a run ends once"
        try:
            self._held.close()
        except BaseException as error:
            self.error = error
        report, told = pipeline.report, _told(self.error, pipeline)
        warnings, outcome = report.warnings, report.outcome
        for warning in warnings:
            logging.warning("Async VAE Decode: %s", warning)
        # ComfyUI keeps the node's VIDEO, which knows this run: nothing of the clip shall stay with it.
        self._pipeline = None
        self._over.set()
        if self.error is None:
            self._events.tell(SAVED, {"output": self._shown()})
        else:
            if outcome == "cancelled":
                logging.warning("Async VAE Decode: saving in the background was cut short: %s", told)
            else:
                logging.error("Async VAE Decode: saving in the background has failed: %s", told)
            self._events.tell(FAILED, {"state": outcome, "message": told, "warnings": list(warnings)})


def _told(error: BaseException | None, pipeline: FramePipeline) -> str:
    """What a run ended with, and where there is what it had saved of a video."""
    told = str(error)
    for sink in pipeline.sinks:
        path = sink.path if getattr(sink, "cut_short", False) else None
        if path is not None and str(path) not in told:
            told = f"{told}\nWhat was encoded until then is in {path}."
    return told


class BackgroundRuns:
    """The runs that are in the background now.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._runs: list[BackgroundRun] = []
        self._deadline: float | None = None

    def all(self) -> list[BackgroundRun]:
        """Those that are not over, oldest first."""
        with self._lock:
            self._runs = [run for run in self._runs if not run.over]
            return list(self._runs)

    async def room(self) -> float:
        """Wait until one more may go there; return for how many seconds.

        Raises:
            InterruptProcessingException: the user has cancelled the prompt that waits.
        """
        began = time.monotonic()
        while len(self.all()) >= self._most:
            model_management.throw_exception_if_processing_interrupted()
            await asyncio.sleep(_INTERVAL)
        return time.monotonic() - began

    def take(self, run: BackgroundRun) -> None:
        """Let ``run`` go on in a thread of its own."""
        with self._lock:
            self._runs.append(run)
        _watch_the_servers_end()
        # ComfyUI's own thread is a daemon, and what it starts would be one, too: Python would not wait for the files.
        threading.Thread(target=run.finish, name="async-decode background", daemon=False).start()

    def cancel(self, run_id: str | None, reason: str) -> int:
        """Cut short the run of this id, or all of them; return how many that were."""
        chosen = [run for run in self.all() if run_id in (None, run.id)]
        for run in chosen:
            run.cancel(reason)
        return len(chosen)

    def go_on(self) -> None:
        """Raise when the server has ended and the time is over that runs have then; called by each of them."""
        if threading.main_thread().is_alive():
            return
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + GRACE
                logging.info("Async VAE Decode: runs in the background have %g s to finish", GRACE)
        if time.monotonic() > self._deadline:
            raise Cancelled("the server ended")

    def end(self) -> None:
        """Let them go on for ``GRACE`` seconds, then cut them short, and wait until their files are closed."""
        if self.all():
            logging.info("Async VAE Decode: runs in the background have %g s to finish", GRACE)
        deadline = time.monotonic() + GRACE
        while self.all() and time.monotonic() < deadline:
            time.sleep(_INTERVAL)
        self.cancel(None, "the server ended")
        while self.all():
            time.sleep(_INTERVAL)


runs = BackgroundRuns()


async def room() -> list[str]:
    """Wait until one more run may finish in the background; what the report is to say of that."""
    seconds = await runs.room()
    return [f"waited {seconds:.1f} s for a run in the background to finish"] if seconds > _INTERVAL else []


def finish_input() -> io.Input:
    """When the node returns; every saving node has it."""
    return io.Combo.Input(
        "finish",
        options=FINISH,
        default=FINISH[0],
        optional=True,
        tooltip="with the node: it is done when its files are. in the background: it is done when the last frame has "
        "left the GPU, and its files are finished while the next prompt runs, at most two runs at a time. Until then "
        "they are not whole; the event async_vae_decode.saved says when they are. A node that gives IMAGE from a "
        "latent waits for its files all the same.",
    )


#: What reads a VIDEO's file.
_OPENING = frozenset(name for name in dir(InputImpl.VideoFromFile) if not name.startswith("_"))


class BackgroundVideo(InputImpl.VideoFromFile):
    """A VIDEO whose file may not be whole yet: whoever opens it waits.

    Args:
        run: who makes the file.
        path: where it will be; asked when it is whole.
    """

    def __init__(self, run: BackgroundRun, path: Callable[[], str]) -> None:
        self._run: BackgroundRun | None = run
        self._path = path
        self._opening = threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        # Every method that this core's VIDEO has: none of them can do without the file. Others are asked for as well,
        # by ComfyUI's cache for one, which must not wait.
        if name in _OPENING:
            object.__getattribute__(self, "_open")()
        return super().__getattribute__(name)

    def _open(self) -> None:
        with self._opening:
            if self._run is not None:
                self._run.wait()
                super().__init__(self._path())
                self._run = None


_hooked = threading.Event()


def _watch_the_servers_end() -> None:
    """From the first run in the background on: see the end of the server that Python itself does not wait for.

    Ctrl-C, and everything else that ends the main thread, each run sees by itself.
    """
    if _hooked.is_set():
        return
    _hooked.set()
    # A restart in place of this process, as ComfyUI-Manager's, ends every thread without a word.
    sys.addaudithook(_before_exec)
    # SIGTERM would end the process at once.
    PromptServer.instance.loop.call_soon_threadsafe(_handle_sigterm)


def _before_exec(event: str, _: tuple[Any, ...]) -> None:
    if event == "os.exec":
        runs.end()


def _handle_sigterm() -> None:
    """Have SIGTERM end the server as Ctrl-C does, unless somebody has other plans for it; in the main thread."""
    if os.name == "posix" and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_: int, __: Any) -> None:
    raise KeyboardInterrupt
