"""An ffmpeg of ours says why it failed, can be ended from anywhere, and never outlives us."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_decode import FFmpegError
from async_decode.sinks.ffmpeg import TAIL_BYTES, FFmpegProcess, ffmetadata, file_url, find_ffmpeg, run_piped
from tests.engine.sink_tools import PATIENCE, decode, nothing_survives, pictures

posix = pytest.mark.skipif(os.name == "nt", reason="needs signals and shell scripts")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, /dev/full or pidfd")

#: More than any pipe takes without a reader.
MUCH = memoryview(bytes(8 << 20))


def rgb_input(width: int, height: int) -> list[str]:
    return ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}", "-i", "pipe:0"]


def copying(output: str) -> list[str]:
    """Arguments for an ffmpeg that writes to ``output`` what it is fed, in frames of 32x32."""
    return [*rgb_input(32, 32), "-c", "copy", "-f", "rawvideo", "-y", output]


def script(folder: Path, text: str) -> str:
    """An executable that does ``text`` in place of ffmpeg."""
    path = folder / "fake-ffmpeg"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return os.fspath(path)


def test_everything_that_is_fed_arrives(tmp_path: Path) -> None:
    frames = pictures(500, 32, 32)
    with nothing_survives(tmp_path):
        process = FFmpegProcess(copying(file_url(tmp_path / "out.raw")))
        process.write(memoryview(frames))
        process.write(memoryview(frames[:1]))
        process.finish()

    assert (tmp_path / "out.raw").read_bytes() == frames.tobytes() + frames[0].tobytes()


@pytest.mark.parametrize("name", ["-y", "a b", "pipe:1", "%03d", "é𝄞", "[x]=;#"])
def test_any_file_name_is_taken_as_such(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process = FFmpegProcess(copying(file_url(name)))
    process.write(memoryview(bytes(32 * 32 * 3)))
    process.finish()

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_missing_executable_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")

    assert find_ffmpeg() == "/nowhere/ffmpeg"
    with pytest.raises(FFmpegError, match=r"/nowhere/ffmpeg: No such file.*IMAGEIO_FFMPEG_EXE"):
        FFmpegProcess([])


def test_no_ffmpeg_at_all_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", nothing_found)
    with pytest.raises(FFmpegError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(FFmpegError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "ffmpeg").write_text("not a program")

    with pytest.raises(FFmpegError, match=r"tmp.*ffmpeg: Permission denied|could not be started"):
        FFmpegProcess([], executable=os.fspath(tmp_path / "ffmpeg"))


def test_error_status_carries_what_was_printed(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        process = FFmpegProcess([*rgb_input(32, 32), "-c:v", "no_such_codec", file_url(tmp_path / "a.mp4")])
        with pytest.raises(FFmpegError, match=r"ffmpeg failed \(exit status \d+\): .*no_such_codec"):
            process.finish()


def test_feeding_an_ffmpeg_that_gave_up_carries_what_it_printed(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        process = FFmpegProcess([*rgb_input(32, 32), "-c:v", "no_such_codec", file_url(tmp_path / "a.mp4")])
        with pytest.raises(FFmpegError, match=r"stopped before it had all frames.*no_such_codec"):
            process.write(MUCH)


@linux
def test_full_disk_is_named_with_a_remedy(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        process = FFmpegProcess(copying("file:/dev/full"))
        with pytest.raises(FFmpegError, match=r"(?s)No space left on device.*Free some space"):
            process.write(MUCH)
            process.finish()


@posix
def test_a_file_that_may_not_grow_any_more_is_named_with_a_remedy(tmp_path: Path) -> None:
    fake = script(tmp_path, "trap - XFSZ\nkill -s XFSZ $$\n")
    process = FFmpegProcess([], executable=fake)

    with pytest.raises(FFmpegError, match=r"(?s)killed by SIGXFSZ.*ulimit -f"):
        process.finish()


@posix
def test_only_the_end_of_long_messages_is_kept(tmp_path: Path) -> None:
    fake = script(tmp_path, "head -c 300000 /dev/zero | tr '\\0' x >&2\necho the end >&2\nexit 3\n")
    process = FFmpegProcess([], executable=fake)

    with pytest.raises(FFmpegError, match=r"exit status 3\): x+the end\n") as caught:
        process.finish()
    assert len(str(caught.value)) < TAIL_BYTES + 500


@posix
def test_killed_ffmpeg_says_so_to_the_thread_that_feeds_it(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        process = FFmpegProcess(copying("file:/dev/null"))
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(FFmpegError, match=r"(?s)killed by SIGKILL.*running out of memory"):
            process.write(MUCH)


def blocked_writer(process: FFmpegProcess) -> tuple[threading.Thread, list[BaseException]]:
    """A thread that feeds ``process`` more than it takes; returns when it surely is at it."""
    raised: list[BaseException] = []
    begun = threading.Event()

    def feed() -> None:
        try:
            process.write(MUCH[: 1 << 10])
            begun.set()
            process.write(MUCH)
        except FFmpegError as error:
            raised.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    assert begun.wait(PATIENCE)
    return thread, raised


@posix
@pytest.mark.parametrize("grace", [0.0, 0.05])
def test_hung_ffmpeg_is_ended_under_a_thread_that_feeds_it(tmp_path: Path, grace: float) -> None:
    with nothing_survives(tmp_path):
        process = FFmpegProcess(copying("file:/dev/null"))
        os.kill(process.pid, signal.SIGSTOP)
        thread, raised = blocked_writer(process)

        process.end(grace=grace)

        thread.join(PATIENCE)
        assert not thread.is_alive() and len(raised) == 1
        process.end()


@posix
def test_stubborn_script_around_ffmpeg_is_ended_with_its_children(tmp_path: Path) -> None:
    # The child holds the other end of standard error: only when it is gone too is there nothing left to wait for.
    fake = script(tmp_path, "trap '' TERM\nsleep 1000 &\nwait\nsleep 1000\n")
    with nothing_survives(tmp_path):
        FFmpegProcess([], executable=fake).end(grace=0.05)


def test_end_lets_ffmpeg_finish_its_file_within_the_grace(tmp_path: Path) -> None:
    frames = pictures(9, 32, 32)
    path = tmp_path / "a.mp4"
    with nothing_survives(tmp_path):
        process = FFmpegProcess([*rgb_input(32, 32), "-pix_fmt", "yuv420p", "-f", "mp4", file_url(path)])
        process.write(memoryview(frames))
        process.end(grace=PATIENCE)

    assert len(decode(path, "rgb24", (32, 32), 3)) == 9


def test_end_of_what_has_ended_does_nothing(tmp_path: Path) -> None:
    process = FFmpegProcess(copying("file:" + os.devnull))
    process.finish()
    process.end()
    process.end(grace=0)

    with pytest.raises(FFmpegError, match="exit status 0"):
        process.write(MUCH)


def feed_and_wait(path: Path, told: multiprocessing.connection.Connection) -> None:
    process = FFmpegProcess([*rgb_input(32, 32), "-pix_fmt", "yuv420p", "-f", "mp4", "-y", file_url(path)])
    process.write(memoryview(pictures(9, 32, 32)))
    told.send(process.pid)
    threading.Event().wait()


@linux
def test_ffmpeg_ends_and_closes_its_file_when_we_are_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    program = context.Process(target=feed_and_wait, args=(tmp_path / "a.mp4", sender))
    program.start()
    assert receiver.poll(PATIENCE)
    ffmpeg = os.pidfd_open(receiver.recv())

    program.kill()

    readable, _, _ = select.select([ffmpeg], [], [], PATIENCE)
    os.close(ffmpeg)
    program.join(PATIENCE)
    assert readable, "ffmpeg lives on"
    assert len(decode(tmp_path / "a.mp4", "rgb24", (32, 32), 3)) == 9


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for ffmpeg is a script")
def test_what_starts_slowly_is_fed_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than a pipe holds, and more than a tenth of a second.
    given, polls = os.urandom(1 << 21), iter(range(200))
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", script(tmp_path, "sleep 0.5\nexec cat"))

    with nothing_survives(tmp_path):
        assert run_piped(["-f", "null", "-"], given, poll=lambda: next(polls)) == given


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for ffmpeg is a script")
def test_what_does_not_read_what_it_is_fed_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", script(tmp_path, "echo no such encoder >&2\nexit 3"))

    with nothing_survives(tmp_path), pytest.raises(FFmpegError, match="no such encoder"):
        run_piped(["-f", "null", "-"], bytes(1 << 21), poll=lambda: None)


def test_tags_cannot_hold_nul() -> None:
    with pytest.raises(ValueError, match="NUL character, got one in 'prompt'"):
        ffmetadata({"prompt": "a\0b"})


TAG_TEXT = st.characters() | st.sampled_from("=;#\\\n\r")


@given(st.dictionaries(st.text(TAG_TEXT, min_size=1, max_size=8), st.text(TAG_TEXT, max_size=20), max_size=3))
def test_tags_are_one_line_each_and_can_be_told_apart(tags: dict[str, str]) -> None:
    tags = {key: value for key, value in tags.items() if "\0" not in key + value}

    lines, unescaped, line, field = ffmetadata(tags).split("\n", 1)[1], {}, [""], 0
    characters = iter(lines)
    for character in characters:
        if character == "\\":
            line[field] += next(characters)
        elif character == "=":
            line.append("")
            field += 1
        elif character == "\0":
            # What ends a line whose value ends in a backslash.
            assert line[field].endswith("\\")
        elif character == "\n":
            key, value = line
            unescaped[key], line, field = value, [""], 0
        else:
            assert character not in ";#"
            line[field] += character

    assert unescaped == tags
