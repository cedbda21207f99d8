"""Freed memory goes back to the system, and giving it back takes a small part of the time."""

from __future__ import annotations

import pytest

from async_decode.device import heap
from async_decode.device.heap import HeapTrim


def test_it_takes_two_hundredths_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, trims = 0.0, []

    def trim(keep: int) -> int:
        nonlocal now
        trims.append((round(now, 3), keep))
        now += 0.01
        return 1

    monkeypatch.setattr(heap, "_malloc_trim", lambda: trim)
    monkeypatch.setattr(heap.time, "monotonic", lambda: now)
    given = HeapTrim()
    for _ in range(2000):
        now += 0.001
        given.now_and_then()

    assert [keep for _, keep in trims] == [0] * len(trims)
    assert 3 <= len(trims) <= 5, trims


def test_where_the_c_library_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "win32")
    given = HeapTrim()
    given._next = 0.0

    given.now_and_then()

    assert given._next == 0.0
