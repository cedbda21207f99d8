"""How many writers there are when nobody says it: more while they are behind and cores are idle, never beyond that."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from async_decode import Recorder, Stage
from async_decode.sinks import ImageFilesSink, cores
from async_decode.sinks.cores import Cores, usable_cores
from async_decode.sinks.files import OutputNames
from async_decode.sinks.image.files import first_writers
from tests.engine.sink_tools import PATIENCE, GateEncoder, clip_of, nothing_survives, numbered


class ScriptedCores(Cores):
    """Says what the test wants; an answer that nobody asks for stays for the next who does."""

    def __init__(self, count: int, *answers: float | None) -> None:
        self.count = count
        self.answers = list(answers)

    def idle(self) -> float | None:
        return self.answers.pop(0)


class Writing:
    """Chunks of 4 frames on their way to a sink whose encoder waits for the test."""

    def __init__(self, folder: Path, cores: Cores | None, *, writers: int | None = None) -> None:
        self.frames, self.gate, self.recorder = numbered(40), GateEncoder(), Recorder()
        self.sink = ImageFilesSink(OutputNames(folder, "a"), self.gate, writers=writers, cores=cores)
        self.sink.open(clip_of(self.frames), self.recorder)
        self.taken: list = []

    def write_chunk(self) -> int:
        """Hand over the next chunk; return how many writers there are then."""
        first = 4 * len(self.taken)
        self.taken.append(self.sink.write(self.frames[first : first + 4], first))
        return self.sink.writers

    def finish(self) -> None:
        for number in range(4 * len(self.taken)):
            self.gate.release(number)
        for future in self.taken:
            future.result(PATIENCE)
        self.sink.close()


def test_writers_are_added_while_they_are_behind_and_cores_are_idle(tmp_path: Path) -> None:
    scripted = ScriptedCores(8, 0.7, None, 2.9, 8.0)
    with nothing_survives(tmp_path):
        writing = Writing(tmp_path, scripted)
        assert writing.write_chunk() == 4
        writing.gate.wait_for(0, 1, 2, 3)
        # Nothing waits for a writer yet, so that nobody looks at the cores.
        assert writing.write_chunk() == 4 and len(scripted.answers) == 4
        # Frames 4 to 7 wait: no core is idle, then it is too early to tell, then almost three are.
        assert writing.write_chunk() == 4
        assert writing.write_chunk() == 4
        assert writing.write_chunk() == 7
        writing.gate.wait_for(4, 5, 6)
        # Never more than there are cores.
        assert writing.write_chunk() == 8
        writing.gate.wait_for(7)
        writing.finish()

    lanes = {span.lane for span in writing.recorder.spans if span.stage is Stage.SAVE}
    assert lanes == {f"gate writer {number}" for number in range(1, 9)}
    assert [path.read_bytes() for path in writing.sink.files] == [frame.tobytes() for frame in writing.frames[:24]]


def test_no_more_writers_are_added_than_frames_wait(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        writing = Writing(tmp_path, ScriptedCores(64, 60.0))
        writing.write_chunk()
        writing.gate.wait_for(0, 1, 2, 3)
        writing.write_chunk()
        writing.gate.release(0)
        writing.gate.wait_for(0, 1, 2, 3, 4)
        # Frames 5, 6 and 7 wait.
        assert writing.write_chunk() == 7
        writing.finish()


def test_one_writer_gets_company_on_a_small_machine_whose_decoder_waits(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        writing = Writing(tmp_path, ScriptedCores(2, 0.2, 0.9))
        assert [writing.write_chunk() for _ in range(3)] == [1, 1, 2]
        writing.finish()


def test_a_number_that_was_asked_for_stays(tmp_path: Path) -> None:
    scripted = ScriptedCores(8)
    with nothing_survives(tmp_path):
        writing = Writing(tmp_path, scripted, writers=2)
        assert [writing.write_chunk() for _ in range(4)] == [2, 2, 2, 2]
        writing.finish()


def test_abort_ends_the_writers_that_were_added(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        writing = Writing(tmp_path, ScriptedCores(8, 8.0))
        assert writing.write_chunk() == 4
        writing.gate.wait_for(0, 1, 2, 3)
        assert [writing.write_chunk() for _ in range(2)] == [4, 8]
        writing.gate.wait_for(*range(8))
        writing.sink.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "writers"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)])
def test_it_begins_with_half_of_the_cores_up_to_four(count: int, writers: int) -> None:
    assert first_writers(count) == writers


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("250000 100000", 3), ("50000 100000", 1), ("nonsense", 8), (None, 8)]
)
def test_a_containers_quota_counts(
    quota: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    monkeypatch.setattr(cores, "Path", lambda _: file)

    assert usable_cores() == expected


def look_after(seconds: float, ours: float, idle: float | None, monkeypatch: pytest.MonkeyPatch) -> float | None:
    """What ``Cores`` on a machine of 4 says after so many seconds, in which this process and nobody used so much."""
    clock, used, unused = [100.0], [7.0], [None if idle is None else 50.0]
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "process_time", lambda: used[0])
    monkeypatch.setattr(cores, "_idle_seconds", lambda: unused[0])
    watch = Cores()
    clock[0] += seconds
    used[0] += ours
    if idle is not None:
        unused[0] = 50.0 + idle
    return watch.idle()


@pytest.mark.parametrize(
    ("seconds", "ours", "idle", "expected"),
    [
        # Others use 1.5 of the cores, we one.
        (2.0, 2.0, 3.0, 1.5),
        # A quota, of which the system's figures know nothing, leaves one.
        (2.0, 6.0, 100.0, 1.0),
        # The system tells nothing.
        (2.0, 2.0, None, 3.0),
        # Clocks that tick at different times.
        (1.0, 4.1, 0.0, 0.0),
        (1.0, 0.0, 4.2, 4.0),
        # Too early to tell.
        (0.2, 0.0, 0.8, None),
    ],
)
def test_idle_cores(
    seconds: float, ours: float, idle: float | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look_after(seconds, ours, idle, monkeypatch) == (None if expected is None else pytest.approx(expected))


class FakePsutil:
    """Tells the times of four cores, as on Linux."""

    Error = RuntimeError

    class Times(NamedTuple):
        user: float
        idle: float
        iowait: float

    def cpu_times(self, *, percpu: bool) -> list[Times]:
        assert percpu
        return [self.Times(1000.0, 10.0**core, 0.5) for core in range(4)]


def test_only_cores_that_this_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "psutil", FakePsutil())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)

    assert cores._idle_seconds() == 1 + 100 + 2 * 0.5


def test_without_psutil_this_process_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "psutil", None)

    assert cores._idle_seconds() is None


def test_the_systems_own_figures_make_sense() -> None:
    watch = Cores()
    # Whatever else runs here: there is an answer at last, and it is a number of cores.
    while (idle := watch.idle()) is None:
        pass
    assert 0 <= idle <= watch.count == usable_cores()
