"""What ComfyUI sees of a pipeline while a node runs it, and the wait for its sinks that keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import comfy.utils
from comfy import model_management

from ..async_decode import Cancelled, FramePipeline, SinkError
from ..async_decode.sinks import OptionalSink, Patience, PreviewSink, Sink
from . import background, cancels, events
from .earlier_runs import SavedAs, earlier_runs

#: How often a node that waits for its sinks looks at the progress and at ComfyUI's interrupt, in seconds.
TAIL_INTERVAL = 0.05
#: Under this key the report is in a node's ``ui`` output, hence in the history and in the ``executed`` event. It is a
#: text that holds JSON, because ComfyUI counts every object there as a file that a prompt has made.
REPORT_KEY = "async_vae_decode"

#: What a node shows of the files that its sinks make: told whether all of them are whole, or have a name at least.
FilesShown = Callable[[bool], dict[str, Any]]


class NodeRun:
    """A pipeline and what ComfyUI sees of it: progress bar, live preview, events, interrupt, report.

    All of that belongs to the node's thread. Under ``with`` the pipeline runs.

    Args:
        sinks: who takes the frames.
        saved_as: how, for what is remembered of earlier runs; ``None``: nothing is to be remembered.
        settings: of the ``FramePipeline``.

    Attributes:
        pipeline: takes a preview from the frames besides, where the browser wants one.
    """

    def __init__(self, sinks: Sequence[Sink], saved_as: SavedAs | None = None, **settings: Any) -> None:
        self._events = events.RunEvents()
        wish = self._events.preview
        self._preview = PreviewSink(wish.interval) if wish.enabled else None
        self._bar = comfy.utils.ProgressBar(1)
        self._shown = -1
        #: Since the node has returned, or will in a moment.
        self._has_returned = False
        self._over = False
        self._saved_as = saved_as
        self._began = time.monotonic()
        #: Since another branch of the prompt has failed.
        self._patience: Patience | None = None
        #: Since the node has returned: nobody is there any more who would cancel what gets no further.
        self._alone: Patience | None = None
        self.pipeline = FramePipeline(
            [*sinks, *([OptionalSink(self._preview, "the live preview ended")] if self._preview else [])],
            cancels=(model_management.InterruptProcessingException, asyncio.CancelledError, Cancelled),
            **settings,
        )

    def __enter__(self) -> FramePipeline:
        self._events.begin(self.pipeline)
        try:
            return self.pipeline.__enter__()
        except BaseException:
            self._events.end()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        saved_as = self._saved_as
        if saved_as is not None and self._has_returned:
            # There are others beside it, with which it shares the cores.
            saved_as = dataclasses.replace(saved_as, kind=f"{saved_as.kind}, in the background")
        if saved_as is not None and error is None:
            self.pipeline.measured = earlier_runs().others(saved_as, self.pipeline.report)
        try:
            self.pipeline.__exit__(kind, error, traceback)
            # After an error of this block, such as the user's cancel, the pipeline raises none of its own.
            if saved_as is not None and error is None:
                earlier_runs().add(saved_as, self.pipeline.report)
        finally:
            self._over = True
            self._events.end()

    def poll(self) -> None:
        """Show how many frames have been written; raise if the user has cancelled."""
        if self._has_returned:
            # What the user cancels now is another prompt.
            background.runs.go_on()
            if self._alone is not None and self._alone.ended(self._progress()):
                raise SinkError(f"it got no further for {self._alone.seconds:.0f} s, and was ended")
            return
        model_management.throw_exception_if_processing_interrupted()
        pipeline = self.pipeline
        image = None if self._preview is None else self._preview.take()
        if image is None and pipeline.written == self._shown:
            return
        self._shown = pipeline.written
        self._bar.update_absolute(
            self._shown,
            pipeline.total_frames or max(1, pipeline.received),
            # JPEG has no alpha: ComfyUI would fail to send such a preview and close the connection.
            # It would enlarge a small one as well, and the browser tells its size.
            None if image is None else ("JPEG", image if image.mode == "L" else image.convert("RGB"), max(image.size)),
        )

    def poll_alone(self) -> None:
        """Raise what should end a run whose node has returned; before that, nothing."""
        if self._has_returned:
            self.poll()

    async def wait_or_leave(
        self, closing: Future[None], held: contextlib.ExitStack | None, files: FilesShown
    ) -> background.BackgroundRun | None:
        """Wait for the sinks; or, with ``held``, until the device has done its part, and leave the rest to others."""
        await self.wait(closing, *([self.pipeline.copied] if held is not None else []))
        # After an error there is nothing to be finished: it is raised by leaving the block. Files that are whole by now
        # go the same way as others: who has asked for the background hears "saved" of every run.
        failed = self.pipeline.error is not None or (closing.done() and closing.exception() is not None)
        if held is None or failed:
            return None
        self._alone = Patience(time.monotonic() - self._began)
        self._has_returned = True
        run = background.BackgroundRun(self.pipeline, held.pop_all(), self._events, lambda: self._output(files))
        background.runs.take(run)
        return run

    async def wait(self, *any_of: Future[None]) -> None:
        """Wait until one of these is done; other nodes that are ready run meanwhile.

        Where another branch of the prompt fails, ComfyUI cancels this task and waits for its end: what was decoded is
        saved all the same, as long as that gets on and the user does not cancel.
        """
        waiting, began = [asyncio.wrap_future(future) for future in any_of], time.monotonic()
        while not any(future.done() for future in waiting):
            try:
                await asyncio.wait(waiting, timeout=TAIL_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                if cancels.by_user():
                    raise
                # This may come more than once.
                self._patience = self._patience or Patience(time.monotonic() - began)
            try:
                self.poll()
            except model_management.InterruptProcessingException:
                if self._patience is None:
                    raise
                cancels.note_user(self._events.prompt_id)
            if self._patience is None:
                continue
            if cancels.noted_user(self._events.prompt_id):
                raise asyncio.CancelledError("another branch has failed, and the user has cancelled")
            if self._patience.ended(self._progress()):
                raise asyncio.CancelledError("another branch has failed, and saving gets no further")

    def _progress(self) -> object:
        """How far the run is: something new as long as any of its sinks gets on."""
        pipeline = self.pipeline
        return (pipeline.received, pipeline.written, *(sink.progress for sink in pipeline.sinks))

    def ui(self, files: FilesShown) -> dict[str, list[Any]]:
        """What the node shows when it returns: its files, and the report, which says whether they are whole yet."""
        if not self._has_returned:
            self.poll()
            for warning in self.pipeline.report.warnings:
                logging.warning("Async VAE Decode: %s", warning)
        shown = self._output(files)
        if self._patience is not None:
            # Nobody takes the result of a task that was cancelled.
            logging.info("Async VAE Decode: another branch of the prompt has failed; what was decoded has been saved")
            self._events.show(shown)
        return shown

    def _output(self, files: FilesShown) -> dict[str, Any]:
        finishing = self._has_returned and not self._over
        report = {**self.pipeline.report.to_json(), "run": self._events.run_id, "finishing": finishing}
        if finishing:
            report["outcome"] = "running"
        return {**files(not finishing), REPORT_KEY: [json.dumps(report)]}
