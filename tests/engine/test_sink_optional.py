"""What an optional sink fails with is told, and costs neither the run nor what other sinks make."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from async_decode import Cancelled, FramePipeline, SinkError
from async_decode.device.conversion import FinishedFrames
from async_decode.frames import Clip, FrameArray
from async_decode.sinks import OptionalSink, VideoSink
from async_decode.sinks import optional as optional_sink
from async_decode.sinks import patience as sink_patience
from async_decode.sinks.files import OutputNames
from async_decode.sinks.workers import running_future
from async_decode.spans import Recorder
from tests.engine.sink_tools import PATIENCE, ffmpeg_children, nothing_survives, probe, small_disk
from tests.engine.toy import CollectSink, FailingSink, GateSink

FRAMES = 13


def run(*sinks: CollectSink | OptionalSink | VideoSink, size: tuple[int, int] = (32, 48)) -> FramePipeline:
    pipeline = FramePipeline(sinks, chunk_size=2, finish=FinishedFrames(), total_frames=FRAMES)
    with pipeline:
        generator = torch.Generator().manual_seed(0)
        for _ in range(FRAMES):
            pipeline.submit(torch.rand(1, *size, 3, generator=generator))
    return pipeline


class UnpreparedSink(FailingSink):
    """Fails before anything is decoded."""

    def prepare(self) -> None:
        super().prepare()
        raise self.error


@pytest.mark.parametrize("where", ["prepare", "open", "write:0", "write:3", "future:0", "future:3", "close"])
def test_the_others_get_every_frame_wherever_it_fails(where: str) -> None:
    kind = UnpreparedSink if where == "prepare" else FailingSink
    failing = kind(where, SinkError("no room"))
    whole = CollectSink()

    pipeline = run(OptionalSink(failing, "there is no small one"), whole)

    assert whole.calls == ["open", "close"]
    assert len(whole.frames) == FRAMES
    assert list(pipeline.report.warnings).count("there is no small one: no room") == 1
    assert pipeline.report.outcome == "completed"
    # Nothing of it is left behind, and it is not asked again after its failure.
    assert "abort" in failing.calls or where == "close"
    assert ("close" in failing.calls) == (where == "close")


def test_what_does_not_fail_is_whole_too() -> None:
    inner, whole = CollectSink(threaded=True), CollectSink()

    pipeline = run(OptionalSink(inner, "there is no small one"), whole)

    assert np.array_equal(inner.frames, whole.frames)
    assert inner.calls == ["open", "close"]
    assert not [warning for warning in pipeline.report.warnings if "small one" in warning]


def test_what_it_says_of_its_own_is_told_apart_from_what_others_say() -> None:
    inner, whole = CollectSink(), CollectSink()
    inner.notes, whole.notes = ["the sound was left out"], ["the sound was mixed"]

    pipeline = run(OptionalSink(inner, "there is no small one", place="in the small one"), whole)

    assert "in the small one, the sound was left out" in pipeline.report.warnings
    assert "the sound was mixed" in pipeline.report.warnings
    assert "the sound was left out" not in pipeline.report.warnings


def test_an_abort_is_no_failure_of_its_own() -> None:
    gate = GateSink()
    optional = OptionalSink(gate, "there is no small one")
    failing = FailingSink("write:1", SinkError("the file failed"))

    with pytest.raises(SinkError, match="the file failed"):
        run(optional, failing)

    assert "abort" in gate.calls
    assert optional.error is None
    assert not optional.notes


def test_a_full_disk_for_the_small_video_does_not_cost_the_large_one(tmp_path: Path) -> None:
    with small_disk(tmp_path, "16k") as disk, nothing_survives(tmp_path):
        small = OptionalSink(VideoSink(OutputNames(disk, "s"), fps=24, crf=0), "there is no small video")
        file = VideoSink(OutputNames(tmp_path / "made", "a"), fps=24)
        pipeline = run(small, file, size=(128, 128))

        assert file.path is not None and not file.cut_short
        assert probe(file.path).frames == FRAMES
        (warning,) = [warning for warning in pipeline.report.warnings if "there is no small video" in warning]
        assert "No space left on device" in warning


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the encoder in /proc")
def test_a_killed_encoder_of_the_small_video_does_not_cost_the_large_one(tmp_path: Path) -> None:
    small = VideoSink(OutputNames(tmp_path / "temp", "small-one"), fps=24)
    file = VideoSink(OutputNames(tmp_path / "made", "a"), fps=24)
    optional = OptionalSink(small, "there is no small video")
    with (
        nothing_survives(tmp_path),
        FramePipeline([optional, file], chunk_size=1, finish=FinishedFrames()) as pipeline,
    ):
        for index in range(FRAMES):
            pipeline.submit(torch.rand(1, 256, 256, 3))
            if index == 3:
                (encoder,) = [
                    pid for pid in ffmpeg_children() if b"small-one" in Path(f"/proc/{pid}/cmdline").read_bytes()
                ]
                os.kill(encoder, signal.SIGKILL)

    assert file.path is not None and not file.cut_short
    assert probe(file.path).frames == FRAMES
    assert "killed by SIGKILL" in str(optional.error)


class HangingSink(CollectSink):
    """Is never done with its chunks, or never closed, until it is aborted."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.hangs = threading.Event()
        self.aborted = threading.Event()
        self.futures: list[Future[None]] = []

    def write(self, frames: FrameArray, first_index: int) -> Future[None] | None:
        super().write(frames, first_index)
        if self.where != "write":
            return None
        self.hangs.set()
        self.futures.append(running_future())
        return self.futures[-1]

    def close(self) -> None:
        super().close()
        self.hangs.set()
        assert self.aborted.wait(PATIENCE)
        raise Cancelled("it was aborted")

    def abort(self) -> None:
        super().abort()
        self.aborted.set()
        for future in self.futures:
            if not future.done():
                future.set_exception(Cancelled("it was aborted"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that does not get on is waited for no longer than the run has taken, and is looked at often."""
    monkeypatch.setattr(sink_patience, "PATIENCE", 0.0)
    monkeypatch.setattr(optional_sink, "_INTERVAL", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", ["write", "close"])
def test_the_others_do_not_wait_for_one_that_hangs(where: str) -> None:
    hanging, whole = HangingSink(where), CollectSink()
    before = threading.active_count()

    pipeline = run(OptionalSink(hanging, "there is no small one", progress=lambda: 0), whole)

    assert whole.calls == ["open", "close"]
    assert len(whole.frames) == FRAMES
    (warning,) = [warning for warning in pipeline.report.warnings if "small one" in warning]
    assert warning.startswith("there is no small one: it got no further for ")
    assert pipeline.report.outcome == "completed"
    assert threading.active_count() == before


def test_the_time_that_the_machine_slept_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(sink_patience, "time", SimpleNamespace(monotonic=lambda: now))
    patience = sink_patience.Patience(0)
    assert not patience.ended("here")
    now += 8 * 3600
    assert not patience.ended("here")

    looks = 0
    while not patience.ended("here"):
        now, looks = now + 1, looks + 1

    assert looks == 61


@pytest.mark.usefixtures("impatient")
def test_one_that_gets_on_is_waited_for() -> None:
    slow, looks = GateSink(), itertools.count()

    def progress() -> int:
        look = next(looks)
        # The last of some looks lets it go on.
        if slow.pending and look % 4 == 3:
            slow.release(min(slow.pending))
        return look

    optional = OptionalSink(slow, "there is no small one", progress=progress)
    pipeline = run(optional)

    assert slow.calls == ["open", "close"]
    assert len(slow.frames) == FRAMES
    assert optional.error is None
    assert pipeline.report.outcome == "completed"


def test_an_abort_does_not_wait_for_the_watch() -> None:
    hanging, failing = HangingSink("write"), FailingSink("write:1", SinkError("the file failed"))
    optional = OptionalSink(hanging, "there is no small one", progress=lambda: 0)
    before = threading.active_count()

    with pytest.raises(SinkError, match="the file failed"):
        run(optional, failing)

    assert optional.error is None
    assert threading.active_count() == before


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the encoder in /proc")
def test_a_stopped_encoder_of_the_small_video_does_not_hold_the_large_one(tmp_path: Path) -> None:
    # However busy the machine is: what is not stopped gets on.
    stopped, looks = threading.Event(), itertools.count(1)
    small = VideoSink(OutputNames(tmp_path / "temp", "small-one"), fps=24, grace=0)
    file = VideoSink(OutputNames(tmp_path / "made", "a"), fps=24)
    optional = OptionalSink(small, "there is no small video", progress=lambda: 0 if stopped.is_set() else next(looks))
    with (
        nothing_survives(tmp_path),
        FramePipeline([optional, file], chunk_size=1, finish=FinishedFrames()) as pipeline,
    ):
        for index in range(FRAMES):
            pipeline.submit(torch.rand(1, 256, 256, 3))
            if index == 3:
                (encoder,) = [
                    pid for pid in ffmpeg_children() if b"small-one" in Path(f"/proc/{pid}/cmdline").read_bytes()
                ]
                os.kill(encoder, signal.SIGSTOP)
                stopped.set()

    assert file.path is not None and not file.cut_short
    assert probe(file.path).frames == FRAMES
    assert "it got no further for" in str(optional.error)


def test_it_gets_on_as_long_as_the_watch_waits_for_it() -> None:
    hanging = HangingSink("close")
    watched, unwatched = OptionalSink(hanging, "", progress=lambda: 0), OptionalSink(CollectSink(), "")
    for sink in (watched, unwatched):
        sink.open(Clip(height=2, width=2, channels=3), Recorder())
    assert watched.progress is None, "nobody waits for it yet"

    def close() -> None:
        with pytest.raises(Cancelled):
            watched.close()

    closing = threading.Thread(target=close)
    closing.start()
    assert hanging.hangs.wait(PATIENCE)

    assert watched.progress not in (None, watched.progress)
    assert unwatched.progress is None
    watched.abort()
    closing.join()
    assert watched.progress is None
