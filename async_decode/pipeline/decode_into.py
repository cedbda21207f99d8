"""One clip in one call: latents through a pipeline of its own into sinks, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..decoders import Mode, cache_folder
from ..device.clock import current_device
from ..device.conversion import Finish
from ..errors import SinkError
from ..report.report import Report
from ..sinks import ImageFilesSink, Sink, TensorSink, VideoSink
from ..spans import Span
from ..taps.base import Tap
from .frame_pipeline import FramePipeline


@dataclass(frozen=True)
class Result:
    """What a call of ``decode`` has made.

    Attributes:
        report: what happened: how it was decoded, exact or not, seconds and bytes of every stage.
        spans: the same to the span, for ``async_decode.report.trace``.
        files: every file that was written, in the order of the targets and of the frames.
        sinks: who took the frames.
    """

    report: Report
    spans: list[Span] = field(repr=False)
    files: list[Path] = field(repr=False)
    sinks: tuple[Sink, ...] = field(repr=False)

    @property
    def path(self) -> Path | None:
        """The video; of several the first, ``None`` where there is none."""
        return next((sink.path for sink in self.sinks if isinstance(sink, VideoSink)), None)

    @property
    def frames(self) -> Tensor:
        """The frames, ``(T, H, W, C)`` float32, 0 to 1; several clips of a batch follow each other.

        Raises:
            SinkError: they were not asked for: ``to`` named files only.
        """
        for sink in self.sinks:
            if isinstance(sink, TensorSink):
                return sink.tensor
        raise SinkError("frames: they went into files; put TensorSink() into the list of to as well to keep them")


def decode_into(
    sinks: Sequence[Sink],
    tap: Tap,
    latent: Tensor,
    *,
    finish: Finish | None = None,
    chunk_size: int = 4,
    buffer_depth: int = 3,
    decoder: Mode = "auto",
    spool: int = 0,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Result:
    """Decode ``latent`` through ``tap`` into ``sinks``; return when all of them have closed.

    Args:
        sinks: who takes the frames.
        tap: how to get at the pieces.
        latent: ``(N, C, T, H, W)`` or ``(N, C, H, W)``.
        finish: as of ``FramePipeline``. Default ``None``: stock's scaling of raw decoder output.
        chunk_size: as of ``FramePipeline``. Default 4.
        buffer_depth: as of ``FramePipeline``. Default 3.
        decoder: as of ``FramePipeline.decode``. Default ``"auto"``.
        spool: as of ``FramePipeline``. Default 0.
        on_progress: as of ``async_decode.decode``. Default ``None``: nothing.

    Returns:
        What was made.

    Raises:
        Exception: the first error of a run: the model's, a sink's, or ``on_progress``'s.
    """
    shown = -1

    def poll() -> None:
        nonlocal shown
        if on_progress is not None and pipeline.written != shown:
            shown = pipeline.written
            on_progress(shown, pipeline.total_frames)

    device = tap.decoder.device
    pipeline = FramePipeline(
        sinks,
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        device=device,
        finish=finish,
        poll=poll,
        spool=spool,
    )
    with current_device(device), pipeline:
        pipeline.decode(tap, latent, decoder=decoder, verdicts=cache_folder())
    poll()
    files: list[Path] = []
    for sink in sinks:
        if isinstance(sink, ImageFilesSink):
            files += sink.files
        elif isinstance(sink, VideoSink) and sink.path is not None:
            files.append(sink.path)
    return Result(pipeline.report, pipeline.recorder.spans, files, tuple(sinks))
