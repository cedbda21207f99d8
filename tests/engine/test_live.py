"""Runs as others follow them: news in portions that add up, no more often than promised, and a bounded memory."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from async_decode import FinishedFrames, FramePipeline, choose_tap
from async_decode.pipeline.live import INTERVAL, LiveRun, RecentRuns
from async_decode.report.blocks import Lanes, blocks_of
from async_decode.spans import Recorder, Span, Stage
from tests.engine.toy import CollectSink, GateSink, ToyVAE, toy_latent


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_news_add_up_to_the_run() -> None:
    clock, told = FakeClock(), []

    def poll() -> None:
        clock.seconds += INTERVAL
        news = run.news()
        if news is not None:
            told.append(news)

    pipeline = FramePipeline([CollectSink()], chunk_size=3, poll=poll)
    run = LiveRun(pipeline, {"node": "7"}, clock=clock)
    with torch.inference_mode(), pipeline:
        pipeline.decode(choose_tap(ToyVAE().video_decoder()), toy_latent(8))
    told.append(run.end())

    assert len(told) > 3
    assert all(news["run"] == run.id and news["node"] == "7" for news in told)
    assert [news["since"] for news in told] == [0, *(news["told"] for news in told[:-1])]
    assert frames_of(told) == {"decode": 29, "finish": 29}
    assert told[-1]["written"] == told[-1]["total"] == 29
    assert [news["running"] for news in told] == [True] * (len(told) - 1) + [False]
    assert told[-1]["report"]["outcome"] == "completed"
    snapshot = run.snapshot()
    assert snapshot["told"] == told[-1]["told"] == len(pipeline.recorder)
    assert frames_of([snapshot]) == frames_of(told)
    assert (snapshot["running"], snapshot["report"]) == (False, told[-1]["report"])


def test_news_come_no_more_often_than_promised() -> None:
    clock = FakeClock()
    pipeline = FramePipeline([CollectSink()])
    run = LiveRun(pipeline, {}, clock=clock)

    def add() -> None:
        pipeline.recorder.add(Span(Stage.DECODE, "decode", 0, 0, 1, frames=1))

    add()
    first = run.news()
    add()
    clock.seconds += INTERVAL / 2
    too_soon = run.news()
    clock.seconds += INTERVAL
    second = run.news()
    clock.seconds += INTERVAL
    nothing_new = run.news()

    assert first is not None and second is not None
    assert too_soon is None and nothing_new is None


def test_a_snapshot_in_mid_run_holds_what_was_told_and_news_go_on_after_it() -> None:
    clock = FakeClock()
    pipeline = FramePipeline([CollectSink()])
    run = LiveRun(pipeline, {}, clock=clock)
    pipeline.recorder.add(Span(Stage.DECODE, "decode", 0, 0, 1, frames=4))
    run.news()
    pipeline.recorder.add(Span(Stage.DECODE, "decode", 1, 1, 2, frames=5))

    snapshot = run.snapshot()
    clock.seconds += INTERVAL
    news = run.news()

    assert frames_of([snapshot]) == {"decode": 4}
    assert news is not None
    assert (snapshot["told"], news["since"], frames_of([news])) == (1, 1, {"decode": 5})


def test_blocks_are_bounded_and_lose_no_frame() -> None:
    spans = [
        Span(Stage.SAVE, f"writer {i % 3}", i, 10**6 * i, 10**6 * i + 10**6 + (i == 50) * 10**5, frames=1)
        for i in range(900)
    ]

    blocks = blocks_of(spans, 0, Lanes(), most=90)["save"]

    assert len(blocks) == 90
    assert sum(frames for *_, frames in blocks) == 900
    assert {lane for lane, *_ in blocks} == {0, 1, 2}
    for number in range(3):
        row = [(start, end) for lane, start, end, _ in blocks if lane == number]
        assert all(end <= start for (_, end), (start, _) in pairwise(row))


def test_blocks_are_cut_where_the_gaps_are_longest() -> None:
    at = [0, 10, 20, 500, 510, 2000]
    spans = [Span(Stage.DECODE, "decode", i, start * 10**6, (start + 5) * 10**6, 1) for i, start in enumerate(at)]

    blocks = blocks_of(spans, 0, Lanes(), most=3)["decode"]

    assert blocks == [(0, 0.0, 25.0, 3), (0, 500.0, 515.0, 2), (0, 2000.0, 2005.0, 1)]


def test_lanes_keep_their_numbers() -> None:
    lanes = Lanes()
    first = blocks_of([Span(Stage.SAVE, "b", 0, 0, 1)], 0, lanes, most=9)["save"]
    second = blocks_of([Span(Stage.SAVE, "a", 0, 0, 1), Span(Stage.SAVE, "b", 1, 1, 2)], 0, lanes, most=9)["save"]

    assert [lane for lane, *_ in first] == [0]
    assert sorted(lane for lane, *_ in second) == [0, 1]
    assert lanes.counts() == {"save": 2}


def test_the_oldest_runs_are_forgotten() -> None:
    recent = RecentRuns(most=3, most_spans=10)
    runs = [ended_run(spans=1) for _ in range(5)]
    for run in runs:
        recent.add(run)

    assert recent.all() == runs[2:]
    assert recent.get(runs[0].id) is None
    assert recent.get(runs[4].id) is runs[4]


def test_runs_with_many_spans_are_forgotten_sooner_but_never_one_that_goes_on() -> None:
    recent = RecentRuns(most=10, most_spans=10)
    going_on = LiveRun(FramePipeline([CollectSink()]), {})
    recent.add(going_on)
    runs = [ended_run(spans=4) for _ in range(4)]
    for run in runs:
        recent.add(run)

    assert recent.all() == [going_on, *runs[2:]]


def test_a_run_that_is_over_holds_no_pipeline() -> None:
    run = ended_run(spans=2)

    assert not any(isinstance(value, FramePipeline) for value in vars(run).values())
    assert len(run.trace()["traceEvents"]) > 2


def ended_run(spans: int) -> LiveRun:
    pipeline = FramePipeline([CollectSink()])
    for index in range(spans):
        pipeline.recorder.add(Span(Stage.DECODE, "decode", index, index, index + 1, frames=1))
    run = LiveRun(pipeline, {})
    run.end()
    return run


def frames_of(told: list[dict[str, Any]]) -> dict[str, int]:
    """Frames by stage, of the stages that moved any in these news."""
    frames: Counter[str] = Counter()
    for news in told:
        for stage, blocks in news["blocks"].items():
            frames[stage] += sum(block[3] for block in blocks)
    return {stage: count for stage, count in frames.items() if count}


SECOND = 10**9


def decoding(pipeline: FramePipeline, *steps: tuple[float, float, int]) -> None:
    """Record decode steps: from when to when, in seconds since the start, and how many frames each made."""
    start = pipeline.recorder.started_ns
    for index, (began, ended, frames) in enumerate(steps):
        span = Span(Stage.DECODE, "decode", index, start + int(began * SECOND), start + int(ended * SECOND), frames)
        pipeline.recorder.add(span)


def state_at(pipeline: FramePipeline, seconds: float, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    now = pipeline.recorder.started_ns + int(seconds * SECOND)
    monkeypatch.setattr(Recorder, "now", staticmethod(lambda: now))
    return LiveRun(pipeline, {}).snapshot()


def test_the_rate_is_that_of_all_steps_since_the_first_began_and_not_of_one_burst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two chunks of one burst come 0.1 s after each other; the next burst takes a minute."""
    pipeline = FramePipeline([CollectSink()], total_frames=81)
    decoding(pipeline, (10, 70, 1), (70, 130, 8))

    state = state_at(pipeline, 130, monkeypatch)

    assert (state["steps"], state["seconds"]) == (2, 130)
    assert state["rate"] == pytest.approx(9 / 120)
    assert state["seconds_left"] == pytest.approx(72 / (9 / 120))


