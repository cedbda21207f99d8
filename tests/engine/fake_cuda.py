"""Streams and events of several CUDA devices without a GPU: they write down what is done with them, and refuse what
CUDA refuses, such as an event of one device on a stream of another."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch


class Event:
    """Belongs to the device of the stream on which it is first recorded."""

    def __init__(self, cuda: FakeCuda, **options: bool) -> None:
        self.cuda, self.options = cuda, options
        self.device: int | None = None
        self.at = 0

    def record(self, stream: Stream | None = None) -> None:
        stream = self.cuda.current_stream() if stream is None else stream
        if self.device not in (None, stream.index):
            raise RuntimeError("CUDA error: invalid resource handle")
        self.device = stream.index
        self.at = self.cuda.tick()
        self.cuda.calls.append(("record", self, stream))

    def synchronize(self) -> None:
        self.cuda.calls.append(("synchronize", self))

    def elapsed_time(self, other: Event) -> float:
        if None in (self.device, other.device) or self.device != other.device:
            raise RuntimeError("CUDA error: invalid resource handle")
        return float(other.at - self.at)


class Stream:
    def __init__(self, cuda: FakeCuda, index: int) -> None:
        self.cuda, self.index = cuda, index

    def wait_event(self, event: Event) -> None:
        self.cuda.calls.append(("wait", self, event))

    def synchronize(self) -> None:
        self.cuda.calls.append(("drain", self))


class FakeCuda:
    """Stands for ``torch.cuda`` on a machine with several devices, of which number 0 is the current one.

    Attributes:
        calls: what was done, in order.
        pinned_on: the devices that were current when memory was pinned.
    """

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.pinned_on: list[int] = []
        self._threads = threading.local()
        self._streams = {index: Stream(self, index) for index in range(4)}
        self._time = 0

    @property
    def _current(self) -> int:
        """The number of the calling thread's current device."""
        return getattr(self._threads, "current", 0)

    @_current.setter
    def _current(self, index: int) -> None:
        self._threads.current = index

    def tick(self) -> int:
        self._time += 1
        return self._time

    def current_stream(self, device: Any = None) -> Stream:
        return self._streams[self._current if device is None else self._index(device)]

    def new_stream(self, device: Any = None) -> Stream:
        return Stream(self, self._current if device is None else self._index(device))

    @contextlib.contextmanager
    def device(self, device: Any) -> Iterator[None]:
        before, self._current = self._current, self._index(device)
        try:
            yield
        finally:
            self._current = before

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        with self.device(stream.index):
            before, self._streams[stream.index] = self._streams[stream.index], stream
            try:
                yield
            finally:
                self._streams[stream.index] = before

    def current_device(self) -> int:
        return self._current

    def _index(self, device: Any) -> int:
        index = device if isinstance(device, int) else torch.device(device).index
        return self._current if index is None else index

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
        """Take the place of ``torch.cuda`` for streams, events and current devices; tensors stay on the host."""
        monkeypatch.setattr(torch.cuda, "Stream", self.new_stream)
        monkeypatch.setattr(torch.cuda, "Event", lambda **options: Event(self, **options))
        for name in ("current_stream", "current_device", "device", "stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(self, "_current", self._index(device)))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
        for name in ("memory_reserved", "memory_allocated"):
            monkeypatch.setattr(torch.cuda, name, lambda device: 0)
        empty = torch.empty

        def empty_on_host(*size: Any, device: Any = None, pin_memory: bool = False, **rest: Any) -> torch.Tensor:
            if pin_memory:
                self.pinned_on.append(self._current)
            return empty(*size, **rest)

        monkeypatch.setattr(torch, "empty", empty_on_host)
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: True)
        return self


class OnDevice(torch.Tensor):
    """A tensor in host memory that says it is on ``cuda:1``."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 1)


def on_device(frames: torch.Tensor) -> torch.Tensor:
    """``frames`` as a piece of ``cuda:1``."""
    return frames.as_subclass(OnDevice)
