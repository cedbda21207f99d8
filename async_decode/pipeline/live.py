"""Runs as somebody follows them from outside: news of a run now and then, and the last runs to look at afterwards.

It starts no threads: whoever passes news on asks for them now and then.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..report.blocks import Lanes, blocks_of
from ..report.report import Report
from ..report.totals import Pace
from ..report.trace import to_chrome_trace
from ..spans import Recorder, Span
from .frame_pipeline import FramePipeline

#: Seconds between two pieces of news where there are any, and where nothing happens but that time goes by.
INTERVAL, HEARTBEAT = 0.1, 1.0
#: Seconds between two looks at what holds the run up.
ADVICE_INTERVAL = 1.0
#: Blocks of a stage in one piece of news, and in a picture of the whole run.
NEWS_BLOCKS, WHOLE_BLOCKS = 60, 240
#: How many runs are remembered, and how many spans of them together; a span takes about 200 bytes.
MOST_RUNS, MOST_SPANS = 32, 200_000


class LiveRun:
    """One run of a pipeline.

    News, and the snapshot, tell besides what the caller knows:

    - ``running``, ``received`` and ``written`` frames, their ``total`` (``None`` where nobody knows), ``seconds`` since
      the start, ``buffer_depth``;
    - ``steps``: decode steps that have ended; ``rate``: frames a second since the first of them began, over all of
      them, and ``seconds_left``, both ``None`` before there are two;
    - ``unified``: frames are finished straight into host memory, so that the lane of copies stays empty;
    - ``error`` and ``cut_short``, when it has ended: what ended it, and the files that hold less than they should;
    - ``bottleneck``, ``advice``, ``advice_code``, ``advice_values``, ``advice_measured``: none before a frame has been
      written;
    - ``blocks`` by stage, ``lanes``, and which spans they are: ``since``, ``told``.

    Args:
        pipeline: that runs.
        facts: what the caller knows of it, in plain types; goes along with everything.
        told_as: what is told of a file, in plain types. Default: its name.
        clock: the time in seconds, for tests. Default: the monotonic clock.
    """

    def __init__(
        self,
        pipeline: FramePipeline,
        facts: Mapping[str, Any],
        *,
        told_as: Callable[[Path], Any] = lambda path: path.name,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.facts = dict(facts)
        self._told_as = told_as
        self._clock = clock
        self._lock = threading.Lock()
        self._pipeline: FramePipeline | None = pipeline
        self._recorder: Recorder = pipeline.recorder
        self._report: Report | None = None
        self._final: dict[str, Any] = {}
        self._lanes = Lanes()
        self._spans_told = 0
        self._shown = (-1, -1)
        self._due = -float("inf")
        #: As a report says it that has no frames yet.
        self._advice: dict[str, Any] = {
            "bottleneck": None,
            "advice": "",
            "advice_code": None,
            "advice_values": {},
            "advice_measured": None,
        }
        self._advice_due = clock() + ADVICE_INTERVAL

    def news(self) -> dict[str, Any] | None:
        """What is new since the last call that returned something; None when there is nothing, or it is too soon.

        Time that goes by is news as well, once a second. From any thread, but not while another one is in here or in
        ``end``.
        """
        pipeline, now = self._pipeline, self._clock()
        if pipeline is None or now < self._due:
            return None
        spans = self._recorder.since(self._spans_told)
        shown = (pipeline.received, pipeline.written)
        if not spans and shown == self._shown and now < self._due - INTERVAL + HEARTBEAT:
            return None
        self._due, self._shown = now + INTERVAL, shown
        return {**self._state(pipeline, advise=True), **self._blocks_of(spans)}

    def end(self) -> dict[str, Any]:
        """Say that the run is over; returns the last of its news, with the report.

        The pipeline and its memory are let go of.
        """
        pipeline = self._pipeline
        assert pipeline is not None, "a run ends once"
        state = self._state(pipeline, advise=False)
        report = pipeline.report
        with self._lock:
            self._report, self._pipeline = report, None
            self._final = {**state, "seconds_left": None, **_outcome(report), **self._loss(pipeline)}
        return {**self._final, **self._blocks_of(self._recorder.since(self._spans_told))}

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._report is not None

    @property
    def span_count(self) -> int:
        """How many spans it has so far."""
        return len(self._recorder)

    def brief(self) -> dict[str, Any]:
        """What it is, without what it did."""
        return {"run": self.id, **self.facts, "running": not self.over}

    def snapshot(self) -> dict[str, Any]:
        """Everything that news have told so far, in one; from any thread."""
        with self._lock:
            pipeline, told, state = self._pipeline, self._spans_told, self._final
        if pipeline is not None:
            state = self._state(pipeline, advise=False)
        # Without the lock, for which whoever tells news would have to wait: lanes of what was told have their numbers.
        blocks = blocks_of(self._recorder.spans[:told], self._recorder.started_ns, self._lanes, most=WHOLE_BLOCKS)
        with self._lock:
            return {**state, "told": told, "blocks": blocks, "lanes": self._lanes.counts()}

    def trace(self) -> dict[str, Any]:
        """The run so far in Chrome's trace format; from any thread."""
        with self._lock:
            pipeline, report = self._pipeline, self._report
        return to_chrome_trace(self._recorder.spans, report=report if pipeline is None else pipeline.report)

    def _blocks_of(self, spans: list[Span]) -> dict[str, Any]:
        with self._lock:
            blocks = blocks_of(spans, self._recorder.started_ns, self._lanes, most=NEWS_BLOCKS)
            since, self._spans_told = self._spans_told, self._spans_told + len(spans)
            return {"since": since, "told": self._spans_told, "blocks": blocks, "lanes": self._lanes.counts()}

    def _state(self, pipeline: FramePipeline, *, advise: bool) -> dict[str, Any]:
        if advise:
            self._advise(pipeline)
        pace, now = pipeline.pace, Recorder.now()
        return {
            **self.brief(),
            "received": pipeline.received,
            "written": pipeline.written,
            "total": pipeline.total_frames,
            "seconds": (now - self._recorder.started_ns) / 1e9,
            "steps": pace.steps,
            "rate": pace.rate,
            "seconds_left": _seconds_left(pace, pipeline.written, pipeline.total_frames, now),
            "unified": pipeline.unified,
            "buffer_depth": pipeline.buffer_depth,
            **self._advice,
        }

    def _loss(self, pipeline: FramePipeline) -> dict[str, Any]:
        """What ended a run that has not come to its end, and which files hold less than they should."""
        error = pipeline.error
        short = [sink for sink in pipeline.sinks if getattr(sink, "cut_short", False)]
        paths = [getattr(sink, "path", None) for sink in short]
        return {
            "error": None if error is None else str(error) or type(error).__name__,
            "cut_short": [self._told_as(path) for path in paths if path is not None],
        }

    def _advise(self, pipeline: FramePipeline) -> None:
        now = self._clock()
        if now >= self._advice_due:
            self._advice, self._advice_due = pipeline.advise(), now + ADVICE_INTERVAL


