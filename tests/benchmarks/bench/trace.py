"""Reads what a profiler recorded on a CUDA device: how busy it was, what overlapped, and where it stood still.

The kernel utilisation of a decode is the union of the intervals of all kernels, copies and memory fills left out, over
the time from the start of the first kernel to the end of the last one. (nvidia-smi's "utilisation" only says that
something ran in each sampling period, and reads higher.) A decoder that copies within the device by the copy engine's
commands, where another one has kernels that copy, works as well meanwhile: how busy the device was with these, too, is
told beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from async_decode.report.intervals import Interval, intersection, length, union

#: A device that stands still for longer than this gets listed, in nanoseconds.
GAP_NS = 200_000
_LISTED_GAPS = 20
_LISTED_CALLS = 4


@dataclass(frozen=True)
class Event:
    """Something that lasted, in nanoseconds since the trace's base.

    Attributes:
        name: what.
        lane: who: the thread, or the pipeline's lane.
    """

    start: int
    end: int
    name: str = ""
    lane: str = ""

    @property
    def interval(self) -> Interval:
        return self.start, self.end


@dataclass
class DeviceTrace:
    """What happened on and around the device.

    Attributes:
        kernels: on every stream.
        within: copies within the device, and memory fills.
        to_host: copies from the device to the host.
        calls: CUDA calls of the host.
        waits: what the pipeline says it waited for meanwhile.
    """

    kernels: list[Event] = field(default_factory=list)
    within: list[Event] = field(default_factory=list)
    to_host: list[Event] = field(default_factory=list)
    calls: list[Event] = field(default_factory=list)
    waits: list[Event] = field(default_factory=list)


def read_chrome_trace(trace: Mapping[str, Any]) -> DeviceTrace:
    """The trace in a file of ``torch.profiler``'s ``export_chrome_trace``, whose times are microseconds."""
    found = DeviceTrace()
    for event in trace["traceEvents"]:
        if event.get("ph") != "X":
            continue
        kind, name = event.get("cat", ""), event.get("name", "")
        start = round(event["ts"] * 1000)
        item = Event(start, start + round(event.get("dur", 0) * 1000), name, f"thread {event.get('tid')}")
        if kind == "kernel":
            found.kernels.append(item)
        elif kind == "gpu_memcpy":
            # "Memcpy DtoH (Device -> Pinned)", or "(Device -> Pageable)".
            if "DtoH" in name:
                found.to_host.append(item)
            elif "DtoD" in name:
                found.within.append(item)
        elif kind == "gpu_memset":
            found.within.append(item)
        elif kind in ("cuda_runtime", "cuda_driver"):
            found.calls.append(item)
    return found


def analyse(trace: DeviceTrace) -> dict[str, Any]:
    """Utilisation, overlap and gaps, ready for JSON; times in milliseconds."""
    busy = union(kernel.interval for kernel in trace.kernels)
    if not busy:
        return {"error": "the trace holds no kernels: this process may not use CUPTI"}
    span = busy[-1][1] - busy[0][0]
    copies = union(copy.interval for copy in trace.to_host)
    whole = [(busy[0][0], busy[-1][1])]
    working = intersection(union(event.interval for event in (*trace.kernels, *trace.within)), whole)
    return {
        "kernels": len(trace.kernels),
        "span_ms": _ms(span),
        "busy_ms": _ms(length(busy)),
        "utilisation": length(busy) / span,
        "utilisation_with_copies_within": length(working) / span,
        "copies_to_host": len(trace.to_host),
        "copies_overlapping_kernels": sum(bool(intersection([copy.interval], busy)) for copy in trace.to_host),
        "copy_ms": _ms(length(copies)),
        "copy_overlapped": length(intersection(copies, busy)) / length(copies) if copies else None,
        "gaps": _gaps(trace, busy),
    }


def _gaps(trace: DeviceTrace, busy: Sequence[Interval]) -> dict[str, Any]:
    """The gaps that are longer than ``GAP_NS``: how many, how long together, and the longest with what the host did."""
    gaps = [(end, start) for (_, end), (start, _) in pairwise(busy) if start - end > GAP_NS]
    longest = sorted(gaps, key=lambda gap: gap[0] - gap[1])[:_LISTED_GAPS]
    starting = {kernel.start: kernel.name for kernel in trace.kernels}
    return {
        "longer_than_ms": _ms(GAP_NS),
        "count": len(gaps),
        "total_ms": _ms(length(gaps)),
        "longest": [
            {
                "at_ms": _ms(gap[0] - busy[0][0]),
                "ms": _ms(gap[1] - gap[0]),
                "then": starting.get(gap[1], "")[:80],
                "cuda_calls": _busiest(trace.calls, gap),
                "pipeline": _busiest(trace.waits, gap),
            }
            for gap in sorted(longest)
        ],
    }


def _busiest(events: Iterable[Event], within: Interval) -> list[str]:
    """What took most of this time: ``lane: name, milliseconds``."""
    times: dict[str, int] = {}
    for event in events:
        shared = min(event.end, within[1]) - max(event.start, within[0])
        if shared > 0:
            label = f"{event.lane}: {event.name}"
            times[label] = times.get(label, 0) + shared
    ranked = sorted(times.items(), key=lambda item: -item[1])[:_LISTED_CALLS]
    return [f"{label}, {_ms(shared)} ms" for label, shared in ranked]


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
