"""The processor's cores: how many this process may use, and how many of them had nothing to do of late."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path

try:
    import psutil
except ImportError:
    psutil = None

#: Looks that follow each other faster than this would see the ticks of the system's own clocks, in seconds.
LOOK_INTERVAL = 0.25


def usable_cores() -> int:
    """Cores that this process may run on: its affinity, and what a container's quota allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


class Cores:
    """Watches the cores from its construction on; from one thread at a time.

    Attributes:
        count: how many this process may use.
    """

    def __init__(self) -> None:
        self.count = usable_cores()
        self._looked = time.monotonic()
        self._ours = time.process_time()
        self._idle = _idle_seconds()

    def idle(self) -> float | None:
        """How many of them had nothing to do since the last look, on average.

        Other programs count where psutil, which ComfyUI brings, tells what they use.

        Returns:
            From 0 to ``count``, or ``None`` if the last look was less than ``LOOK_INTERVAL`` ago: then it still counts.
        """
        now = time.monotonic()
        passed = now - self._looked
        if passed < LOOK_INTERVAL:
            return None
        ours, idle = time.process_time(), _idle_seconds()
        # A quota is not seen in the system's figures, so that what this process leaves of it counts as well.
        free = self.count - (ours - self._ours) / passed
        if idle is not None and self._idle is not None:
            free = min(free, (idle - self._idle) / passed)
        self._looked, self._ours, self._idle = now, ours, idle
        return min(max(0.0, free), float(self.count))


def _idle_seconds() -> float | None:
    """Time that the cores which this process may run on have been idle since the system's start, all of them together.

    ``None`` where nobody tells: without psutil, and in sandboxes that show nothing but zeros.
    """
    if psutil is None:
        return None
    with suppress(OSError, psutil.Error):
        times = psutil.cpu_times(percpu=True)
        ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
        # Waiting for a disk is no work.
        return sum(core.idle + getattr(core, "iowait", 0.0) for n, core in enumerate(times) if n in ours) or None
    return None