def _seconds_left(pace: Pace, written: int, total: int | None, now: int) -> float | None:
    """How long the rest will take at the rate so far; ``None`` where nobody can tell, as before two steps."""
    if pace.rate is None or total is None:
        return None
    if pace.frames >= total:
        return max(0, total - written) / pace.rate
    return max(0.0, (total - pace.frames) / pace.rate - max(0, now - pace.ended_ns) / 1e9)


def _outcome(report: Report) -> dict[str, Any]:
    told = report.to_json()
    # The blocks show it already.
    told["stages"] = {name: {**totals, "intervals": []} for name, totals in told["stages"].items()}
    return {
        "running": False,
        "seconds": report.wall_seconds,
        **report.advice_json(),
        "report": told,
    }


class RecentRuns:
    """The last runs, by id; the oldest are forgotten when there are too many or they take too much memory.

    Args:
        most: how many runs. Default 32.
        most_spans: how many spans of runs that are over; the newest run is kept however many it has. Default 200,000.
    """

    def __init__(self, most: int = MOST_RUNS, most_spans: int = MOST_SPANS) -> None:
        self._most = most
        self._most_spans = most_spans
        self._lock = threading.Lock()
        self._runs: dict[str, LiveRun] = {}

    def add(self, run: LiveRun) -> None:
        """Remember ``run``; forget what that is too much for."""
        with self._lock:
            self._runs[run.id] = run
            over = [known for known in self._runs.values() if known.over]
            spans = sum(known.span_count for known in over)
            for known in over:
                if len(self._runs) <= self._most and spans <= self._most_spans:
                    break
                del self._runs[known.id]
                spans -= known.span_count

    def get(self, run_id: str) -> LiveRun | None:
        """The run of this id, if it is remembered."""
        with self._lock:
            return self._runs.get(run_id)

    def all(self) -> list[LiveRun]:
        """The runs, oldest first."""
        with self._lock:
            return list(self._runs.values())
