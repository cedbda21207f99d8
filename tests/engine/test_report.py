"""A report's figures, from runs made by hand: shares, stalls, tail, lanes and trace, each known beforehand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_decode import Clip, Decoding
from async_decode.report import Report, RunFacts, SpanTotals, build_report
from async_decode.report.intervals import Interval, IntervalSet, Overlap, intersection, length, union
from async_decode.report.lanes import lanes_of
from async_decode.report.report import stalls
from async_decode.report.totals import MAX_INTERVALS
from async_decode.report.trace import to_chrome_trace
from async_decode.spans import Recorder, Span, Stage

SECOND = 10**9
#: The start of every run, so that a time that is not counted from it shows.
START = 500 * SECOND

#: Stage, start and end in seconds since the run's start, then where it matters: lane, frames, bytes.
Row = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """A run of ten seconds, and what its report has to say; of stages that are not named: nothing."""

    rows: list[Row]
    busy: dict[str, float]
    summed: dict[str, float] = dataclasses.field(default_factory=dict)
    busiest: dict[str, float] = dataclasses.field(default_factory=dict)
    lanes: dict[str, int] = dataclasses.field(default_factory=dict)
    hidden: float | None = None
    stall: float = 0.0
    tail: float = 0.0
    first: float | None = None
    unified: bool = False
    depth: int = 3
    kind: Literal["tapped", "images"] = "tapped"


CASES = {
    "nothing happened": Case([], {}),
    "one after the other": Case(
        [("decode", 0, 4), ("finish", 4, 5), ("copy", 5, 6), ("save", 6, 9)],
        {"decode": 4, "finish": 1, "copy": 1, "save": 3},
        hidden=0.0, tail=4, first=9,
    ),
    "all saving hidden": Case(
        [("decode", 0, 10), ("copy", 2, 3), ("save", 3, 8)],
        {"decode": 10, "copy": 1, "save": 5},
        hidden=1.0, first=8,
    ),
    "half of it hidden, by decoding and finishing together": Case(
        [("decode", 0, 3), ("finish", 3, 4), ("save", 2, 6)],
        {"decode": 3, "finish": 1, "save": 4},
        hidden=0.5, tail=2, first=6,
    ),
    "copying and saving at once count once": Case(
        [("decode", 0, 4), ("copy", 2, 6), ("save", 2, 6)],
        {"decode": 4, "copy": 4, "save": 4},
        hidden=0.5, tail=2, first=6,
    ),
    "two writers at once": Case(
        [("decode", 0, 1), ("save", 1, 5, "writer 1"), ("save", 3, 6, "writer 2"), ("save", 7, 8, "writer 2")],
        {"decode": 1, "save": 6},
        summed={"save": 8}, busiest={"save": 4}, lanes={"save": 2}, hidden=0.0, tail=7, first=5,
    ),
    "a writer in two sinks is one lane, at it once": Case(
        [("save", 0, 4, "writer"), ("save", 2, 6, "writer"), ("save", 6, 7, "other")],
        {"save": 7},
        summed={"save": 9}, busiest={"save": 6}, lanes={"save": 2}, hidden=0.0, first=4,
    ),
    "what came late began first": Case(
        [("save", 6, 7, "b"), ("decode", 3, 4), ("save", 1, 5, "a"), ("decode", 0, 3)],
        {"decode": 4, "save": 5},
        busiest={"save": 4}, lanes={"save": 2}, hidden=3 / 5, tail=3, first=5,
    ),
    "a wait for a slot alone is no stall where the device has a queue": Case(
        [("decode", 0, 2), ("wait_slot", 2, 6)],
        {"decode": 2, "wait_slot": 4},
    ),
    "a wait of a chunk for the sinks alone is none either": Case(
        [("decode", 0, 8), ("wait_sinks", 2, 6)],
        {"decode": 8, "wait_sinks": 4},
    ),
    "both at once are a stall": Case(
        [("decode", 0, 2), ("wait_slot", 2, 6), ("wait_sinks", 4, 9)],
        {"decode": 2, "wait_slot": 4, "wait_sinks": 5},
        stall=2,
    ),
    "several stalls add up, whichever wait came first": Case(
        [("wait_sinks", 1, 3), ("wait_slot", 2, 4), ("wait_slot", 5, 8), ("wait_sinks", 6, 7)],
        {"wait_slot": 5, "wait_sinks": 3},
        stall=2,
    ),
    "in one memory every wait for a slot is one for the sinks": Case(
        [("decode", 0, 2), ("wait_slot", 2, 6)],
        {"decode": 2, "wait_slot": 4},
        stall=4, unified=True,
    ),
    "with one slot too": Case(
        [("wait_slot", 2, 6), ("wait_sinks", 4, 5)], {"wait_slot": 4, "wait_sinks": 1}, stall=4, depth=1
    ),
    "frames that were there hide nothing": Case(
        [("finish", 0, 4), ("save", 1, 5)], {"finish": 4, "save": 4}, kind="images", tail=1, first=5
    ),
    "what lies outside of the run does not count": Case(
        [("decode", -2, 1), ("copy", 8, 12), ("wait_slot", 9, 14), ("wait_sinks", 8, 13)],
        {"decode": 1, "copy": 2, "wait_slot": 1, "wait_sinks": 2},
        summed={"decode": 3, "copy": 4, "wait_slot": 5, "wait_sinks": 5},
        hidden=0.0, tail=9, stall=1,
    ),
    "closing a file moves no frame": Case(
        [("decode", 0, 2), ("save", 2, 3, "writer", 0)], {"decode": 2, "save": 1}, hidden=0.0, tail=1
    ),
}  # fmt: skip


def spans_of(rows: list[Row]) -> list[Span]:
    spans = []
    for index, (stage, start, end, *rest) in enumerate(rows):
        lane, frames, size = [*rest, *[stage, 4, 100][len(rest) :]]
        spans.append(
            Span(Stage(stage), lane, index, START + int(start * SECOND), START + int(end * SECOND), frames, size)
        )
    return spans


def report_of(spans: list[Span], *, unified: bool = False, depth: int = 3, kind: Any = "tapped") -> Report:
    totals = SpanTotals(START)
    for span in spans:
        totals.add(span)
    facts = RunFacts(
        outcome="completed",
        decoding=Decoding(kind, exact=True, bounded=True),
        decoder="",
        device="cuda:0",
        clip=Clip(height=8, width=6, channels=3, frames=12),
        frames=12,
        written=12,
        chunks=3,
        chunk_size=5,
        chunk_frames=4,
        buffer_depth=depth,
        unified=unified,
        pinned=True,
        ring_bytes_device=7,
        ring_bytes_host=9,
        warnings=("one", "two"),
        measured=(),
        spooled=None,
    )
    return build_report(facts, totals, START + 10 * SECOND)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_figures_of_runs_made_by_hand(name: str, reverse: bool) -> None:
    case = CASES[name]
    spans = spans_of(case.rows)

    report = report_of(spans[::-1] if reverse else spans, unified=case.unified, depth=case.depth, kind=case.kind)

    busy = {stage.value: totals.busy_seconds for stage, totals in report.stages.items() if totals.spans}
    assert busy == case.busy
    for stage, totals in report.stages.items():
        known = case.busy.get(stage.value, 0.0)
        assert totals.summed_seconds == case.summed.get(stage.value, known)
        assert totals.busiest_lane_seconds == case.busiest.get(stage.value, known)
        assert totals.lanes == case.lanes.get(stage.value, int(stage.value in case.busy))
        rows = [span for span in spans if span.stage is stage]
        assert (totals.spans, totals.frames) == (len(rows), sum(span.frames for span in rows))
        assert totals.bytes == 100 * len(rows)
        assert sum(end - start for start, end in totals.intervals) == pytest.approx(known)
    assert report.hidden_share == (None if case.hidden is None else pytest.approx(case.hidden))
    assert (report.stall_seconds, report.tail_seconds) == (case.stall, case.tail)
    assert report.first_frame_seconds == case.first
    assert report.wall_seconds == 10
    waits = intersection(stalls(spans, unified=case.unified, buffer_depth=case.depth), [(START, START + 10 * SECOND)])
    assert length(waits) == case.stall * SECOND


def test_the_json_holds_what_the_facts_and_the_spans_say() -> None:
    told = json.loads(json.dumps(report_of(spans_of(CASES["all saving hidden"].rows)).to_json()))

    assert (told["width"], told["height"], told["channels"], told["total_frames"]) == (6, 8, 3, 12)
    assert (told["frames"], told["chunks"], told["chunk_size"], told["chunk_frames"]) == (12, 3, 5, 4)
    assert (told["ring_bytes_device"], told["ring_bytes_host"], told["pinned"]) == (7, 9, True)
    assert (told["warnings"], told["fps"], told["started_ns"]) == (["one", "two"], 1.2, START)
    assert told["stages"]["save"]["intervals"] == [[3.0, 8.0]]
    assert "clip" not in told


def test_lanes_are_the_workers_in_the_order_of_the_frames_way() -> None:
    spans = spans_of(
        [
            ("save", 6, 7, "writer 10"), ("save", 3, 5, "writer 2"), ("copy", 2, 3), ("decode", 0, 1), ("decode", 1, 2),
            ("save", 4, 6, "writer 2"), ("wait_slot", 2, 3, "decode waits", 0),
        ]
    )  # fmt: skip

    lanes = lanes_of(spans)

    assert [lane.name for lane in lanes] == ["decode", "decode waits", "copy", "writer 2", "writer 2 (2)", "writer 10"]
    assert [(span.start_ns, span.end_ns) for span in lanes[0].spans] == [
        (START, START + SECOND), (START + SECOND, START + 2 * SECOND)
    ]  # fmt: skip


def test_a_trace_is_in_microseconds_from_the_start_of_the_run() -> None:
    spans = spans_of([("decode", 0, 1.5), ("save", 2, 2.25, "writer", 4, 900)])

    events = to_chrome_trace(spans, report=report_of(spans))["traceEvents"]

    decode, save = (event for event in events if event["ph"] == "X")
    assert (decode["ts"], decode["dur"], decode["cat"]) == (0.0, 1_500_000.0, "decode")
    assert (save["ts"], save["dur"], save["name"]) == (2_000_000.0, 250_000.0, "save frames 1 to 4")
    assert save["args"] == {"index": 1, "frames": 4, "bytes": 900}
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert (names[decode["tid"]], names[save["tid"]]) == ("decode", "writer")


INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=25)


def moments(intervals: list[Interval]) -> set[int]:
    return {moment for start, end in intervals for moment in range(start, end)}


def as_set(of: set[int]) -> list[Interval]:
    """The intervals of these moments."""
    runs = itertools.groupby(enumerate(sorted(of)), key=lambda pair: pair[1] - pair[0])
    rows = [[moment for _, moment in run] for _, run in runs]
    return [(row[0], row[-1] + 1) for row in rows]


@settings(max_examples=300, deadline=None)
@given(first=INTERVALS, second=INTERVALS, end=st.integers(0, 61))
def test_sets_that_grow_are_those_of_all_their_moments(first: list[Interval], second: list[Interval], end: int) -> None:
    a, b = IntervalSet(), IntervalSet()
    both = Overlap(a, b)
    for one, other in itertools.zip_longest(first, second):
        if one is not None:
            before = moments(a.intervals)
            new = a.add(*one)
            assert moments(new) == moments([one]) - before and length(new) == len(moments(new))
            both.add_to_first(new)
        if other is not None:
            both.add_to_second(b.add(*other))

    assert a.intervals == as_set(moments(first)) == union(first)
    assert a.length == len(moments(first))
    assert intersection(union(first), union(second)) == as_set(moments(first) & moments(second))
    assert both.length == len(moments(first) & moments(second))
    head = {moment for moment in moments(first) if moment < end}
    assert a.until(end) == as_set(head) and a.length_until(end) == len(head)
    assert a.after(end) == as_set(moments(first) - head)
    assert a.covered(end // 2, end) == len([moment for moment in head if moment >= end // 2])
    assert a.last_until(end) == (max(head) + 1 if head else None)
    assert both.length_until(end) == len(head & moments(second))


def test_a_report_of_100_000_frames_looks_at_no_span_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs was added up while spans came: it is asked of about as many intervals as a browser can show."""
    recorder, count = Recorder(), 100_000
    totals = SpanTotals(recorder.started_ns)
    recorder.listener = totals.add
    order = random.Random(0)
    for frame in range(count):
        at = recorder.started_ns + frame * 1000
        recorder.add(Span(Stage.DECODE, "decode", frame, at, at + 700, 1))
        late = at + order.randrange(3000)
        recorder.add(Span(Stage.SAVE, f"writer {frame % 8}", frame, late, late + 5000, 1))
    looked_at = 0
    spans = type(recorder).spans.fget  # type: ignore[attr-defined]

    def counted(self: Recorder) -> list[Span]:
        nonlocal looked_at
        looked_at += 1
        return spans(self)

    monkeypatch.setattr(Recorder, "spans", property(counted))
    report = build_report(
        dataclasses.replace(_facts(), frames=count), totals, recorder.started_ns + count * 1000 + 10_000
    )

    assert looked_at == 0
    assert report.stages[Stage.DECODE].busy_seconds == pytest.approx(count * 700 / 1e9)
    assert report.stages[Stage.SAVE].frames == count
    assert len(report.stages[Stage.DECODE].intervals) == MAX_INTERVALS
    assert len(json.dumps(report.to_json())) < 40_000


def _facts() -> RunFacts:
    report = report_of([])
    return RunFacts(**{field.name: getattr(report, field.name) for field in dataclasses.fields(RunFacts)})
