"""The ring: how much memory it takes, how it is carved, and the order of its stream calls (recorded, without a GPU)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from async_decode import Clip, FinishedFrames, FramePipeline, PixelFormat
from async_decode.device.ring import MAX_HOST_BYTES, Chunk, CudaRing, SyncRing, plan_ring
from tests.engine.fake_cuda import FakeCuda, Stream
from tests.engine.toy import CollectSink

CLIP = Clip(height=5, width=7, channels=3, frames=20)
BOTH = [PixelFormat.FLOAT32, PixelFormat.UINT8]


def test_slots_are_disjoint_parts_of_one_block() -> None:
    ring = SyncRing(CLIP, BOTH, plan_ring(CLIP, BOTH, depth=3, chunk_frames=2))

    tensors = [tensor for slot in ring.slots for tensor in (*slot.host.values(), slot.host_nan)]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    for value, tensor in enumerate(tensors):
        tensor.fill_(bool(value % 2) if tensor.dtype == torch.bool else value)
    for value, tensor in enumerate(tensors):
        assert (tensor == (bool(value % 2) if tensor.dtype == torch.bool else value)).all()
    assert [tuple(tensor.shape) for tensor in tensors[:3]] == [(2, 5, 7, 3), (2, 5, 7, 3), (2,)]


EIGHT_K = Clip(height=4320, width=7680, channels=3)


@pytest.mark.parametrize(
    "clip, asked, free, expected",
    [
        (CLIP, (3, 4), None, (3, 4)),
        # A clip shorter than a slot needs no more than its frames.
        (CLIP, (3, 64), None, (3, 20)),
        # A tenth of the free memory of the device: ten blocks of 512 bytes, of which a frame and its flag need two.
        (CLIP, (3, 64), 56_000, (3, 2)),
        (CLIP, (64, 64), 56_000, (5, 1)),
        (CLIP, (64, 64), 0, (2, 1)),
        (CLIP, (1, 64), 0, (1, 1)),
        (EIGHT_K, (3, 4), None, (2, 1)),
        (EIGHT_K, (64, 4), None, (2, 1)),
        (Clip(height=2160, width=3840, channels=3), (64, 4), None, (10, 1)),
    ],
)
def test_a_ring_stays_small_beside_what_the_machine_has(
    clip: Clip, asked: tuple[int, int], free: int | None, expected: tuple[int, int]
) -> None:
    plan = plan_ring(clip, [PixelFormat.FLOAT32], depth=asked[0], chunk_frames=asked[1], free=free)

    assert (plan.depth, plan.chunk_frames) == expected


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 9000),
    depth=st.integers(1, 64),
    chunk=st.integers(1, 4096),
    free=st.none() | st.integers(0, 1 << 36),
)
def test_a_ring_is_never_larger_than_its_limit_if_it_can_be_smaller(
    height: int, width: int, depth: int, chunk: int, free: int | None
) -> None:
    clip = Clip(height=height, width=width, channels=3)

    plan = plan_ring(clip, BOTH, depth=depth, chunk_frames=chunk, free=free)

    budget = MAX_HOST_BYTES if free is None else min(MAX_HOST_BYTES, free // 10)
    assert 1 <= plan.chunk_frames <= chunk and min(depth, 2) <= plan.depth <= depth
    assert plan.bytes <= budget or (plan.depth, plan.chunk_frames) == (min(depth, 2), 1)
    # No smaller than it has to be.
    if (plan.depth, plan.chunk_frames) != (depth, chunk):
        assert plan.bytes + plan.bytes // plan.depth + plan.bytes // plan.chunk_frames + 2048 * plan.depth > budget


@pytest.mark.parametrize("formats", [BOTH, [PixelFormat.UINT8], [PixelFormat.YUV420_10]])
def test_the_plan_tells_the_bytes_that_the_ring_takes(formats: list[PixelFormat]) -> None:
    plan = plan_ring(CLIP, formats, depth=5, chunk_frames=3)

    ring = SyncRing(CLIP, formats, plan)

    assert ring.host_bytes == plan.bytes


@pytest.mark.parametrize(
    ("frames", "backlog", "host_depth"),
    [
        (None, 0, 3),
        # A slot of two frames takes a block of 512 bytes for each, two more for the first's rest, and its flags.
        (None, 2_000, 3 + 2_000 // 1_536),
        (None, 1 << 20, 3 + (1 << 20) // 1_536),
        # No more than the clip's chunks.
        (20, 1 << 20, 10),
        (4, 1 << 20, 3),
    ],
)
def test_a_backlog_is_room_on_the_host_alone(frames: int | None, backlog: int, host_depth: int) -> None:
    clip = Clip(height=5, width=7, channels=3, frames=frames)

    plan = plan_ring(clip, [PixelFormat.FLOAT32], depth=3, chunk_frames=2, backlog=backlog)

    assert (plan.depth, plan.chunk_frames, plan.host_depth) == (3, 2, host_depth)
    assert plan.bytes == 3 * 1_536 and plan.host_bytes == host_depth * 1_536


def test_the_report_tells_the_ring_that_was_made_and_why_it_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("async_decode.device.ring.MAX_HOST_BYTES", 10_000)
    sink = CollectSink()

    with FramePipeline([sink], chunk_size=4, buffer_depth=64, finish=FinishedFrames()) as pipeline:
        pipeline.submit(torch.rand(40, 8, 8, 3))

    report = pipeline.report
    assert (report.buffer_depth, report.chunk_frames, report.chunk_size) == (6, 1, 4)
    assert report.ring_bytes_host <= 10_000
    assert [warning for warning in report.warnings if "64 slots of 4 frames" in warning and "6 of 1" in warning]
    assert len(sink.frames) == 40


def test_a_ring_that_was_closed_holds_no_memory_though_somebody_knows_its_chunks() -> None:
    ring = SyncRing(CLIP, BOTH, plan_ring(CLIP, BOTH, depth=2, chunk_frames=2))
    chunk = Chunk(ring.slots[0], 0, 0)

    ring.close()

    assert not chunk.slot.host and not chunk.slot.staging and chunk.slot.host_nan.numel() == 0


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
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[CudaRing, list[Any], Stream]:
    """A CudaRing on a device that is not the current one, whose memory writes down what is done with it."""
    cuda = FakeCuda().install(monkeypatch)
    ring = CudaRing(
        CLIP,
        [PixelFormat.UINT8],
        plan_ring(CLIP, [PixelFormat.UINT8], depth=2, chunk_frames=4),
        torch.device("cuda", 1),
        [],
    )
    assert cuda.pinned_on == [], "memory on the host is pinned when it is first copied to"
    for slot in ring.slots:
        slot.staging = {PixelFormat.UINT8: _Memory(cuda.calls, f"staging{slot.index}")}  # type: ignore[dict-item]
        slot.host = {PixelFormat.UINT8: _Memory(cuda.calls, f"host{slot.index}")}  # type: ignore[dict-item]
        slot.staging_nan = _Memory(cuda.calls, f"staging_nan{slot.index}")  # type: ignore[assignment]
        slot.host_nan = _Memory(cuda.calls, f"host_nan{slot.index}")  # type: ignore[assignment]
    return ring, cuda.calls, cuda.current_stream(1)


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


def test_slots_of_a_backlog_share_the_places_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    formats = [PixelFormat.UINT8]

    plan = plan_ring(CLIP, formats, depth=2, chunk_frames=4, backlog=1 << 20)
    ring = CudaRing(CLIP, formats, plan, torch.device("cuda", 1), [])

    assert [slot.place for slot in ring.slots] == [0, 1, 0, 1, 0]
    assert len({slot.staging[formats[0]].data_ptr() for slot in ring.slots}) == 2
    for index, slot in enumerate(ring.slots):
        ring.transfer(Chunk(slot, index=index, first_index=4 * index, frames=4))
        assert cuda.pinned_on == [1] * (index + 1)
    assert len({slot.host[formats[0]].data_ptr() for slot in ring.slots}) == 5 and ring.pinned is True
    chunk = Chunk(ring.slots[3], index=3, first_index=12, frames=4)
    cuda.calls.clear()
    ring.record_filled(chunk)
    ring.transfer(chunk)
    # What the copy waits for is the place's event; what the host waits for is the slot's own.
    assert ("wait", ring.copy_stream, ring._decoded[1]) in cuda.calls
    assert cuda.calls[-1] == ("synchronize", ring._copied[3])


def test_waiting_for_a_copy_sleeps(recorded: Any) -> None:
    ring, _, _ = recorded
    assert all(event.options["blocking"] for event in (*ring._decoded, *ring._copied))


def test_closing_drains_the_copy_stream_before_the_memory_goes(recorded: Any) -> None:
    ring, calls, _ = recorded
    slots = ring.slots
    ring.close()
    assert calls[-1] == ("drain", ring.copy_stream)
    assert not slots


def test_memory_that_cannot_be_pinned_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda().install(monkeypatch)
    empty, asked, warnings = torch.empty, [], []
    ring = CudaRing(CLIP, BOTH, plan_ring(CLIP, BOTH, depth=2, chunk_frames=2), torch.device("cuda", 1), warnings)

    def refuse(*size: int, pin_memory: bool = False, **rest: Any) -> torch.Tensor:
        if pin_memory:
            asked.append(size)
            raise RuntimeError("CUDA error: out of memory\nmore lines")
        return empty(*size, **rest)

    monkeypatch.setattr(torch, "empty", refuse)
    for slot in ring.slots:
        for staging in slot.staging.values():
            staging.fill_(slot.index + 1)
        chunk = Chunk(slot, index=slot.index, first_index=2 * slot.index, frames=2)
        ring.transfer(chunk)
        assert all((chunk.on_host(name) == slot.index + 1).all() for name in BOTH)

    assert ring.pinned is False and len(asked) == 1
    assert len(warnings) == 1 and "could not be pinned (CUDA error: out of memory)" in warnings[0]
