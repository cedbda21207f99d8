"""Spans as a trace for Perfetto (https://ui.perfetto.dev) and chrome://tracing.

The format is the JSON object form of Chrome's "Trace Event Format": complete events, one thread for each lane.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..spans import Span, Stage
from .lanes import Lane, lanes_of
from .report import Report

#: The trace shows one process; its number means nothing.
PID = 1

# Perfetto gives events the same colour whose names differ in digits only.
_NAMES = {
    Stage.DECODE: "decode piece",
    Stage.FINISH: "finish piece",
    Stage.WAIT_SLOT: "wait for a slot for chunk",
    Stage.COPY: "copy chunk",
    Stage.WAIT_SINKS: "wait for sinks with chunk",
    Stage.SPOOL: "spool frame",
    Stage.SAVE: "save frame",
}


def to_chrome_trace(
    spans: Sequence[Span], started_ns: int | None = None, report: Report | None = None
) -> dict[str, Any]:
    """``spans`` as the object that a trace file holds, in plain types.

    Args:
        spans: in any order.
        started_ns: what the trace counts from, on the clock of the spans. What is before it is cut off. Default
            ``None``: the start that ``report`` tells, else the start of the first span.
        report: goes along as metadata. Default ``None``: none.

    Returns:
        Metadata events first, then complete events in order of their start, times in microseconds.
    """
    if started_ns is None:
        started_ns = report.started_ns if report is not None else min((span.start_ns for span in spans), default=0)
    lanes = lanes_of(spans)
    events = [_event(span, tid, started_ns) for tid, lane in enumerate(lanes, 1) for span in lane.spans]
    events.sort(key=lambda event: (event["ts"], event["tid"]))
    trace: dict[str, Any] = {"displayTimeUnit": "ms", "traceEvents": [*_metadata(lanes), *events]}
    if report is not None:
        trace["otherData"] = {"summary": report.summary(), "report": report.to_json()}
    return trace


def write_chrome_trace(
    path: str | os.PathLike[str],
    spans: Sequence[Span],
    started_ns: int | None = None,
    report: Report | None = None,
) -> None:
    """Write ``to_chrome_trace`` to ``path``, which has its name only once it is whole; a file there is replaced.

    Raises:
        OSError: the file could not be written; what was at ``path`` is still there.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "x", encoding="utf-8") as file:
            json.dump(to_chrome_trace(spans, started_ns, report), file, separators=(",", ":"))
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _metadata(lanes: Sequence[Lane]) -> list[dict[str, Any]]:
    """Names and the order of the lanes."""
    events = [_about(0, "process_name", name="Async VAE Decode")]
    for tid, lane in enumerate(lanes, 1):
        events.append(_about(tid, "thread_name", name=lane.name))
        events.append(_about(tid, "thread_sort_index", sort_index=tid))
    return events


def _about(tid: int, kind: str, **args: str | int) -> dict[str, Any]:
    return {"ph": "M", "pid": PID, "tid": tid, "name": kind, "args": args}


def _event(span: Span, tid: int, started_ns: int) -> dict[str, Any]:
    start, end = max(0, span.start_ns - started_ns), max(0, span.end_ns - started_ns)
    return {
        "ph": "X",
        "pid": PID,
        "tid": tid,
        "cat": span.stage.value,
        "name": _name(span),
        "ts": start / 1000,
        "dur": (end - start) / 1000,
        "args": {"index": span.index, "frames": span.frames, "bytes": span.bytes},
    }


def _name(span: Span) -> str:
    if span.stage is Stage.SAVE and span.frames > 1:
        return f"save frames {span.index} to {span.index + span.frames - 1}"
    if span.stage is Stage.SAVE and span.frames == 0:
        return "close"
    return f"{_NAMES[span.stage]} {span.index}"
