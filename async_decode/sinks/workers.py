"""Threads of a sink: they run jobs in the order in which those were given, and are gone when the sink says so."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

#: A job gets the lane that its spans belong to. It may not raise: it tells its future or its sink.
Job = Callable[[str], None]


def running_future() -> Future[None]:
    """A future that cannot be cancelled: only the sink knows when it is done with the memory."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


class Workers:
    """Threads that run jobs, first come, first served.

    They are daemons only so that a program that ends without closing its sinks is not kept alive; ``close`` joins
    them.

    Args:
        lane: the name of their lane in the report; with several workers each gets a number behind it.
        count: how many to start with.
        growing: more may be added, so that the first one gets a number, too.
    """

    def __init__(self, lane: str, count: int = 1, *, growing: bool = False) -> None:
        self._lane = lane
        self._numbered = growing or count > 1
        self._jobs: deque[Job] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        for _ in range(count):
            self.add()

    def add(self) -> None:
        """Start one more."""
        number = len(self._threads) + 1
        lane = f"{self._lane} {number}" if self._numbered else self._lane
        thread = threading.Thread(target=self._run, args=(lane,), name=f"async-decode {lane}", daemon=True)
        self._threads.append(thread)
        thread.start()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._threads)

    @property
    def waiting(self) -> int:
        """Jobs that no worker has begun with."""
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        """Have ``job`` run by the next worker that is free.

        Raises:
            RuntimeError: the workers are closed.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError(f"{self._lane}: no jobs are taken after close")
            self._jobs.append(job)
            self._changed.notify()

    def close(self, timeout: float | None = None) -> bool:
        """Take no more jobs, let those that came run, and wait until the threads have ended.

        From any thread, any number of times.

        Args:
            timeout: how long to wait, in seconds; ``None``: as long as it takes.

        Returns:
            Whether all have ended.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self, lane: str) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job(lane)
            # Else it would keep the frames alive until the next one comes.
            del job
