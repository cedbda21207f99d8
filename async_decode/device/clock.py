"""Clocks: when something happened on the device, told in the host's nanoseconds.

A mark is taken without waiting and resolved later, when the device has surely passed it.
"""

from __future__ import annotations

from typing import Protocol

import torch

from ..spans import Recorder

#: Something that a clock took and can resolve: an event on a device, or nanoseconds on the host.
Mark = torch.cuda.Event | int


class Clock(Protocol):
    """Takes marks in the order of the work and resolves them to nanoseconds of ``time.perf_counter_ns``."""

    def mark(self) -> Mark:
        """Mark this point of the calling thread's current stream."""

    def resolve(self, mark: Mark) -> int:
        """Nanoseconds at which ``mark`` was passed; the device must have passed it."""


class HostClock:
    """For devices that are followed synchronously: a mark is the host's time."""

    def mark(self) -> int:
        return Recorder.now()

    def resolve(self, mark: Mark) -> int:
        if not isinstance(mark, int):
            raise TypeError(f"expected a host mark (int), got {mark!r}")
        return mark


class CudaClock:
    """For CUDA and ROCm: a mark is a timing event; one synchronised event at the start ties it to the host's clock."""

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self._start = torch.cuda.Event(enable_timing=True)
            self._start.record()
            self._start.synchronize()
        self._start_ns = Recorder.now()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def resolve(self, mark: Mark) -> int:
        if isinstance(mark, int):
            raise TypeError(f"expected a device mark (event), got {mark!r}")
        # elapsed_time is in milliseconds.
        return self._start_ns + int(self._start.elapsed_time(mark) * 1e6)


def clock_for(device: torch.device) -> Clock:
    """The clock that follows work on ``device``."""
    return CudaClock(device) if device.type == "cuda" else HostClock()
