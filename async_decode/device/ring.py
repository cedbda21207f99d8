"""The ring: the only memory through which frames travel, allocated once, and the stream protocol that guards it.

The protocol of one slot on CUDA and ROCm (two events):

1. compute stream: fill ``staging``, record ``decoded``;
2. copy stream: wait for ``decoded``, copy ``staging`` to ``host``, record ``copied``;
3. host: wait for ``copied`` asleep; from then on ``staging`` may be filled again, even while sinks still read ``host``;
4. sinks read ``host``; when the last is done with it, ``host`` may be copied to again.

``host`` is pinned slot by slot when it is first copied to: while memory is pinned, CUDA launches no kernel of any
thread, and for all slots at once that takes longer than the device has work for.

Elsewhere (CPU, MPS, XPU) filling a slot copies synchronously into ``host``, which is its own staging.

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
from .clock import Mark, current_device

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
        place: number of its staging, which it may share with other slots.
        staging: one tensor ``(chunk_frames, *Clip.frame_shape)`` on the compute device for each pixel format.
        host: their counterparts in host memory; the same tensors in a unified ring. On CUDA empty until the first copy.
        staging_nan: ``(chunk_frames,)`` bool, which frames hold a NaN; ``host_nan`` its counterpart.
    """

    index: int
    place: int
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
    """``host_depth`` slots of ``chunk_frames`` frames each, which share ``depth`` places on the device.

    Attributes:
        slots: the slots.
        unified: staging and host are the same memory, so a slot is free only when the sinks are done with it.
        pinned: the host memory is page-locked; ``None`` where that has no meaning, and before the first copy.
        device_bytes: device memory that the ring holds; ``host_bytes``: host memory that it holds at most.
    """

    unified: bool
    pinned: bool | None
    device_bytes: int

    def __init__(self, clip: Clip, formats: Iterable[PixelFormat], plan: RingPlan) -> None:
        self.clip = clip
        self.formats = tuple(formats)
        self.depth = plan.depth
        self.host_depth = plan.host_depth
        self.chunk_frames = plan.chunk_frames
        self.slots: list[Slot] = []
        self.host_bytes = self._block_bytes(self.host_depth)

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
        for slot in self.slots:
            # Somebody may still know the slot, as after an error.
            slot.staging, slot.host = {}, {}
            slot.staging_nan = slot.host_nan = _no_flags()
        self.slots.clear()

    def _carve(self, block: Tensor, count: int) -> list[tuple[dict[PixelFormat, Tensor], Tensor]]:
        """Cut a block of bytes into the frames and the NaN flags of ``count`` slots."""
        parts = []
        offset = 0
        for _ in range(count):
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

    def _block_bytes(self, count: int) -> int:
        return count * _slot_bytes(self.clip, self.formats, self.chunk_frames)


class SyncRing(Ring):
    """For every device without streams that can be relied on: filling a slot is a synchronous copy to the host."""

    unified = True
    pinned = None
    device_bytes = 0

    def __init__(self, clip: Clip, formats: Iterable[PixelFormat], plan: RingPlan) -> None:
        super().__init__(clip, formats, plan)
        block = torch.empty(self.host_bytes, dtype=torch.uint8)
        for index, (tensors, flags) in enumerate(self._carve(block, self.host_depth)):
            self.slots.append(Slot(index, index, tensors, tensors, flags, flags))

    def record_filled(self, chunk: Chunk) -> None:
        pass

    def transfer(self, chunk: Chunk) -> None:
        return None


class CudaRing(Ring):
    """For CUDA and ROCm: a copy stream, pinned host memory, an event for each place and one for each slot."""

    unified = False
    pinned = None

    def __init__(
        self,
        clip: Clip,
        formats: Iterable[PixelFormat],
        plan: RingPlan,
        device: torch.device,
        warnings: list[str],
    ) -> None:
        super().__init__(clip, formats, plan)
        self.device = device
        self._warnings = warnings
        self.copy_stream = torch.cuda.Stream(device)
        staging_block = torch.empty(self._block_bytes(self.depth), dtype=torch.uint8, device=device)
        self.device_bytes = staging_block.nbytes
        # blocking: a waiting thread sleeps instead of spinning on a core that a writer could use.
        self._decoded = [torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(self.depth)]
        self._copied = [torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(self.host_depth)]
        places = self._carve(staging_block, self.depth)
        for index in range(self.host_depth):
            staging, staging_nan = places[index % self.depth]
            self.slots.append(Slot(index, index % self.depth, staging, {}, staging_nan, _no_flags()))

    def _get_host(self, slot: Slot) -> None:
        size = self._block_bytes(1)
        # Else memory is pinned by way of the current device, which may be one that nobody uses.
        with current_device(self.device):
            block = self._pinned_block(size) if self.pinned is not False else torch.empty(size, dtype=torch.uint8)
        ((slot.host, slot.host_nan),) = self._carve(block, 1)

    def _pinned_block(self, size: int) -> Tensor:
        """``(size,)`` bytes; pageable where there is no memory that can be pinned."""
        try:
            block = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
        else:
            if block.is_pinned():
                self.pinned = True
                return block
            reason = "the allocator returned pageable memory"
        self.pinned = False
        self._warnings.append(
            f"{size / 2**20:.0f} MiB of host memory could not be pinned ({reason}): copies to the host wait for the "
            "device; use a smaller chunk_size or buffer_depth"
        )
        return torch.empty(size, dtype=torch.uint8)

    def record_filled(self, chunk: Chunk) -> None:
        self._decoded[chunk.slot.place].record(torch.cuda.current_stream(self.device))

    def transfer(self, chunk: Chunk) -> tuple[Mark, Mark]:
        slot, part = chunk.slot, slice(chunk.frames)
        if not slot.host:
            self._get_host(slot)
        copied = self._copied[slot.index]
        with torch.cuda.stream(self.copy_stream):
            self.copy_stream.wait_event(self._decoded[slot.place])
            started = torch.cuda.Event(enable_timing=True)
            started.record(self.copy_stream)
            for name in self.formats:
                slot.host[name][part].copy_(slot.staging[name][part], non_blocking=True)
            slot.host_nan[part].copy_(slot.staging_nan[part], non_blocking=True)
            copied.record(self.copy_stream)
        copied.synchronize()
        return started, copied

    def close(self) -> None:
        try:
            # A transfer that failed half-way may still be writing to the host memory.
            self.copy_stream.synchronize()
        finally:
            super().close()
            _give_back_pinned()