def test_time_left_falls_between_two_steps_and_never_below_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = FramePipeline([CollectSink()], total_frames=16)
    decoding(pipeline, (0, 10, 4), (10, 20, 4))

    left = [state_at(pipeline, seconds, monkeypatch)["seconds_left"] for seconds in (20, 25, 60)]

    assert left == pytest.approx([20, 15, 0])


def test_no_rate_and_no_time_left_before_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = FramePipeline([CollectSink()], total_frames=81)
    before = state_at(pipeline, 37, monkeypatch)
    decoding(pipeline, (0, 60, 8))
    after = state_at(pipeline, 61, monkeypatch)

    assert (before["seconds"], before["steps"], before["rate"], before["seconds_left"]) == (37, 0, None, None)
    assert (after["steps"], after["rate"], after["seconds_left"]) == (1, None, None)


def test_when_all_is_decoded_the_time_left_is_that_of_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = FramePipeline([CollectSink()], total_frames=8)
    decoding(pipeline, (0, 2, 4), (2, 4, 4))

    assert state_at(pipeline, 100, monkeypatch)["seconds_left"] == pytest.approx(4)


def test_time_that_goes_by_is_news_once_a_second() -> None:
    clock = FakeClock()
    run = LiveRun(FramePipeline([CollectSink()]), {}, clock=clock)
    first, told = run.news(), []

    for _ in range(35):
        clock.seconds += INTERVAL
        told.append(run.news() is not None)

    assert first is not None
    assert told.count(True) == 3


