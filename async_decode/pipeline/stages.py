"""What a clip needs from its first piece on: the ring, what fills it, the thread that copies, and open sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from ..device.clock import Clock
from ..device.conversion import Finish
from ..device.ring import Ring, free_device_bytes, make_ring, plan_ring
from ..errors import DecodeError
from ..frames import Clip, PixelFormat
from ..sinks.base import Sink
from ..spans import Recorder
from .chunks import ChunkFiller
from .copy_thread import CopyThread
from .slots import Flow


class Stages:
    """Opens the sinks and starts the copy thread.

    Args:
        clip: geometry of the frames.
        sinks: who takes them.
        chunk_size: frames a chunk that were asked for.
        buffer_depth: slots that were asked for.
        backlog: host memory for more of them, in bytes.
        device: where pieces are.
        finish: what turns pieces into frames.
        flow: the state that all threads share.
        recorder: gets the spans.
        clock: follows the device.
        copied: becomes done when the last chunk is on the host and with the sinks, or copying has failed.
        warnings: gets what did not go as asked.

    Attributes:
        clip: geometry of the frames.
        ring: the memory through which they travel.
        filler: takes pieces.
        copying: the thread that copies.

    Raises:
        Exception: there is no memory for the ring (nothing has been opened), or what a sink raised (the flow has it).
    """

    def __init__(
        self,
        clip: Clip,
        sinks: Sequence[Sink],
        *,
        chunk_size: int,
        buffer_depth: int,
        backlog: int,
        device: torch.device,
        finish: Finish,
        flow: Flow,
        recorder: Recorder,
        clock: Clock,
        copied: Future[None],
        warnings: list[str],
    ) -> None:
        self.clip = clip
        self._warnings = warnings
        self._finish = finish
        self._device = device
        self._flow = flow
        # Before the sinks open: where there is no memory for it, the caller may try again with a leaner decode.
        self.ring = self._make_ring(sinks, chunk_size, buffer_depth, backlog, device)
        try:
            for sink in sinks:
                sink.ring_slots = self.ring.host_depth
                sink.open(clip, recorder)
        except BaseException as error:
            flow.fail(error)
            self.ring.close()
            raise
        self.copying = CopyThread(
            self.ring,
            sinks,
            flow=flow,
            recorder=recorder,
            clock=clock,
            device=device,
            copied=copied,
        )
        self.filler = ChunkFiller(
            self.ring, finish, flow=flow, recorder=recorder, clock=clock, in_turn=buffer_depth == 1
        )
        self.copying.start()

    def check(self, piece: Tensor, total: int | None) -> None:
        """Refuse a piece that is not like the first one, or more frames than ``total``.

        Raises:
            DecodeError: the message names both.
        """
        expected = self._device
        if piece.device.type != expected.type or (expected.index is not None and piece.device.index != expected.index):
            raise DecodeError(f"expected pieces on {expected}, got one on {piece.device}")
        clip = self._finish.clip(piece, self.clip.frames)
        if clip != self.clip:
            raise DecodeError(f"expected pieces like the first one ({self.clip}), got {clip}")
        frames = self.filler.received + piece.shape[0]
        if total is not None and frames > total:
            raise DecodeError(f"expected {total} frames from the decoder, got at least {frames}")

    def deliver(self) -> None:
        """Have the sinks take what came so far, although the clip has more; wait until they have it.

        Raises:
            BaseException: the first error, or what ``poll`` raised.
        """
        self.filler.flush()
        self._flow.end(whole=False)
        self._flow.wait(self.copying.done.done)

    def close(self, attempt: Callable[[Callable[[], None]], None]) -> None:
        """Wait until the copy thread has ended, which it does after the last chunk or an error; let go of the memory.

        Args:
            attempt: calls what may fail, and keeps the error.
        """
        self.copying.join()
        self.filler.drop()
        attempt(self.ring.close)

    def _make_ring(
        self, sinks: Sequence[Sink], chunk_size: int, buffer_depth: int, backlog: int, device: torch.device
    ) -> Ring:
        formats = formats_of(sinks)
        # A clip shorter than a chunk needs no bigger slot.
        chunk = min(chunk_size, self.clip.frames or chunk_size)
        plan = plan_ring(
            self.clip,
            formats,
            depth=buffer_depth,
            chunk_frames=chunk,
            free=free_device_bytes(device),
            backlog=backlog,
        )
        if (plan.depth, plan.chunk_frames) != (buffer_depth, chunk):
            self._warnings.append(
                f"{buffer_depth} slots of {chunk} frames would take too much memory: the ring has {plan.depth} of "
                f"{plan.chunk_frames}, {plan.bytes / 2**20:.0f} MiB"
            )
        return make_ring(self.clip, formats, plan, device, self._warnings)


def formats_of(sinks: Sequence[Sink]) -> list[PixelFormat]:
    """The pixel formats that have to travel for ``sinks``.

    In a fixed order, float32 first, because quantising may overwrite what it reads.
    """
    wanted = {sink.pixel_format for sink in sinks}
    return [name for name in PixelFormat if name in wanted] or [PixelFormat.UINT8]


def each_once(sinks: Sequence[Sink]) -> tuple[Sink, ...]:
    """``sinks``, where there is one at least, and none twice.

    Raises:
        ValueError: it is not so.
    """
    if not sinks:
        raise ValueError("a pipeline needs at least one sink, got none")
    if len(set(sinks)) < len(sinks):
        raise ValueError("a sink takes a clip once, but one of them is there twice; make one for each use")
    return tuple(sinks)
