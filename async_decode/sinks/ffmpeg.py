"""ffmpeg: finding it, running it, feeding it, and being sure that it is gone.

One process of our own instead of ``imageio_ffmpeg.write_frames``, which never looks at the exit status and shows no
error text. That package provides the executable.

What keeps a process from outliving its owner:

* ``end`` may be called from any thread, also while another one is blocked in ``write``: killing the process breaks the
  pipe, and that ends the write.
* One thread of each process reads what it prints and reaps it, so that none stays a zombie.
* If this program dies, even by ``kill -9``, the pipe's last writer is gone: ffmpeg reads the end of its input, finishes
  its file and exits. That costs nothing and works on every system, where Linux's ``PR_SET_PDEATHSIG`` would need code
  between fork and exec and would fire when the *thread* that started ffmpeg ends. (It relies on nobody inheriting the
  pipe: Python opens it close-on-exec, only children that fork without exec get it.)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from ..errors import FFmpegError

#: How much of the end of ffmpeg's messages is kept, in bytes.
TAIL_BYTES = 8192
#: What the pipe to ffmpeg should hold, in bytes, where that can be chosen: Linux' own 64 KiB wake both sides too often.
_PIPE_BYTES = 1 << 20
#: How long a process that was asked to terminate may take before it is killed, in seconds.
_TERMINATE_SECONDS = 1.0
#: How long a process that no longer reads its input may take to exit by itself, in seconds.
_EXIT_SECONDS = 10.0
#: Windows has no SIGKILL, and ends a process in one way only.
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
#: What ends a process that writes more into a file than it may; Windows has no such limit.
_TOO_LARGE: int | None = getattr(signal, "SIGXFSZ", None)
#: Windows would open a console for it, and would send it our Ctrl+C; both names exist there only.
_NO_CONSOLE = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


def find_ffmpeg() -> str:
    """The ffmpeg to run: ``IMAGEIO_FFMPEG_EXE`` if set, else imageio-ffmpeg's own, else conda's or the system's.

    Raises:
        FFmpegError: there is none.
    """
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise FFmpegError(
            f"no ffmpeg was found ({error}); run 'pip install imageio-ffmpeg' in the Python that runs this, or set "
            "IMAGEIO_FFMPEG_EXE to the path of an ffmpeg"
        ) from error


def ask(executable: str, *arguments: str, timeout: float = 30.0) -> str:
    """What ffmpeg prints, on either output, when it is run with ``arguments`` and no input; empty if it hangs.

    Raises:
        FFmpegError: ffmpeg could not be started.
    """
    try:
        done = subprocess.run(
            [executable, "-hide_banner", "-nostdin", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            creationflags=_NO_CONSOLE,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return ""
    except OSError as error:
        raise _not_started(executable, error) from error
    return done.stdout.decode(errors="replace")


@cache
def major_version(executable: str) -> int | None:
    """The first number of an ffmpeg's version, asked for once; ``None``: it tells none, as builds between releases.

    Raises:
        FFmpegError: ffmpeg could not be started.
    """
    told = re.match(r"ffmpeg version n?(\d+)\.", ask(executable, "-version"))
    return int(told[1]) if told else None


def run_piped(arguments: Sequence[str], data: bytes | memoryview, *, poll: Callable[[], object]) -> bytes:
    """Feed ``data`` to an ffmpeg and return what it writes; both go through its pipes.

    Args:
        arguments: without the executable, ``pipe:0`` and ``pipe:1`` among them.
        poll: called ten times a second while it works; what it raises ends ffmpeg.

    Raises:
        FFmpegError: it could not be started, or failed.
    """
    executable = find_ffmpeg()
    try:
        process = subprocess.Popen(
            [executable, "-hide_banner", "-nostdin", "-v", "error", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            creationflags=_NO_CONSOLE,
            start_new_session=True,
        )
    except OSError as error:
        raise _not_started(executable, error) from error
    # Not by ``communicate``: called again after its timeout, it feeds no more of what it was given the first time.
    fed = (process.stdin, memoryview(data).cast("B"))
    feeder = threading.Thread(target=_feed, args=fed, name=f"ffmpeg {process.pid}", daemon=True)
    process.stdin = None
    feeder.start()
    with process:
        try:
            while True:
                try:
                    out, said = process.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    poll()
        except BaseException:
            process.kill()
            raise
        finally:
            # ffmpeg is gone, which ends a write into its pipe; a child of a script around it may still hold that.
            feeder.join(_EXIT_SECONDS)
    if process.returncode:
        tail = said.decode(errors="replace").strip()
        raise FFmpegError(f"ffmpeg failed ({_status(process.returncode)}): {tail[-500:]}")
    return out


def _feed(pipe: Any, data: memoryview) -> None:
    """Write ``data`` and close ``pipe``; an ffmpeg that takes no more tells why itself."""
    with suppress(OSError), pipe:
        pipe.write(data)


def file_url(path: str | os.PathLike[str]) -> str:
    """``path`` as ffmpeg takes any file name: none is mistaken for an option or a protocol."""
    return "file:" + os.path.abspath(path)


def ffmetadata(tags: Mapping[str, str]) -> str:
    """``tags`` in ffmpeg's metadata file format, which has no limit on lengths (a command line has).

    Raises:
        ValueError: a tag holds a NUL, which the format cannot carry.
    """
    lines = [";FFMETADATA1"]
    for key, value in tags.items():
        if "\0" in key + value:
            raise ValueError(f"a tag of a file cannot hold a NUL character, got one in {key!r}")
        # After a backslash, even an escaped one, ffmpeg reads on past a line's end, but never past a NUL.
        end = "\0" if value.endswith("\\") else ""
        lines.append(f"{key.translate(_ESCAPES)}={value.translate(_ESCAPES)}{end}")
    return "\n".join(lines) + "\n"


#: A bare carriage return would end the value: ffmpeg takes it for the end of the line.
_ESCAPES = str.maketrans({character: "\\" + character for character in "=;#\\\n\r"})


class FFmpegProcess:
    """One run of ffmpeg that is fed through its standard input.

    Args:
        arguments: everything behind the executable and the options that every run has.
        executable: the ffmpeg to run; ``None``: ``find_ffmpeg()``.
        pass_fds: files that it inherits, where those have numbers (not on Windows).

    Attributes:
        pid: the process's number.
        was_ended: ``end`` had to kill it.

    Raises:
        FFmpegError: ffmpeg is missing or could not be started.
    """

    def __init__(
        self, arguments: Sequence[str], *, executable: str | None = None, pass_fds: Sequence[int] = ()
    ) -> None:
        executable = executable or find_ffmpeg()
        # -nostdin: standard input carries frames, never key strokes.
        command = [executable, "-hide_banner", "-nostdin", "-loglevel", "warning", *arguments]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                creationflags=_NO_CONSOLE,
                # A group of its own: else Ctrl+C in a terminal would end it before we have decided how.
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except OSError as error:
            raise _not_started(executable, error) from error
        self.pid = self._process.pid
        self.was_ended = False
        self._tail = bytearray()
        self._exited = threading.Event()
        # Held while standard input is written to or closed: its number could be another file's after a close.
        self._input_lock = threading.Lock()
        _enlarge_pipe(self._process)
        # A daemon, so that a program that ends without closing its sinks is not kept alive.
        self._reader = threading.Thread(target=self._read_and_reap, name=f"ffmpeg {self.pid}", daemon=True)
        self._reader.start()

    def write(self, data: memoryview) -> None:
        """Feed ``data``, C-contiguous, without copying it; return when the pipe has taken all of it.

        Raises:
            FFmpegError: ffmpeg has ended, or was ended by another thread.
        """
        stdin = self._process.stdin
        assert stdin is not None
        rest = data.cast("B")
        try:
            with self._input_lock:
                while rest:
                    rest = rest[stdin.write(rest) :]
        except (OSError, ValueError) as error:
            # The pipe is broken (or closed, by end): why, is in what the process leaves behind.
            self._exited.wait(_EXIT_SECONDS)
            self.end(grace=0)
            raise self._failure("stopped before it had all frames") from error

    def finish(self) -> None:
        """End the input and wait until ffmpeg has finished its file; ``end`` from another thread ends the wait.

        Raises:
            FFmpegError: it exited with an error.
        """
        with self._input_lock:
            self._close_input()
        self._exited.wait()
        self._reader.join()
        if self._process.returncode != 0:
            raise self._failure("failed")

    def end(self, grace: float = 2.0) -> None:
        """Make sure that the process is gone, from any thread, at any time, any number of times. Never raises.

        It is given the end of its input and ``grace`` seconds to finish, then it is asked to terminate, then killed.

        Args:
            grace: in seconds; 0 kills at once.
        """
        deadline = time.monotonic() + grace
        if grace > 0:
            # A thread that is blocked in write holds the lock: then only killing helps.
            if self._input_lock.acquire(timeout=grace):
                try:
                    self._close_input()
                finally:
                    self._input_lock.release()
                self._exited.wait(max(0.0, deadline - time.monotonic()))
            if not self._exited.is_set():
                self.was_ended = True
                self._signal(signal.SIGTERM)
                self._exited.wait(_TERMINATE_SECONDS)
        if not self._exited.is_set():
            self.was_ended = True
            self._signal(_KILL)
        self._exited.wait()
        with self._input_lock:
            self._close_input()
        self._reader.join()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds; return whether the process is gone and reaped."""
        return self._exited.wait(timeout)

    @property
    def tail(self) -> str:
        """The end of what it has printed so far, at most ``TAIL_BYTES``."""
        return self._tail.decode(errors="replace").strip()

    def _signal(self, number: int) -> None:
        if sys.platform == "win32":
            self._process.terminate()
            return
        # To its whole group: the executable may be a script around the real one.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _read_and_reap(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with stderr:
            while chunk := stderr.read(4096):
                # Replaced, never changed: tail may be read meanwhile.
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        self._process.wait()
        self._exited.set()

    def _failure(self, what: str) -> FFmpegError:
        tail = self.tail or "(it printed nothing)"
        return FFmpegError(
            f"ffmpeg {what} ({_status(self._process.returncode)}): {tail}\n{_remedy(self._process.returncode, tail)}"
        )


def _not_started(executable: str, error: OSError) -> FFmpegError:
    return FFmpegError(
        f"ffmpeg could not be started: {executable}: {error.strerror or error}; reinstall imageio-ffmpeg, or "
        "set IMAGEIO_FFMPEG_EXE to the path of a working ffmpeg"
    )


def _enlarge_pipe(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "linux" and process.stdin is not None:
        import fcntl

        # An unprivileged user may have used up what pipes may hold.
        with suppress(OSError):
            fcntl.fcntl(process.stdin, getattr(fcntl, "F_SETPIPE_SZ", 1031), _PIPE_BYTES)


def _status(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def _remedy(returncode: int, tail: str) -> str:
    if "No space left" in tail or "Disk quota" in tail:
        return "Free some space, or choose another folder."
    if _TOO_LARGE is not None and returncode == -_TOO_LARGE:
        return "Its file has grown as large as one may be here: raise that limit (ulimit -f), or write less."
    if returncode < 0:
        return "It was ended from outside, or by running out of memory; see the system's log, and try again."
    return "See its message above; another format or quality, or another ffmpeg (IMAGEIO_FFMPEG_EXE) may help."
