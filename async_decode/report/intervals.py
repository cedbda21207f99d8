"""Arithmetic of stretches of time, on which the report stands.

An interval is half-open, ``[start, end)``, in whole nanoseconds. A *set* of intervals is a list in order of time whose
members neither touch nor overlap.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

#: Start and end in nanoseconds.
Interval = tuple[int, int]


class IntervalSet:
    """Every moment that is in at least one of the intervals that were added, which may come in any order and overlap.

    Adding one that comes after most others takes a few microseconds, however many there are.

    Attributes:
        length: how long the set is, in nanoseconds.
    """

    def __init__(self) -> None:
        self.length = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def intervals(self) -> list[Interval]:
        """The set as a list."""
        return list(zip(self._starts, self._ends, strict=True))

    def until(self, end: int) -> list[Interval]:
        """What of the set is before ``end``."""
        count = bisect_left(self._starts, end)
        before = list(zip(self._starts[:count], self._ends[:count], strict=True))
        if before and before[-1][1] > end:
            before[-1] = (before[-1][0], end)
        return before

    def after(self, start: int) -> list[Interval]:
        """What of the set is not before ``start``."""
        first = bisect_right(self._ends, start)
        return [(max(a, start), b) for a, b in zip(self._starts[first:], self._ends[first:], strict=True)]

    def length_until(self, end: int) -> int:
        """How long the set is before ``end``, in nanoseconds."""
        return self.length - length(self.after(end))

    def last_until(self, end: int) -> int | None:
        """The last moment of the set that is not after ``end``; ``None`` where nothing is before it."""
        count = bisect_left(self._starts, end)
        return min(self._ends[count - 1], end) if count else None

    def add(self, start: int, end: int) -> list[Interval]:
        """Add ``[start, end)``; return the parts of it that were not in the set before.

        An interval that ends at or before its start holds no moment.
        """
        if end <= start:
            return []
        starts, ends = self._starts, self._ends
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            self.length += end - start
            return [(start, end)]
        # Those from first up to last touch or overlap it, and become one with it.
        first, last = bisect_left(ends, start), bisect_right(starts, end)
        new = []
        at = start
        for known_start, known_end in zip(starts[first:last], ends[first:last], strict=True):
            if at < known_start:
                new.append((at, known_start))
            at = max(at, known_end)
        if at < end:
            new.append((at, end))
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last], ends[first:last] = [start], [end]
        self.length += length(new)
        return new

    def covered(self, start: int, end: int) -> int:
        """How much of ``[start, end)`` is in the set, in nanoseconds."""
        starts, ends = self._starts, self._ends
        first = bisect_right(ends, start)
        last = bisect_left(starts, end, lo=first)
        return sum(min(ends[i], end) - max(starts[i], start) for i in range(first, last))


class Overlap:
    """How long two sets have both been, kept up while intervals are added to them.

    Attributes:
        length: in nanoseconds.
    """

    def __init__(self, first: IntervalSet, second: IntervalSet) -> None:
        self.length = 0
        self._first, self._second = first, second

    def add_to_first(self, new: Iterable[Interval]) -> None:
        """Count what ``IntervalSet.add`` returned when it added to the first set."""
        self.length += sum(self._second.covered(*interval) for interval in new)

    def add_to_second(self, new: Iterable[Interval]) -> None:
        """Likewise for the second set."""
        self.length += sum(self._first.covered(*interval) for interval in new)

    def length_until(self, end: int) -> int:
        """How long they have both been before ``end``, in nanoseconds."""
        return self.length - length(intersection(self._first.after(end), self._second.after(end)))


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The set of every moment that is in at least one of ``intervals``, which may come in any order and overlap."""
    merged = IntervalSet()
    for interval in sorted(intervals):
        merged.add(*interval)
    return merged.intervals


def intersection(first: Sequence[Interval], second: Sequence[Interval]) -> list[Interval]:
    """The set of every moment that is in both sets."""
    common: list[Interval] = []
    i = j = 0
    while i < len(first) and j < len(second):
        start, end = max(first[i][0], second[j][0]), min(first[i][1], second[j][1])
        if start < end:
            common.append((start, end))
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1
    return common


def length(intervals: Iterable[Interval]) -> int:
    """How long a set is, in nanoseconds."""
    return sum(end - start for start, end in intervals)


def parts(intervals: Sequence[Interval], count: int) -> list[slice]:
    """Cut a row of intervals, in order of time, into at most ``count`` (at least 1) parts, where the gaps are longest.

    Of gaps of equal length the earlier ones are cut first.
    """
    if count < 1:
        raise ValueError(f"expected a count of at least 1, got {count}")
    gaps = heapq.nsmallest(count - 1, range(1, len(intervals)), key=lambda i: intervals[i - 1][1] - intervals[i][0])
    cuts = [0, *sorted(gaps), len(intervals)]
    return [slice(a, b) for a, b in pairwise(cuts)] if intervals else []