def test_no_advice_before_a_frame_has_been_written() -> None:
    clock = FakeClock()
    sink = GateSink()
    with FramePipeline([sink], chunk_size=4, finish=FinishedFrames()) as pipeline:
        run = LiveRun(pipeline, {}, clock=clock)
        pipeline.submit(torch.zeros(4, 2, 2, 3))
        sink.wait_for(1)
        clock.seconds += 2
        before = run.news()
        sink.release(0)
        with pipeline._flow._changed:
            assert pipeline._flow._changed.wait_for(lambda: pipeline.written == 4, timeout=30)
        clock.seconds += 2
        after = run.news()

    assert before is not None and (before["received"], before["advice"], before["bottleneck"]) == (4, "", None)
    assert after is not None and after["advice"]


@pytest.mark.parametrize("device, unified", [("cpu", True), ("mps", True), ("cuda:0", False)])
def test_it_tells_why_nothing_is_copied(device: str, unified: bool) -> None:
    assert LiveRun(FramePipeline([CollectSink()], device=device), {}).snapshot()["unified"] is unified


def test_whoever_asks_for_the_whole_holds_up_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    import async_decode.pipeline.live as module

    run = LiveRun(FramePipeline([CollectSink()]), {})
    held: list[bool] = []
    monkeypatch.setattr(module, "blocks_of", lambda *_, **__: held.append(run._lock.locked()) or {})

    run.snapshot()

    assert held == [False]


class ShortSink(CollectSink):
    """Its file holds less than it should."""

    cut_short = True
    path = Path("clip_00001_cut-short.mp4")


def test_the_end_says_what_ended_a_run_and_what_is_cut_short() -> None:
    pipeline = FramePipeline([ShortSink(), CollectSink()])
    run = LiveRun(pipeline, {})

    with pytest.raises(RuntimeError, match="the decoder fails"), pipeline:
        raise RuntimeError("the decoder fails")

    ended = run.end()
    assert (ended["error"], ended["cut_short"]) == ("the decoder fails", ["clip_00001_cut-short.mp4"])


def test_a_file_is_told_as_the_caller_wants_it() -> None:
    pipeline = FramePipeline([ShortSink()])
    run = LiveRun(pipeline, {}, told_as=lambda path: {"stem": path.stem})

    with pytest.raises(RuntimeError), pipeline:
        raise RuntimeError("the decoder fails")

    assert run.end()["cut_short"] == [{"stem": "clip_00001_cut-short"}]


def test_a_run_that_came_to_its_end_has_lost_nothing() -> None:
    pipeline = FramePipeline([CollectSink()])
    run = LiveRun(pipeline, {})
    with pipeline:
        pipeline.decode(choose_tap(ToyVAE().video_decoder()), toy_latent(8))

    ended = run.end()
    assert (ended["error"], ended["cut_short"]) == (None, [])