@dataclass(frozen=True)
class RingPlan:
    """How large a ring is.

    Attributes:
        depth: slots that have memory of their own on the device.
        host_depth: slots on the host, at least as many.
        chunk_frames: frames a slot.
        bytes: of the memory that it takes on a device that has memory of its own; ``host_bytes`` on the host.
    """

    depth: int
    host_depth: int
    chunk_frames: int
    bytes: int
    host_bytes: int


def plan_ring(
    clip: Clip,
    formats: Iterable[PixelFormat],
    *,
    depth: int,
    chunk_frames: int,
    free: int | None = None,
    backlog: int = 0,
) -> RingPlan:
    """The largest ring, up to what was asked for, that stays small beside what the machine has.

    First slots get smaller, down to one frame, then there are fewer of them, down to two: less would not be a ring.

    Args:
        clip: geometry of the frames; a clip that is shorter than a slot needs no more than its frames.
        formats: pixel formats that travel side by side.
        depth: slots that were asked for, at least 1.
        chunk_frames: frames a slot that were asked for, at least 1.
        free: free device memory in bytes, ``None`` where the ring takes none or nobody can tell. Default None.
        backlog: host memory for more slots there, in bytes, so that the decoder need not wait for the sinks; a clip
            needs no more than its frames. Default 0.
    """
    names = tuple(formats)
    budget = MAX_HOST_BYTES if free is None else min(MAX_HOST_BYTES, int(free * MAX_DEVICE_SHARE))
    most = max(1, min(chunk_frames, clip.frames or chunk_frames))
    # Slots start at multiples, so that frames cannot just be divided.
    frames = max(1, min(most, budget // (depth * sum(clip.frame_bytes(name) for name in names))))
    while frames > 1 and depth * _slot_bytes(clip, names, frames) > budget:
        frames -= 1
    slot = _slot_bytes(clip, names, frames)
    slots = max(min(depth, 2), min(depth, budget // slot))
    needed = slots if clip.frames is None else max(slots, -(-clip.frames // frames))
    more = backlog // slot if clip.frames is None else min(needed - slots, backlog // slot)
    return RingPlan(slots, slots + more, frames, slots * slot, (slots + more) * slot)


def _slot_bytes(clip: Clip, formats: Iterable[PixelFormat], frames: int) -> int:
    return sum(_align(frames * clip.frame_bytes(name)) for name in formats) + _align(frames)


def free_device_bytes(device: torch.device) -> int | None:
    """Memory that could be allocated on ``device``, in bytes; ``None`` where rings hold no device memory."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    # What torch holds back without using it can be had as well.
    return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def make_ring(
    clip: Clip, formats: Iterable[PixelFormat], plan: RingPlan, device: torch.device, warnings: list[str]
) -> Ring:
    """The ring for ``device``, as large as ``plan`` says; ``warnings`` gets what does not go as asked."""
    if device.type == "cuda":
        return CudaRing(clip, formats, plan, device, warnings)
    return SyncRing(clip, formats, plan)


def is_unified(device: torch.device) -> bool:
    """Whether a ring for ``device`` is host memory that is filled at once, so that there is nothing to be copied."""
    return device.type != "cuda"


def _no_flags() -> Tensor:
    return torch.empty(0, dtype=torch.bool)


def _give_back_pinned() -> None:
    """Have torch return the pinned memory that nobody uses: it would keep a ring's for the rest of the process."""
    give_back = getattr(torch._C, "_host_emptyCache", None) or getattr(torch._C, "_accelerator_emptyHostCache", None)
    if give_back is not None and torch.cuda.is_initialized():
        give_back()


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
