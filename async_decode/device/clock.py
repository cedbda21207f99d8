"""Clocks: when something happened on the device, told in the host's nanoseconds.

A mark is taken without waiting and resolved later, when the device has surely passed it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
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
    """For devices that are followed synchronously: a mark is the host's time.

    Args:
        wait: waits until the device has done what it was given; ``None``: it works while it is called. Default None.
    """

    def __init__(self, wait: Callable[[], None] | None = None) -> None:
        self._wait = wait

    def mark(self) -> int:
        # Else the time that a piece takes would be counted where somebody first needs its values.
        if self._wait is not None:
            self._wait()
        return Recorder.now()

    def resolve(self, mark: Mark) -> int:
        if not isinstance(mark, int):
            raise TypeError(f"expected a host mark (int), got {mark!r}")
        return mark


class CudaClock:
    """For CUDA and ROCm: a mark is a timing event; one synchronised event at the start ties it to the host's clock.

    Args:
        device: with its number; marks are those of its streams, whichever device is the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self.mark()
        self._start.synchronize()
        self._start_ns = Recorder.now()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        # Without a stream it would be that of the thread's current device.
        event.record(torch.cuda.current_stream(self._device))
        return event

    def resolve(self, mark: Mark) -> int:
        if isinstance(mark, int):
            raise TypeError(f"expected a device mark (event), got {mark!r}")
        # elapsed_time is in milliseconds.
        return self._start_ns + int(self._start.elapsed_time(mark) * 1e6)


def clock_for(device: torch.device) -> Clock:
    """The clock that follows work on ``device``."""
    if device.type == "cuda":
        return CudaClock(device)
    return HostClock(_wait_for(device))


def current_device(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Make ``device`` the calling thread's current one for a while, where threads have one."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def with_index(device: torch.device) -> torch.device:
    """``device``, with a number where it is a CUDA device: worker threads have to be told which is the current one."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def _wait_for(device: torch.device) -> Callable[[], None] | None:
    """What waits until ``device`` (MPS, XPU and others with a queue) has done its work."""
    wait = getattr(getattr(torch, device.type, None), "synchronize", None)
    if device.type == "cpu" or not callable(wait):
        return None
    # MPS has one device, and its function takes none.
    return wait if device.type == "mps" else functools.partial(wait, device)
