"""The end of a run, after its last frame or after an error: what came is saved, threads end, memory is let go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..decoding import Decoding
from ..sinks.base import Sink
from .feeder import Feeder
from .slots import Flow
from .stages import Stages


class Ending:
    """Ends a run; nothing of it raises but what stops a program.

    Args:
        flow: keeps the first error.
        sinks: who takes the frames.
        warnings: gets the errors that come after the first one, and what sinks have to say.
    """

    def __init__(self, flow: Flow, sinks: Sequence[Sink], warnings: list[str]) -> None:
        self._flow = flow
        self._sinks = sinks
        self._warnings = warnings

    def deliver(self, stages: Stages, error: BaseException) -> BaseException:
        """Have what the decoder had made before ``error`` saved; return what the run ends with."""
        try:
            stages.deliver()
        except BaseException as further:
            self._warnings.append(f"while what had been decoded was saved: {further!r}")
            if not isinstance(further, Exception):
                return further
        return error

    def shut_down(self, feeder: Feeder | None, stages: Stages | None, decoding: Decoding | None) -> None:
        """End the sinks and the copy thread, then let go of the memory, in this order."""
        if feeder is not None:
            # After an error it ends by itself, and not in the middle of opening a sink.
            feeder.join()
        if self._flow.error is not None:
            for sink in self._sinks:
                self._attempt(sink.abort)
        if stages is not None:
            stages.close(self._attempt)
            nan_frame = stages.copying.nan_frame
            if nan_frame is not None:
                self._warnings.append(_nan_warning(nan_frame, decoding))
        self._flow.drop()
        for sink in self._sinks:
            self._warnings.extend(sink.notes)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do ``step``, which is to be followed by others whatever happens; its error is one of the run."""
        try:
            step()
        except BaseException as error:
            if self._flow.error is not None:
                self._warnings.append(f"while the run was ended: {error!r}")
            self._flow.fail(error)


def _nan_warning(frame: int, decoding: Decoding | None) -> str:
    """What the report says of the first frame that held a NaN."""
    warning = f"frame {frame} is the first that holds NaN (not a number): it was saved as stock saves it"
    if decoding is not None and decoding.kind == "images":
        return warning
    return f"{warning}; where the latent holds none, decode in a wider type (float32; ComfyUI: --fp32-vae)"
