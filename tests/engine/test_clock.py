"""Clocks: marks on the device that works, whichever is the current one, and none before its work is done."""

from __future__ import annotations

import types

import pytest
import torch

from async_decode.device.clock import CudaClock, HostClock, clock_for, current_device, with_index
from tests.engine.fake_cuda import FakeCuda


def test_marks_belong_to_the_clocks_device_though_another_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    clock = clock_for(torch.device("cuda", 2))
    assert isinstance(clock, CudaClock)

    first, second = clock.mark(), clock.mark()

    assert {event.device for kind, event, *_ in cuda.calls if kind == "record"} == {2}  # type: ignore[attr-defined]
    assert clock.resolve(second) - clock.resolve(first) == 1_000_000


def test_marks_are_on_the_stream_that_is_current_when_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)
    clock = CudaClock(torch.device("cuda", 1))
    side = torch.cuda.Stream(torch.device("cuda", 1))

    with torch.cuda.stream(side):
        clock.mark()

    assert cuda.calls[-1][2] is side


def test_the_current_device_is_what_it_was_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda().install(monkeypatch)

    with current_device(torch.device("cuda", 3)):
        assert cuda.current_device() == 3
        assert with_index(torch.device("cuda")) == torch.device("cuda", 3)

    assert cuda.current_device() == 0


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_a_mark_waits_for_a_device_with_a_queue(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a piece is made while somebody finishes it, and decoding counts as finishing."""
    waits: list[tuple[object, ...]] = []
    module = types.SimpleNamespace(synchronize=lambda *arguments: waits.append(arguments))
    monkeypatch.setattr(torch, kind, module)
    clock = clock_for(torch.device(kind, 0))

    clock.mark()

    assert isinstance(clock, HostClock)
    assert waits == [() if kind == "mps" else (torch.device("xpu", 0),)]


def test_the_host_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "synchronize", lambda *_: pytest.fail("nothing to wait for"))

    clock = clock_for(torch.device("cpu"))

    assert clock.resolve(clock.mark()) <= clock.resolve(clock.mark())
