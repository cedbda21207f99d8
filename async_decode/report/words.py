"""A report in words: the summary line, the text, what held the run up and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..spans import Stage
from .figures import Figures, Measured, Spooled

#: A wait of less than this share of the run is not worth advice.
NOTICEABLE = 0.02
#: If not one writer is busy for this share of the time in which any of them is, writers are not what is missing.
BUSY_WRITER = 0.75


class Bottleneck(enum.Enum):
    """What would have to be faster for a run to be shorter."""

    #: Decoding itself, as it should be.
    DECODE = "decode"
    #: Copies to the host.
    COPY = "copy"
    #: Writing frames.
    SAVE = "save"
    #: Too few frames fit in the ring for the stages to work side by side.
    RING = "ring"
    #: The clip was decoded in one go, so that everything else came afterwards.
    WHOLE = "whole"


def bottleneck_of(report: Figures) -> Bottleneck | None:
    """What held the run up most; ``None`` before there are frames, and of a run that was cut short."""
    copy, save = report.stages[Stage.COPY], report.stages[Stage.SAVE]
    lagging = report.tail_seconds > NOTICEABLE * report.wall_seconds
    # What ended early may have waited for anything, such as for what failed.
    if report.written == 0 or report.outcome in ("cancelled", "failed"):
        return None
    if report.buffer_depth == 1 and report.chunks > 1:
        return Bottleneck.RING
    if report.decoding is not None and report.decoding.kind == "whole" and (_has_stalls(report) or lagging):
        return Bottleneck.WHOLE
    if copy.busy_seconds > max(report.compute_seconds, save.busy_seconds):
        return Bottleneck.COPY
    if _has_stalls(report):
        idle = save.busiest_lane_seconds < BUSY_WRITER * save.busy_seconds
        return Bottleneck.RING if idle else Bottleneck.SAVE
    if lagging and save.busy_seconds > report.compute_seconds:
        return Bottleneck.SAVE
    return Bottleneck.DECODE


#: One sentence on each bottleneck and what to change, by its code: whoever shows it in another language words the code
#: instead. What is in braces is a time.
ADVICE = {
    "decode": "Decoding is the limit: nothing waits for saving.",
    "convert": "Converting the frames is the limit: nothing waits for saving.",
    "copy": "Copying to system memory is the limit: 8-bit files take a quarter of the bytes of a float32 IMAGE.",
    "copy_unpinned": (
        "Copying to system memory is the limit, because its memory could not be pinned: "
        "try a smaller chunk_size or buffer_depth."
    ),
    "save": "Saving is the limit: more writers, a lower compression level or a faster preset help.",
    "save_stalls": (
        "Saving is behind (decoding waited {seconds} for it): "
        "more writers, a lower compression level or a faster preset help."
    ),
    "save_lags": (
        "Saving is behind (it went on for {seconds} after decoding): "
        "more writers, a lower compression level or a faster preset help."
    ),
    "one_slot": "With one slot, decoding, copying and saving take turns: a buffer_depth of 3 lets them overlap.",
    "idle_writers": (
        "Writers were idle while decoding waited for a slot: a larger buffer_depth or chunk_size keeps them busy."
    ),
    "whole": (
        "The clip was decoded in one go, so saving came afterwards: "
        "more writers, a lower compression level or a faster preset shorten it."
    ),
}


#: What is said beside it where another setting was measured to be faster.
MEASURED = "An earlier run like this one waited {other} for its files with {setting}, this one {own}."


@dataclass(frozen=True)
class Better:
    """Another setting that took less in an earlier run.

    Attributes:
        setting: for people to read.
        other: seconds that the earlier run waited for its files.
        own: seconds that this run waited.
    """

    setting: str
    other: float
    own: float

    def __str__(self) -> str:
        return MEASURED.format(setting=self.setting, other=seconds_text(self.other), own=seconds_text(self.own))


@dataclass(frozen=True)
class Advice:
    """What held a run up and what to change.

    Attributes:
        code: a key of ``ADVICE``.
        values: seconds, by the names that are in braces there.
        measured: a setting that is known to help, where one is.
    """

    code: str
    values: Mapping[str, float] = field(default_factory=dict)
    measured: Better | None = None

    def __str__(self) -> str:
        said = ADVICE[self.code].format(**{name: seconds_text(seconds) for name, seconds in self.values.items()})
        return said if self.measured is None else f"{said} {self.measured}"


def advice_of(report: Figures) -> Advice | None:
    """What to change; ``None`` before there are frames, and of a run that was cut short."""
    given = report.decoding is not None and report.decoding.kind == "images"
    match bottleneck_of(report):
        case Bottleneck.DECODE:
            return Advice("convert" if given else "decode")
        case Bottleneck.COPY:
            return Advice("copy_unpinned" if report.pinned is False else "copy")
        case Bottleneck.SAVE if given:
            return Advice("save", measured=_better(report))
        case Bottleneck.SAVE if _has_stalls(report):
            return Advice("save_stalls", {"seconds": report.stall_seconds}, _better(report))
        case Bottleneck.SAVE:
            return Advice("save_lags", {"seconds": report.tail_seconds}, _better(report))
        case Bottleneck.RING:
            return Advice("one_slot" if report.buffer_depth == 1 else "idle_writers")
        case Bottleneck.WHOLE:
            return Advice("whole", measured=_better(report))
    return None


def _better(report: Figures) -> Better | None:
    """The setting that was measured to be fastest, if it is worth a change."""
    best: Measured | None = min(report.measured, key=lambda measured: measured.seconds, default=None)
    own = report.waited_seconds
    if best is None or own - best.seconds <= NOTICEABLE * report.wall_seconds:
        return None
    return Better(best.setting, best.seconds, own)


def summary_of(report: Figures) -> str:
    """A report in one line."""
    size = f" of {report.width}x{report.height}" if report.width else ""
    took = f"{seconds_text(report.wall_seconds)} ({report.fps:.3g} fps)"
    if report.outcome == "completed":
        parts = [f"{_count(report.frames, 'frame')}{size} in {took}"]
    else:
        total = "" if report.total_frames is None else f" of {report.total_frames}"
        parts = [f"{report.outcome} after {report.frames}{total} frames{size}, {took}"]
    if report.decoding is not None:
        parts.append("exact" if report.decoding.exact else "not exact")
        parts.append("bounded memory" if report.decoding.bounded else "memory grows with the clip")
    if report.hidden_share is not None:
        parts.append(f"{report.hidden_share:.0%} of copying and saving hidden behind decoding")
    return ", ".join(parts)


def text_of(report: Figures) -> str:
    """A report in about ten lines, the first of which is its summary."""
    rows = [_decoding_row(report), _ring_row(report)]
    if report.decoder:
        rows.insert(1, ("decoder", report.decoder))
    rows.extend(_stage_row(report, stage) for stage, totals in report.stages.items() if totals.spans)
    if report.spooled is not None:
        rows.append(("spooled", _spooled_text(report.spooled)))
    timing = [f"tail {seconds_text(report.tail_seconds)}", f"stalled {seconds_text(report.stall_seconds)}"]
    if report.first_frame_seconds is not None:
        timing.insert(0, f"first frame after {seconds_text(report.first_frame_seconds)}")
    rows.append(("timing", ", ".join(timing)))
    rows.extend(("warning", warning) for warning in report.warnings)
    advice = advice_of(report)
    if advice is not None:
        rows.append(("advice", str(advice)))
    return "\n".join([summary_of(report), *(f"  {name:<11} {text}" for name, text in rows)])


def seconds_text(seconds: float) -> str:
    """A time: "420 ms", "9.70 s", "123 s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.0005 else "0 s"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


