"""How long work takes on a device; and which device is the current one, where there is such a thing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch


class Stopwatch:
    """Started now, on the current stream of ``device``."""

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._began: Any = self._mark()
        self._ended: Any = None

    def _mark(self) -> Any:
        if not self._on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stop(self) -> None:
        """The work that counts has been queued."""
        self._ended = self._mark()

    @property
    def milliseconds(self) -> float:
        """From the start to ``stop``; waits for the device."""
        if not self._on_device:
            return float(self._ended - self._began) * 1e3
        self._ended.synchronize()
        return float(self._began.elapsed_time(self._ended))


def best_of_two(device: torch.device, call: Callable[[], Any]) -> float:
    """Milliseconds that ``call`` takes on ``device``."""
    times = []
    for _ in range(2):
        watch = Stopwatch(device)
        call()
        watch.stop()
        times.append(watch.milliseconds)
    return min(times)


def current(device: torch.device) -> AbstractContextManager[Any]:
    """``device`` as the current one: kernels are started on that, whatever their tensors are on."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
