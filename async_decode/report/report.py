"""The report: what happened in a run, in figures, and what to do about it.

It keeps for every stage when it was busy, so that the browser can draw a run that is over from the report alone,
however many chunks it had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..spans import Span, Stage
from . import words
from .figures import Figures, RunFacts, plain
from .intervals import Interval, intersection, union
from .totals import SpanTotals
from .words import Bottleneck

#: Number of the JSON form; goes up when a reader of the old one could misread the new one.
SCHEMA = 1


@dataclass(frozen=True)
class Report(Figures):
    """What happened in one run of a pipeline: its figures, and what they mean in words."""

    @property
    def bottleneck(self) -> Bottleneck | None:
        """What held the run up most; ``None`` before there are frames."""
        return words.bottleneck_of(self)

    @property
    def advice(self) -> str:
        """One sentence on the bottleneck and what to change; empty before there are frames."""
        advice = words.advice_of(self)
        return "" if advice is None else str(advice)

    def advice_json(self) -> dict[str, Any]:
        """Bottleneck and advice as plain types: the sentences, and their code and values for other languages."""
        advice = words.advice_of(self)
        return {
            "bottleneck": None if self.bottleneck is None else self.bottleneck.value,
            "advice": self.advice,
            "advice_code": None if advice is None else advice.code,
            "advice_values": {} if advice is None else dict(advice.values),
            "advice_measured": None if advice is None or advice.measured is None else plain(advice.measured),
        }

    def summary(self) -> str:
        """One line for people."""
        return words.summary_of(self)

    def __str__(self) -> str:
        return words.text_of(self)

    def to_json(self) -> dict[str, Any]:
        """As plain types, with what follows from the rest (``fps``, ``bottleneck``, ``advice``, ``summary``)."""
        return {
            "schema": SCHEMA,
            **{name: value for name, value in plain(self).items() if name != "clip"},
            "width": self.width,
            "height": self.height,
            "channels": self.channels,
            "total_frames": self.total_frames,
            "decoding": None if self.decoding is None else plain(self.decoding),
            "warnings": list(self.warnings),
            "spooled": None if self.spooled is None else plain(self.spooled),
            "measured": [plain(measured) for measured in self.measured],
            "waited_seconds": self.waited_seconds,
            "stages": {stage.value: totals.to_json() for stage, totals in self.stages.items()},
            "fps": self.fps,
            **self.advice_json(),
            "summary": self.summary(),
        }


def build_report(facts: RunFacts, totals: SpanTotals, ended_ns: int, *, intervals: bool = True) -> Report:
    """Make the report of a run.

    Args:
        facts: what the pipeline knows of it.
        totals: of its spans.
        ended_ns: its end, or now, on the clock of the spans. What spans have behind it (the clocks of a device and of
            its host drift apart a little) does not count.
        intervals: tell when each stage was busy as well, which takes the longer the more spans there are. Default True.
    """
    first, decoding = totals.first_saved_ns, facts.decoding
    return Report(
        **plain(facts),
        started_ns=totals.started_ns,
        wall_seconds=max(0, ended_ns - totals.started_ns) / 1e9,
        first_frame_seconds=None if first is None else max(0, first - totals.started_ns) / 1e9,
        tail_seconds=totals.tail_ns(ended_ns) / 1e9,
        stall_seconds=totals.stall_ns(ended_ns, unified=facts.unified, buffer_depth=facts.buffer_depth) / 1e9,
        hidden_share=None if decoding is not None and decoding.kind == "images" else totals.hidden_share(ended_ns),
        stages=totals.stages(ended_ns, intervals=intervals),
    )


def stalls(spans: Iterable[Span], *, unified: bool, buffer_depth: int) -> list[Interval]:
    """When decoding waited because frames could not be written fast enough, as a set: what ``stall_seconds`` adds up.

    Args:
        spans: of a run, in any order.
        unified: as in ``RunFacts``, as is ``buffer_depth``.
    """
    waits: dict[Stage, list[Interval]] = {Stage.WAIT_SLOT: [], Stage.WAIT_SINKS: []}
    for span in spans:
        if span.stage in waits:
            waits[span.stage].append((span.start_ns, span.end_ns))
    slot = union(waits[Stage.WAIT_SLOT])
    return slot if unified or buffer_depth == 1 else intersection(slot, union(waits[Stage.WAIT_SINKS]))


def gain(first: Report, report: Report) -> float:
    """Seconds by which a run was shorter than ``first`` because it waited less for copying and saving.

    Decoding itself takes a little longer or shorter from one run to the next. Where it took less, that is the machine's
    doing and no gain; where it took more, since writers use the same cores, that is taken off.
    """
    waited = [run.wall_seconds - run.compute_seconds for run in (first, report)]
    return max(0.0, min(waited[0] - waited[1], first.wall_seconds - report.wall_seconds))
