"""The copy thread: the thread that takes filled chunks from the device to the sinks.

For each chunk, in order:

1. wait until the sinks are done with what its slot held on the host before;
2. have it copied on the copy stream and wait for the copy asleep;
3. give the staging memory back, so that the decoder can go on whatever the sinks do;
4. hand the frames to every sink; the last one that is done with them frees the host memory.

After the last chunk of a clip it closes the sinks. It does no arithmetic and holds the GIL for microseconds a chunk.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import torch

from ..device.clock import Clock
from ..device.heap import HeapTrim
from ..device.ring import Chunk, Ring
from ..errors import SinkError
from ..sinks.base import Sink
from ..sinks.workers import running_future
from ..spans import Recorder, Span, Stage
from .slots import Flow


class CopyThread:
    """Carries the chunks of one pipeline.

    Args:
        copied: becomes done when the last chunk is on the host and with the sinks, or this has ended.

    Attributes:
        done: done when it has ended: every sink has closed, the clip was not whole, or the flow has an error. It
            cannot be cancelled.
        nan_frame: number of the first frame that held a NaN, if there was one.
    """

    def __init__(
        self,
        ring: Ring,
        sinks: Sequence[Sink],
        *,
        flow: Flow,
        recorder: Recorder,
        clock: Clock,
        device: torch.device,
        copied: Future[None],
    ) -> None:
        self._ring = ring
        self._sinks = sinks
        self._flow = flow
        self._recorder = recorder
        self._clock = clock
        self._device = device
        self._copied = copied
        self._heap = HeapTrim() if device.type == "cpu" else None
        self.done = running_future()
        self.nan_frame: int | None = None
        self._thread = threading.Thread(target=self._run, name="async-decode copy")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended; it does after the end of the input or an error."""
        self._thread.join()

    def _run(self) -> None:
        try:
            # The current device and inference mode belong to a thread.
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            with torch.inference_mode():
                while (chunk := self._flow.next_filled()) is not None:
                    if not self._pass_on(chunk):
                        return
            self._copied.set_result(None)
            if self._flow.wait_for_sinks():
                for sink in self._sinks:
                    sink.close()
        except BaseException as error:
            self._flow.fail(error)
        finally:
            if not self._copied.done():
                self._copied.set_result(None)
            self.done.set_result(None)
            self._flow.wake()

    def _pass_on(self, chunk: Chunk) -> bool:
        began = self._recorder.now()
        waited = self._flow.take_host(chunk)
        if waited is None:
            return False
        if waited:
            self._recorder.add(Span(Stage.WAIT_SINKS, "copy waits", chunk.index, began, self._recorder.now()))
        self._transfer(chunk)
        self._flow.give_staging(chunk)
        self._hand_over(chunk)
        if self._heap is not None:
            self._heap.now_and_then()
        return True

    def _transfer(self, chunk: Chunk) -> None:
        copied = self._ring.transfer(chunk)
        at = self._clock.resolve
        for stage, index, start, end, frames in chunk.marks:
            self._recorder.add(Span(stage, stage.value, index, at(start), at(end), frames))
        if copied is not None:
            start, end = copied
            self._recorder.add(Span(Stage.COPY, "copy", chunk.index, at(start), at(end), chunk.frames, chunk.bytes))
        if self.nan_frame is None:
            flags = chunk.slot.host_nan[: chunk.frames].numpy()
            if flags.any():
                self.nan_frame = chunk.first_index + int(flags.argmax())

    def _hand_over(self, chunk: Chunk) -> None:
        anyone = next(iter(chunk.slot.host))
        # The copy thread itself holds the chunk until every sink has it.
        self._flow.hold(chunk)
        for sink in self._sinks:
            written = sink.write(chunk.on_host(sink.pixel_format or anyone).numpy(), chunk.first_index)
            if written is not None:
                self._flow.hold(chunk)
                written.add_done_callback(functools.partial(self._written, chunk))
        self._flow.let_go(chunk)

    def _written(self, chunk: Chunk, written: Future[None]) -> None:
        """A sink is done with a chunk; called in the sink's thread."""
        if written.cancelled():
            # After an abort, which this does not replace; else these frames would be missing, and nobody would know.
            self._flow.fail(SinkError(f"frames from {chunk.first_index} on were given up by a sink"))
        elif (error := written.exception()) is not None:
            self._flow.fail(error)
        self._flow.let_go(chunk)
