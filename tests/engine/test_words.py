"""Advice: which one a run gets, as a code with values for those who word it themselves, and as an English sentence."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from async_decode.decoding import Decoding
from async_decode.report import Report, RunFacts, SpanTotals, build_report
from async_decode.report.figures import Measured, Outcome, Spooled
from async_decode.report.words import ADVICE
from async_decode.spans import Span, Stage

SECOND = 10**9
#: Decoding takes 4 of 10 seconds, and waits for a slot for 5 while a chunk waits for the sinks.
STALLED = {"decode": (0, 4), "wait_slot": (4, 9), "wait_sinks": (4, 9)}
CASES: dict[str, tuple[dict[str, tuple[float, float]], dict[str, Any]]] = {
    "decode": ({"decode": (0, 10), "save": (2, 10)}, {}),
    "convert": ({"finish": (0, 10), "save": (2, 10)}, {"kind": "images"}),
    "copy": ({"decode": (0, 4), "copy": (1, 10)}, {}),
    "copy_unpinned": ({"decode": (0, 4), "copy": (1, 10)}, {"pinned": False}),
    "save": ({**STALLED, "save": (1, 10)}, {"kind": "images"}),
    "save_stalls": ({**STALLED, "save": (1, 10)}, {}),
    "save_lags": ({"decode": (0, 4), "save": (3, 9.5)}, {}),
    "one_slot": ({"decode": (0, 5), "save": (5, 10)}, {"buffer_depth": 1}),
    "idle_writers": ({**STALLED, "save": (1, 5), "save 2": (5, 10)}, {}),
    "whole": ({"decode": (0, 8), "save": (8, 10)}, {"kind": "whole"}),
}


def a_report(
    spans: dict[str, tuple[float, float]],
    *,
    kind: Literal["tapped", "whole", "images"] = "tapped",
    pinned: bool | None = True,
    buffer_depth: int = 3,
    frames: int = 8,
    outcome: Outcome = "completed",
    measured: tuple[Measured, ...] = (),
    spooled: Spooled | None = None,
) -> Report:
    """The report of a run of ten seconds, in each lane of which one thing happened: from when to when, in seconds."""
    totals = SpanTotals(0)
    for lane, (start, end) in spans.items():
        totals.add(Span(Stage(lane.split()[0]), lane, 0, int(start * SECOND), int(end * SECOND), frames=1))
    facts = RunFacts(
        outcome=outcome,
        decoding=Decoding(kind, exact=True, bounded=True),
        decoder="",
        device="cpu",
        clip=None,
        frames=frames,
        written=frames,
        chunks=2,
        chunk_size=4,
        chunk_frames=4,
        buffer_depth=buffer_depth,
        unified=False,
        pinned=pinned,
        ring_bytes_device=0,
        ring_bytes_host=0,
        warnings=(),
        measured=measured,
        spooled=spooled,
    )
    return build_report(facts, totals, 10 * SECOND)


@pytest.mark.parametrize("code", ADVICE)
def test_each_advice_has_its_run(code: str) -> None:
    spans, settings = CASES[code]

    told = a_report(spans, **settings).to_json()

    assert told["advice_code"] == code
    times = {"save_stalls": "5.00 s", "save_lags": "5.50 s"}
    assert told["advice"] == ADVICE[code].format(seconds=times.get(code))
    assert told["advice_values"] == ({"seconds": float(times[code].split()[0])} if code in times else {})


def test_no_advice_before_there_are_frames() -> None:
    report = a_report({}, frames=0)

    assert report.advice == ""
    assert report.advice_json() == {
        "bottleneck": None,
        "advice": "",
        "advice_code": None,
        "advice_values": {},
        "advice_measured": None,
    }


def test_no_advice_on_a_run_that_was_cut_short() -> None:
    spans, settings = CASES["save_lags"]
    cut_short: tuple[Outcome, ...] = ("cancelled", "failed")

    assert a_report(spans, **settings, outcome="running").advice
    for outcome in cut_short:
        assert a_report(spans, **settings, outcome=outcome).to_json()["advice_code"] is None


SLOWER, FASTER = Measured("preset slow", 9.0), Measured("preset veryfast", 0.25)


@pytest.mark.parametrize("code", ["save", "save_stalls", "save_lags", "whole"])
def test_where_saving_is_the_limit_the_advice_names_what_was_measured(code: str) -> None:
    spans, settings = CASES[code]

    report = a_report(spans, **settings, measured=(SLOWER, FASTER))

    own = report.stall_seconds + report.tail_seconds
    told = report.to_json()
    assert told["advice_measured"] == {"setting": "preset veryfast", "other": 0.25, "own": own}
    assert told["advice"].endswith(
        f" An earlier run like this one waited 250 ms for its files with preset veryfast, this one {own:.2f} s."
    )
    assert told["advice_code"] == code and told["waited_seconds"] == own
    assert told["measured"][1] == {"setting": "preset veryfast", "seconds": 0.25}


def test_a_setting_that_would_not_help_is_not_named() -> None:
    spans, settings = CASES["save_lags"]
    hardly = Measured("preset fast", 5.4)

    assert a_report(spans, **settings, measured=(hardly, SLOWER)).advice == a_report(spans, **settings).advice
    # Where decoding is the limit there is nothing to gain.
    spans, settings = CASES["decode"]
    assert "earlier run" not in a_report(spans, **settings, measured=(FASTER,)).advice


def test_what_waited_on_disk_is_in_the_text() -> None:
    spooled = Spooled(frames=120, bytes=3 * 2**20, packed_bytes=2**20, most_bytes=2**19, ahead_seconds=2.5)

    told = str(a_report({"decode": (0, 4), "spool": (1, 4), "save": (1, 10)}, spooled=spooled))

    assert "120 frames, 3 MiB as 1 MiB on disk (3 times smaller), 0.5 MiB at once, decoding up to 2.50 s ahead" in told
    assert "spooled" not in str(a_report({"decode": (0, 4), "save": (1, 10)}))
