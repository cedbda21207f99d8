"""Runs as a picture: what happened is where it happened, in its colour, and only what was gained is called a gain."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from async_decode import FramePipeline
from async_decode.cli.timeline import THEMES, Run, ThemeName, save_timelines
from async_decode.report import Report, StageTotals
from async_decode.report.report import gain
from async_decode.sinks import NullSink
from async_decode.spans import Span, Stage

SECOND = 10**9


@pytest.fixture(scope="module")
def some_report() -> Report:
    """A real one, for the facts that do not matter here."""
    with FramePipeline([NullSink()]) as pipeline:
        pipeline.submit(torch.zeros(4, 3, 8, 8))
    return pipeline.report


def a_run(of: Report, title: str, seconds: float, lanes: dict[str, list[tuple[float, float]]]) -> Run:
    """A run of so many seconds: by stage and number of the lane, from when to when it was at work."""
    started = 5 * SECOND
    spans = [
        Span(Stage(lane.split()[0]), lane, i, started + int(a * SECOND), started + int(b * SECOND), frames=1)
        for lane, row in lanes.items()
        for i, (a, b) in enumerate(row)
    ]
    decoding = sum(b - a for a, b in lanes.get("decode", []))
    report = dataclasses.replace(
        of,
        started_ns=started,
        wall_seconds=seconds,
        unified=False,
        buffer_depth=3,
        stages={**of.stages, Stage.DECODE: StageTotals(busy_seconds=decoding), Stage.FINISH: StageTotals()},
    )
    return title, spans, report


def two_runs(of: Report) -> list[Run]:
    """10 s one after the other, and 7 s with a stall from the 3rd to the 4th."""
    return [
        a_run(of, "sequential", 10, {"decode": [(0, 3), (5, 8)], "save 1": [(3, 5), (8, 10)]}),
        a_run(
            of,
            "asynchronous",
            7,
            {
                "decode": [(0, 3), (4, 7)],
                "copy": [(3, 3.2)],
                "save 1": [(3.2, 5)],
                "save 2": [(5, 7)],
                "wait_slot": [(3, 4)],
                "wait_sinks": [(3.2, 4.6)],
            },
        ),
    ]


def rows_of(path: Path, theme: ThemeName) -> dict[str, list[tuple[float, float]]]:
    """From when to when each colour of the work is seen, in tenths of the axis, for each row of the picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    found: dict[str, list[tuple[float, float]]] = {}
    # The time axis: as wide as the tracks.
    track = np.all(pixels == ImageColor.getrgb(THEMES[theme]["track"]), axis=-1)
    columns = np.flatnonzero(track.any(axis=0))
    left, width = columns[0], columns[-1] - columns[0] + 1
    for name in ("decode", "copy", "save"):
        same = np.all(pixels[:, left : left + width] == ImageColor.getrgb(THEMES[theme][name]), axis=-1)
        lines = np.flatnonzero(same.sum(axis=1) > width / 100)
        for row in np.split(lines, np.flatnonzero(np.diff(lines) > 1) + 1):
            # Not the legend, nor what is written.
            if len(row) < 40:
                continue
            there = np.flatnonzero(same[row[len(row) // 2]])
            found.setdefault(name, []).append((round(there[0] / width * 10, 1), round((there[-1] + 1) / width * 10, 1)))
    return found


@pytest.mark.parametrize("theme", list(THEMES))
def test_work_is_where_it_was_done(tmp_path: Path, theme: ThemeName, some_report: Report) -> None:
    save_timelines(tmp_path / "a.png", two_runs(some_report), theme=theme)

    with Image.open(tmp_path / "a.png") as image:
        assert image.size[0] == 2160
        assert image.convert("RGB").getpixel((1, 1)) == ImageColor.getrgb(THEMES[theme]["background"])
    # The second block of a row is lighter, so that the first one alone has the full colour.
    assert rows_of(tmp_path / "a.png", theme) == {
        "decode": [(0.0, 3.0), (0.0, 3.0)],
        "copy": [(3.0, 3.2)],
        "save": [(3.0, 5.0), (3.2, 5.0), (5.0, 7.0)],
    }


def colours(path: Path) -> set[tuple[int, int, int]]:
    with Image.open(path) as image:
        return set(image.convert("RGB").get_flattened_data())


def test_waiting_that_costs_time_looks_different_from_waiting_that_does_not(
    tmp_path: Path, some_report: Report
) -> None:
    sequential, asynchronous = two_runs(some_report)
    save_timelines(tmp_path / "stalled.png", [asynchronous])
    save_timelines(tmp_path / "calm.png", [sequential])

    for name in ("stall", "wait"):
        assert ImageColor.getrgb(THEMES["light"][name]) in colours(tmp_path / "stalled.png")
        assert ImageColor.getrgb(THEMES["light"][name]) not in colours(tmp_path / "calm.png")


def test_a_long_run_of_many_writers_is_a_picture_as_large_as_a_short_ones(tmp_path: Path, some_report: Report) -> None:
    def run(frames: int) -> Run:
        step = 10 / frames
        lanes = {"decode": [(i * step, (i + 0.7) * step) for i in range(frames)]}
        for writer in range(8):
            lanes[f"save {writer}"] = [(i * step, (i + 0.9) * step) for i in range(writer, frames, 8)]
        return a_run(some_report, "many", 10, lanes)

    save_timelines(tmp_path / "short.png", [run(80)])
    save_timelines(tmp_path / "long.png", [run(8000)])

    with Image.open(tmp_path / "short.png") as short, Image.open(tmp_path / "long.png") as long:
        assert short.size == long.size
        assert long.height < 800


def test_no_run_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one run to draw, got none"):
        save_timelines(tmp_path / "a.png", [])


@pytest.mark.parametrize(
    ("first", "second", "gained"),
    [
        # Seconds of a run, and seconds of decoding in it. All saving is hidden:
        ((10, 6), (6, 6), 4),
        # half of it, while the writers slow the decoder down:
        ((10, 6), (9, 7), 1),
        # the second run came to a calmer machine: 1 s of saving is all that there was to gain.
        ((21, 20), (10.8, 10.6), 0.8),
        # Nothing was hidden.
        ((10, 6), (10, 6), 0),
        ((10, 6), (12, 6), 0),
        # The machine was busy with something else.
        ((10, 9), (30, 29.5), 0),
    ],
)
def test_what_the_machine_does_by_itself_is_no_gain(
    first: tuple[float, float], second: tuple[float, float], gained: float, some_report: Report
) -> None:
    runs = [a_run(some_report, "", seconds, {"decode": [(0, decoding)]})[2] for seconds, decoding in (first, second)]
    assert gain(*runs) == pytest.approx(gained)
