"""The ring: the only memory through which frames travel, allocated once, and the stream protocol that guards it.

The protocol of one slot on CUDA and ROCm (two events):

1. compute stream: fill ``staging``, record ``decoded``;
2. copy stream: wait for ``decoded``, copy ``staging`` to ``host``, record ``copied``;
3. host: wait for ``copied`` asleep; from then on ``staging`` may be filled again, even while sinks still read ``host``;
4. sinks read ``host``; when the last is done with it, ``host`` may be copied to again.

Elsewhere (CPU, MPS, XPU, DirectML) filling a slot copies synchronously into ``host``, which is its own staging.

A ring knows nothing of threads: who may touch which slot when is the pipeline's business. No other module asks what
kind of device it works for.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..frames import Clip, PixelFormat
from ..spans import Stage
from .clock import Mark

#: A ring takes at most this share of the free device memory …
MAX_DEVICE_SHARE = 0.1
#: … and at most this many bytes of pinned memory.
MAX_HOST_BYTES = 1 << 30
#: Slots start at multiples of this many bytes, as the copy engines like it.
_ALIGNMENT = 512


@dataclass(eq=False)
class Slot:
    """One place of the ring: the memory for a chunk on both sides.

    Attributes:
        index: its number in the ring.
        staging: one tensor ``(chunk_frames, *Clip.frame_shape)`` on the compute device for each pixel format.
        host: their counterparts in host memory; the same tensors in a unified ring.
        staging_nan: ``(chunk_frames,)`` bool, which frames hold a NaN; ``host_nan`` its counterpart.
    """

    index: int
    staging: dict[PixelFormat, Tensor]
    host: dict[PixelFormat, Tensor]
    staging_nan: Tensor
    host_nan: Tensor


@dataclass(eq=False)
class Chunk:
    """What travels in a slot. The slot may take the next chunk's frames while sinks still read this one's.

    Attributes:
        slot: where it is.
        index: its number, counted from 0.
        first_index: number of its first frame in the clip.
        frames: how many frames have been put into it.
        marks: device times to resolve once it has arrived: stage, piece, start, end, frames.
    """

    slot: Slot
    index: int
    first_index: int
    frames: int = 0
    marks: list[tuple[Stage, int, Mark, Mark, int]] = field(default_factory=list)

    def next_places(self, count: int) -> tuple[dict[PixelFormat, Tensor], Tensor]:
        """The staging memory of the next ``count`` frames, and their NaN flags."""
        part = slice(self.frames, self.frames + count)
        return {name: tensor[part] for name, tensor in self.slot.staging.items()}, self.slot.staging_nan[part]

    def on_host(self, name: PixelFormat) -> Tensor:
        """Its frames in host memory, ``(frames, *Clip.frame_shape)``, once it has been transferred."""
        return self.slot.host[name][: self.frames]

    @property
    def bytes(self) -> int:
        """Bytes of its frames, in all formats."""
        return sum(self.on_host(name).nbytes for name in self.slot.host)


class Ring(abc.ABC):
    """``depth`` slots of ``chunk_frames`` frames each.

    Attributes:
        slots: the slots.
        unified: staging and host are the same memory, so a slot is free only when the sinks are done with it.
        pinned: the host memory is page-locked; ``None`` where that has no meaning.
        device_bytes: device memory that the ring holds; ``host_bytes`` likewise.
        warnings: what did not go as asked, for the report.
    """

    unified: bool
    pinned: bool | None
    device_bytes: int

    def __init__(self, clip: Clip, formats: Iterable[PixelFormat], *, depth: int, chunk_frames: int) -> None:
        self.clip = clip
        self.formats = tuple(formats)
        self.depth = depth
        self.chunk_frames = chunk_frames
        self.warnings: list[str] = []
        self.slots: list[Slot] = []
        self.host_bytes = 0

    @abc.abstractmethod
    def record_filled(self, chunk: Chunk) -> None:
        """Say, in the decoding thread, that its current stream has all the work that fills the chunk's staging."""

    @abc.abstractmethod
    def transfer(self, chunk: Chunk) -> tuple[Mark, Mark] | None:
        """Bring ``chunk`` to the host; return when its frames are there.

        Returns:
            Marks of the start and the end of the copy, good until the slot's next transfer, or ``None`` where filling
            was the copy.
        """

    def close(self) -> None:
        """Let go of the memory, once nothing that the ring started can still touch it."""
        self.slots.clear()

    def _carve(self, block: Tensor) -> list[tuple[dict[PixelFormat, Tensor], Tensor]]:
        """Cut a block of bytes into the frames and the NaN flags of each slot."""
        parts = []
        offset = 0
        for _ in range(self.depth):
            tensors = {}
            for name in self.formats:
                size = self.chunk_frames * self.clip.frame_bytes(name)
                shape = (self.chunk_frames, *self.clip.frame_shape(name))
                tensors[name] = block[offset : offset + size].view(name.dtype).view(shape)
                offset = _align(offset + size)
            flags = block[offset : offset + self.chunk_frames].view(torch.bool)
            offset = _align(offset + self.chunk_frames)
            parts.append((tensors, flags))
        return parts

    def _block_bytes(self) -> int:
        frames = sum(_align(self.chunk_frames * self.clip.frame_bytes(name)) for name in self.formats)
        return self.depth * (frames + _align(self.chunk_frames))


