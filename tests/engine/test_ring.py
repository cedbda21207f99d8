"""The ring: how much memory it takes, how it is carved, and the order of its stream calls (recorded, without a GPU)."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from async_decode import Clip, PixelFormat
from async_decode.device.ring import MAX_HOST_BYTES, Chunk, CudaRing, SyncRing, fitting_chunk_frames, ring_bytes

CLIP = Clip(height=5, width=7, channels=3, frames=20)
BOTH = [PixelFormat.FLOAT32, PixelFormat.UINT8]


def test_slots_are_disjoint_parts_of_one_block() -> None:
    ring = SyncRing(CLIP, BOTH, depth=3, chunk_frames=2)

    tensors = [tensor for slot in ring.slots for tensor in (*slot.host.values(), slot.host_nan)]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    for value, tensor in enumerate(tensors):
        tensor.fill_(bool(value % 2) if tensor.dtype == torch.bool else value)
    for value, tensor in enumerate(tensors):
        assert (tensor == (bool(value % 2) if tensor.dtype == torch.bool else value)).all()
    assert [tuple(tensor.shape) for tensor in tensors[:3]] == [(2, 5, 7, 3), (2, 5, 7, 3), (2,)]


@pytest.mark.parametrize(
    "asked, free, expected",
    [
        (4, None, 4),
        (10_000, None, MAX_HOST_BYTES // (CLIP.frame_bytes(PixelFormat.FLOAT32) * 3)),
        (64, 100_000, 100_000 // 10 // (CLIP.frame_bytes(PixelFormat.FLOAT32) * 3)),
        (64, 0, 1),
    ],
)
def test_a_ring_stays_small_beside_what_the_machine_has(asked: int, free: int | None, expected: int) -> None:
    frames = fitting_chunk_frames(CLIP, [PixelFormat.FLOAT32], depth=3, asked=asked, free=free)
    # 10_000 frames of this size would fit into the limit: the question is never exceeded.
    assert frames == min(asked, expected)


def test_large_frames_travel_in_smaller_parts() -> None:
    big = Clip(height=2160, width=3840, channels=3)
    frames = fitting_chunk_frames(big, BOTH, depth=3, asked=64, free=None)
    size = 3 * frames * (big.frame_bytes(PixelFormat.FLOAT32) + big.frame_bytes(PixelFormat.UINT8))
    assert 1 <= frames < 64 and size <= MAX_HOST_BYTES
    assert ring_bytes(big, BOTH, depth=3, chunk_frames=64) == MAX_HOST_BYTES


class _Event:
    """Stands for torch.cuda.Event, which cannot be made without a GPU; writes its calls into one list."""

    def __init__(self, calls: list[Any], **options: bool) -> None:
        self.calls, self.options = calls, options

    def record(self, stream: Any = None) -> None:
        self.calls.append(("record", self, stream))

    def synchronize(self) -> None:
        self.calls.append(("synchronize", self))


class _Stream:
    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def wait_event(self, event: _Event) -> None:
        self.calls.append(("wait", self, event))

    def synchronize(self) -> None:
        self.calls.append(("drain", self))


class _Memory:
    """Stands for a tensor: a slice copies by noting who copied to whom."""

    def __init__(self, calls: list[Any], name: str) -> None:
        self.calls, self.name = calls, name

    def __getitem__(self, part: slice) -> _Memory:
        return _Memory(self.calls, f"{self.name}[:{part.stop}]")

    def copy_(self, other: _Memory, *, non_blocking: bool) -> None:
        assert non_blocking
        self.calls.append(("copy", other.name, self.name))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[CudaRing, list[Any], _Stream]:
    """A CudaRing whose streams, events and memory write down what is done with them."""
    calls: list[Any] = []
    compute = _Stream(calls)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _Stream(calls))
    monkeypatch.setattr(torch.cuda, "Event", lambda **options: _Event(calls, **options))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(CudaRing, "_pinned_block", lambda self: torch.empty(self._block_bytes(), dtype=torch.uint8))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, device=None, **rest: empty(*size, **rest))
    ring = CudaRing(CLIP, [PixelFormat.UINT8], depth=2, chunk_frames=4, device=torch.device("cuda"))
    for slot in ring.slots:
        slot.staging = {PixelFormat.UINT8: _Memory(calls, f"staging{slot.index}")}  # type: ignore[dict-item]
        slot.host = {PixelFormat.UINT8: _Memory(calls, f"host{slot.index}")}  # type: ignore[dict-item]
        slot.staging_nan = _Memory(calls, f"staging_nan{slot.index}")  # type: ignore[assignment]
        slot.host_nan = _Memory(calls, f"host_nan{slot.index}")  # type: ignore[assignment]
    return ring, calls, compute


def test_the_copy_stream_waits_for_the_decoder_and_the_host_for_the_copy(recorded: Any) -> None:
    ring, calls, compute = recorded
    chunk = Chunk(ring.slots[1], index=5, first_index=20, frames=3)

    ring.record_filled(chunk)
    started, copied = ring.transfer(chunk)

    decoded = ring._decoded[1]
    assert calls == [
        ("record", decoded, compute),
        ("wait", ring.copy_stream, decoded),
        ("record", started, ring.copy_stream),
        ("copy", "staging1[:3]", "host1[:3]"),
        ("copy", "staging_nan1[:3]", "host_nan1[:3]"),
        ("record", copied, ring.copy_stream),
        ("synchronize", copied),
    ]
    assert copied is ring._copied[1]


def test_waiting_for_a_copy_sleeps(recorded: Any) -> None:
    ring, _, _ = recorded
    assert all(event.options["blocking"] for event in (*ring._decoded, *ring._copied))


def test_closing_drains_the_copy_stream_before_the_memory_goes(recorded: Any) -> None:
    ring, calls, _ = recorded
    slots = ring.slots
    ring.close()
    assert calls[-1] == ("drain", ring.copy_stream)
    assert not slots


def test_memory_that_cannot_be_pinned_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = SyncRing(CLIP, BOTH, depth=2, chunk_frames=2)
    empty = torch.empty

    def refuse(*size: int, pin_memory: bool = False, **rest: Any) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory\nmore lines")
        return empty(*size, **rest)

    monkeypatch.setattr(torch, "empty", refuse)
    block = CudaRing._pinned_block(ring)  # type: ignore[arg-type]
    assert ring.pinned is False and block.nbytes == ring._block_bytes()
    assert "could not be pinned (CUDA error: out of memory)" in ring.warnings[0]
