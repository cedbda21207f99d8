"""A report in words: the summary line, the text, what held the run up and what to do about it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from .spans import Stage

if TYPE_CHECKING:
    from .report import Report

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


def bottleneck_of(report: Report) -> Bottleneck | None:
    """What held the run up most; ``None`` before there are frames."""
    copy, save = report.stages[Stage.COPY], report.stages[Stage.SAVE]
    lagging = report.tail_seconds > NOTICEABLE * report.wall_seconds
    if report.frames == 0:
        return None
    if report.buffer_depth == 1 and report.chunks > 1:
        return Bottleneck.RING
    if report.decoding is not None and report.decoding.kind == "whole" and (_stalled(report) or lagging):
        return Bottleneck.WHOLE
    if copy.busy_seconds > max(report.compute_seconds, save.busy_seconds):
        return Bottleneck.COPY
    if _stalled(report):
        idle = save.busiest_lane_seconds < BUSY_WRITER * save.busy_seconds
        return Bottleneck.RING if idle else Bottleneck.SAVE
    if lagging and save.busy_seconds > report.compute_seconds:
        return Bottleneck.SAVE
    return Bottleneck.DECODE


def advice_of(report: Report) -> str:
    """One sentence on the bottleneck and what to change; empty before there are frames."""
    given = report.decoding is not None and report.decoding.kind == "images"
    match report.bottleneck:
        case Bottleneck.DECODE if given:
            return "Converting the frames is the limit: nothing waits for saving."
        case Bottleneck.SAVE if given:
            return "Saving is the limit: more writers, a lower compression level or a faster preset help."
        case Bottleneck.DECODE:
            return "Decoding is the limit: nothing waits for saving."
        case Bottleneck.COPY if report.pinned is False:
            return (
                "Copying to the host is the limit, because its memory could not be pinned: "
                "try a smaller chunk_size or buffer_depth."
            )
        case Bottleneck.COPY:
            return "Copying to the host is the limit: 8-bit files take a quarter of the bytes of a float32 IMAGE."
        case Bottleneck.SAVE:
            lag = (
                f"decoding waited {seconds_text(report.stall_seconds)} for it"
                if _stalled(report)
                else f"it went on for {seconds_text(report.tail_seconds)} after decoding"
            )
            return f"Saving is behind ({lag}): more writers, a lower compression level or a faster preset help."
        case Bottleneck.RING if report.buffer_depth == 1:
            return "With one slot, decoding, copying and saving take turns: a buffer_depth of 3 lets them overlap."
        case Bottleneck.RING:
            return (
                "Writers were idle while decoding waited for a slot: "
                "a larger buffer_depth or chunk_size keeps them busy."
            )
        case Bottleneck.WHOLE:
            return (
                "The clip was decoded in one go, so saving came afterwards: "
                "more writers, a lower compression level or a faster preset shorten it."
            )
    return ""


def summary_of(report: Report) -> str:
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


def text_of(report: Report) -> str:
    """A report in about ten lines, the first of which is its summary."""
    rows = [_decoding_row(report), _ring_row(report)]
    rows.extend(_stage_row(report, stage) for stage, totals in report.stages.items() if totals.spans)
    timing = [f"tail {seconds_text(report.tail_seconds)}", f"stalled {seconds_text(report.stall_seconds)}"]
    if report.first_frame_seconds is not None:
        timing.insert(0, f"first frame after {seconds_text(report.first_frame_seconds)}")
    rows.append(("timing", ", ".join(timing)))
    rows.extend(("warning", warning) for warning in report.warnings)
    if report.advice:
        rows.append(("advice", report.advice))
    return "\n".join([report.summary(), *(f"  {name:<11} {text}" for name, text in rows)])


def seconds_text(seconds: float) -> str:
    """A time: "420 ms", "9.70 s", "123 s"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.0005 else "0 s"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


def bytes_text(count: int) -> str:
    """An amount of memory: "33.2 MiB", "1.5 GiB"."""
    return f"{count / 2**20:.3g} MiB" if count < 1000 * 2**20 else f"{count / 2**30:.3g} GiB"


def _stalled(report: Report) -> bool:
    return report.stall_seconds > NOTICEABLE * report.wall_seconds


def _decoding_row(report: Report) -> tuple[str, str]:
    how = "not told" if report.decoding is None else report.decoding.kind
    detail = f" ({report.decoding.detail})" if report.decoding is not None and report.decoding.detail else ""
    return "decoding", f"{how}{detail}, on {report.device}"


def _ring_row(report: Report) -> tuple[str, str]:
    host = {True: "pinned", False: "pageable", None: "host"}[report.pinned]
    memory = f"{bytes_text(report.ring_bytes_host)} of {host} memory"
    if report.ring_bytes_device:
        memory = f"{bytes_text(report.ring_bytes_device)} of device and {memory}"
    slots = f"{_count(report.buffer_depth, 'slot')} of {_count(report.chunk_frames, 'frame')}"
    return "ring", f"{slots}, {_count(report.chunks, 'chunk')}, {memory}"


def _stage_row(report: Report, stage: Stage) -> tuple[str, str]:
    totals = report.stages[stage]
    share = totals.busy_seconds / report.wall_seconds if report.wall_seconds > 0 else 0.0
    parts = [f"{seconds_text(totals.busy_seconds):>8} {share:>5.0%}"]
    if totals.lanes > 1:
        parts.append(f"{totals.lanes} lanes, {seconds_text(totals.summed_seconds)} of work")
    if totals.bytes:
        parts.append(bytes_text(totals.bytes))
    return stage.value.replace("_", " "), ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