class SyncRing(Ring):
    """For every device without streams that can be relied on: filling a slot is a synchronous copy to the host."""

    unified = True
    pinned = None
    device_bytes = 0

    def __init__(self, clip: Clip, formats: Iterable[PixelFormat], *, depth: int, chunk_frames: int) -> None:
        super().__init__(clip, formats, depth=depth, chunk_frames=chunk_frames)
        block = torch.empty(self._block_bytes(), dtype=torch.uint8)
        self.host_bytes = block.nbytes
        for index, (tensors, flags) in enumerate(self._carve(block)):
            self.slots.append(Slot(index, tensors, tensors, flags, flags))

    def record_filled(self, chunk: Chunk) -> None:
        pass

    def transfer(self, chunk: Chunk) -> None:
        return None


class CudaRing(Ring):
    """For CUDA and ROCm: a copy stream, pinned host memory and two events a slot."""

    unified = False

    def __init__(
        self, clip: Clip, formats: Iterable[PixelFormat], *, depth: int, chunk_frames: int, device: torch.device
    ) -> None:
        super().__init__(clip, formats, depth=depth, chunk_frames=chunk_frames)
        self.device = device
        self.copy_stream = torch.cuda.Stream(device)
        staging_block = torch.empty(self._block_bytes(), dtype=torch.uint8, device=device)
        host_block = self._pinned_block()
        self.device_bytes = staging_block.nbytes
        self.host_bytes = host_block.nbytes
        # blocking: a waiting thread sleeps instead of spinning on a core that a writer could use.
        self._decoded = [torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(depth)]
        self._copied = [torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(depth)]
        pairs = zip(self._carve(staging_block), self._carve(host_block), strict=True)
        for index, ((staging, staging_nan), (host, host_nan)) in enumerate(pairs):
            self.slots.append(Slot(index, staging, host, staging_nan, host_nan))

    def _pinned_block(self) -> Tensor:
        size = self._block_bytes()
        try:
            # One block: torch rounds every pinned allocation up to a power of two.
            block = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
        else:
            if block.is_pinned():
                self.pinned = True
                return block
            reason = "the allocator returned pageable memory"
        self.pinned = False
        self.warnings.append(
            f"{size / 2**20:.0f} MiB of host memory could not be pinned ({reason}): copies to the host wait for the "
            "device; use a smaller chunk_size or buffer_depth"
        )
        return torch.empty(size, dtype=torch.uint8)

    def record_filled(self, chunk: Chunk) -> None:
        self._decoded[chunk.slot.index].record(torch.cuda.current_stream(self.device))

    def transfer(self, chunk: Chunk) -> tuple[Mark, Mark]:
        slot, part = chunk.slot, slice(chunk.frames)
        copied = self._copied[slot.index]
        with torch.cuda.stream(self.copy_stream):
            self.copy_stream.wait_event(self._decoded[slot.index])
            started = torch.cuda.Event(enable_timing=True)
            started.record(self.copy_stream)
            for name in self.formats:
                slot.host[name][part].copy_(slot.staging[name][part], non_blocking=True)
            slot.host_nan[part].copy_(slot.staging_nan[part], non_blocking=True)
            copied.record(self.copy_stream)
        copied.synchronize()
        return started, copied

    def close(self) -> None:
        # A transfer that failed half-way may still be writing to the host memory.
        self.copy_stream.synchronize()
        super().close()


def fitting_chunk_frames(
    clip: Clip, formats: Iterable[PixelFormat], *, depth: int, asked: int, free: int | None
) -> int:
    """How many frames a slot may hold so that the ring stays small beside what the machine has.

    Args:
        clip: geometry of a frame.
        formats: pixel formats that travel side by side.
        depth: slots of the ring.
        asked: the chunk size that was asked for, in frames; never exceeded.
        free: free device memory in bytes, ``None`` where the ring takes none.

    Returns:
        Frames a slot, at least 1.
    """
    frame_bytes = sum(clip.frame_bytes(name) for name in formats) * depth
    budget = MAX_HOST_BYTES if free is None else min(MAX_HOST_BYTES, int(free * MAX_DEVICE_SHARE))
    return max(1, min(asked, budget // frame_bytes))


def ring_bytes(clip: Clip, formats: Iterable[PixelFormat], *, depth: int, chunk_frames: int) -> int:
    """About how many bytes of device memory a ring would take, never more than its limits allow."""
    frame_bytes = sum(clip.frame_bytes(name) for name in formats)
    return min(MAX_HOST_BYTES, frame_bytes * depth * chunk_frames)


def free_device_bytes(device: torch.device) -> int | None:
    """Memory that could be allocated on ``device``, in bytes; ``None`` where rings hold no device memory."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds back without using it can be had as well.
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def make_ring(
    clip: Clip, formats: Iterable[PixelFormat], *, depth: int, chunk_frames: int, device: torch.device
) -> Ring:
    """The ring for ``device``."""
    if device.type == "cuda":
        return CudaRing(clip, formats, depth=depth, chunk_frames=chunk_frames, device=device)
    return SyncRing(clip, formats, depth=depth, chunk_frames=chunk_frames)


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
