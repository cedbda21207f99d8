"""Rows of intervals are cut where nothing happened for longest: what the report, the live view and the picture use."""

from __future__ import annotations

import pytest

from async_decode.report.intervals import Interval, parts

#: Gaps of 2, 7, 1 and 7.
ROW = [(0, 3), (5, 8), (15, 20), (21, 23), (30, 31)]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [ROW]),
        (2, [ROW[:2], ROW[2:]]),
        (3, [ROW[:2], ROW[2:4], ROW[4:]]),
        (4, [ROW[:1], ROW[1:2], ROW[2:4], ROW[4:]]),
        (5, [[interval] for interval in ROW]),
        (9, [[interval] for interval in ROW]),
    ],
)
def test_a_row_is_cut_where_its_gaps_are_longest(count: int, expected: list[list[Interval]]) -> None:
    assert [ROW[part] for part in parts(ROW, count)] == expected


def test_neighbours_that_overlap_stay_together_before_those_that_touch() -> None:
    row = [(0, 10), (8, 12), (12, 14)]
    assert [row[part] for part in parts(row, 2)] == [row[:2], row[2:]]


def test_an_empty_row_has_no_parts_and_no_parts_are_no_count() -> None:
    assert parts([], 3) == []
    with pytest.raises(ValueError, match="expected a count of at least 1, got 0"):
        parts(ROW, 0)