def bytes_text(count: int) -> str:
    """An amount of memory: "33.2 MiB", "1.5 GiB"."""
    return f"{count / 2**20:.3g} MiB" if count < 1000 * 2**20 else f"{count / 2**30:.3g} GiB"


def _has_stalls(report: Figures) -> bool:
    return report.stall_seconds > NOTICEABLE * report.wall_seconds


def _decoding_row(report: Figures) -> tuple[str, str]:
    how = "not told" if report.decoding is None else report.decoding.kind
    detail = f" ({report.decoding.detail})" if report.decoding is not None and report.decoding.detail else ""
    return "decoding", f"{how}{detail}, on {report.device}"


def _ring_row(report: Figures) -> tuple[str, str]:
    host = {True: "pinned", False: "pageable", None: "host"}[report.pinned]
    memory = f"{bytes_text(report.ring_bytes_host)} of {host} memory"
    if report.ring_bytes_device:
        memory = f"{bytes_text(report.ring_bytes_device)} of device and {memory}"
    slots = f"{_count(report.buffer_depth, 'slot')} of {_count(report.chunk_frames, 'frame')}"
    return "ring", f"{slots}, {_count(report.chunks, 'chunk')}, {memory}"


def _stage_row(report: Figures, stage: Stage) -> tuple[str, str]:
    totals = report.stages[stage]
    share = totals.busy_seconds / report.wall_seconds if report.wall_seconds > 0 else 0.0
    parts = [f"{seconds_text(totals.busy_seconds):>8} {share:>5.0%}"]
    if totals.lanes > 1:
        parts.append(f"{totals.lanes} lanes, {seconds_text(totals.summed_seconds)} of work")
    if totals.bytes:
        parts.append(bytes_text(totals.bytes))
    return stage.value.replace("_", " "), ", ".join(parts)


def _spooled_text(spooled: Spooled) -> str:
    times = spooled.bytes / max(1, spooled.packed_bytes)
    return (
        f"{_count(spooled.frames, 'frame')}, {bytes_text(spooled.bytes)} as {bytes_text(spooled.packed_bytes)} on disk "
        f"({times:.2g} times smaller), {bytes_text(spooled.most_bytes)} at once, decoding up to "
        f"{seconds_text(spooled.ahead_seconds)} ahead"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
