"""Arithmetic of stretches of time, on which the report stands.

An interval is half-open, ``[start, end)``, in whole nanoseconds. A *set* of intervals is a list in order of time whose
members neither touch nor overlap: what ``union`` returns and the others expect and return.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

#: Start and end in nanoseconds.
Interval = tuple[int, int]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """The set of every moment that is in at least one of ``intervals``, which may come in any order and overlap.

    An interval that ends at or before its start holds no moment.
    """
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


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
    gaps = sorted(range(1, len(intervals)), key=lambda i: intervals[i - 1][1] - intervals[i][0])
    cuts = [0, *sorted(gaps[: count - 1]), len(intervals)]
    return [slice(a, b) for a, b in pairwise(cuts)] if intervals else []
