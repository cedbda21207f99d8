"""Video files: frames go through a pipe to an ffmpeg of our own, which encodes while the next ones are decoded."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

from ..errors import Cancelled
from ..ffmpeg import FFmpegProcess, ffmetadata, find_ffmpeg
from ..files import OutputNames, Reservation, file_error
from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder, Span, Stage
from .base import Sink
from .video_formats import H264_MP4, VideoFormat, encode_arguments, exact_rate
from .workers import Workers, running_future


class VideoSink(Sink):
    """Saves a clip as one video file.

    One thread feeds ffmpeg, frame by frame; a chunk's future is done when the pipe has taken all of it. The chunks that
    wait for that thread are bounded by the pipeline's slots.

    An abort lets ffmpeg close the file with the frames that it has, and names it ``…_cut-short.mp4``. If ffmpeg does
    not manage that in ``grace`` seconds (it hangs, or is much slower than the frames come), it is killed and nothing
    stays, as when there was not one frame yet.

    Args:
        names: where the file goes and what it is called.
        fps: frames a second; a fraction is exact, floats mean what ``exact_rate`` says.
        video: the format.
        crf: quality on the codec's scale; ``None``: the format's default.
        preset: speed of the encoder; ``None``: the format's default.
        metadata: text by key (``prompt``, ``workflow``, … already dumped as JSON), for the container's tags.
        grace: how long an abort waits for the file to be closed, in seconds.

    Attributes:
        path: the finished file; ``None`` before that.
        cut_short: the file holds less than the clip, and its name says so.
        frames: how many frames ffmpeg has taken.
        notes: what is different in the file from what the frames were, for people to read.

    Raises:
        ValueError: ``fps``, ``crf`` or ``preset`` is none that the format knows, or a tag holds a NUL.
    """

    pixel_format = PixelFormat.UINT8

    def __init__(
        self,
        names: OutputNames,
        *,
        fps: float | Fraction,
        video: VideoFormat = H264_MP4,
        crf: float | None = None,
        preset: str | None = None,
        metadata: Mapping[str, str] | None = None,
        grace: float = 10.0,
    ) -> None:
        self.rate = exact_rate(fps)
        self.video = video
        self.crf = video.crf if crf is None else crf
        self.preset = video.preset if preset is None else preset
        best, worst = video.crf_range
        if not best <= self.crf <= worst:
            raise ValueError(f"crf must be from {best:g} to {worst:g} for {video.name}, got {self.crf:g}")
        if self.preset not in video.presets:
            raise ValueError(f"expected a preset of {video.name} ({', '.join(video.presets)}), got {self.preset!r}")
        self.path: Path | None = None
        self.cut_short = False
        self.frames = 0
        self.notes: list[str] = []
        self._names = names
        self._metadata = ffmetadata(metadata) if metadata else None
        self._grace = grace

        self._recorder: Recorder | None = None
        self._workers: Workers | None = None
        self._process: FFmpegProcess | None = None
        self._name: Reservation | None = None
        self._tags: str | None = None
        self._stop = threading.Event()
        # Guards who hands in the last job, and in what order jobs get in; the rest belongs to the worker.
        self._lock = threading.Lock()
        self._taken = 0
        self._closing = False
        self._ending = False
        self._error: BaseException | None = None

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._recorder = recorder
        self.notes = _notes(self.video, clip)
        executable = find_ffmpeg()
        try:
            self._name = self._names.reserve(self.video.extension)
            self._tags = None if self._metadata is None else _write_tags(self._metadata)
            arguments = encode_arguments(
                self.video,
                clip,
                rate=self.rate,
                crf=self.crf,
                preset=self.preset,
                tags=self._tags,
                output=os.fspath(self._name.part),
            )
            self._process = FFmpegProcess(arguments, executable=executable)
        except BaseException:
            self._clean_up()
            raise
        self._workers = Workers("video writer")

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        written = running_future()
        with self._lock:
            self._raise_error()
            assert self._workers is not None, "write comes after open"
            self._taken += len(frames)
            self._workers.submit(partial(self._feed, frames, first_index, written))
        return written

    def close(self) -> None:
        with self._lock:
            self._raise_error()
            assert self._workers is not None, "close comes after open"
            self._closing = self._ending = True
            self._workers.submit(self._finish)
        self._workers.close()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        self._stop.set()
        with self._lock:
            if self._workers is None or self._process is None:
                return
            if not self._ending:
                self._ending = True
                self._workers.submit(self._finish)
        grace = self._grace if self.frames else 0
        if not self._workers.close(timeout=grace):
            self._process.end(grace=0)
            self._workers.close()

    # The worker's side.

    def _feed(self, frames: FrameArray, first_index: int, written: Future[None], lane: str) -> None:
        assert self._process is not None and self._recorder is not None
        try:
            began = self._recorder.now()
            for frame in frames:
                self._raise_error()
                self._process.write(memoryview(frame))
                self.frames += 1
            # What the encoder makes of it is only known at the end.
            self._recorder.add(Span(Stage.SAVE, lane, first_index, began, self._recorder.now(), len(frames)))
        except Cancelled as error:
            written.set_exception(error)
        except BaseException as error:
            written.set_exception(self._fail(error))
        else:
            written.set_result(None)

    def _finish(self, lane: str) -> None:
        """Close the file; the last job."""
        assert self._process is not None and self._recorder is not None and self._name is not None
        try:
            began = self._recorder.now()
            if self._error is not None:
                raise self._error
            if self.frames == 0:
                raise _aborted()
            self._process.finish()
            cut_short = not self._closing or self.frames < self._taken
            path = self._name.publish(cut_short=cut_short)
            size = path.stat().st_size
            self._recorder.add(Span(Stage.SAVE, lane, self.frames, began, self._recorder.now(), bytes=size))
            self.cut_short, self.path = cut_short, path
            self._error = _aborted() if cut_short else None
        except BaseException as error:
            self._fail(error)
        self._clean_up()

    def _fail(self, error: BaseException) -> BaseException:
        """Keep the first error and let go of everything; return what was kept."""
        if self._error is None:
            # An abort that lost patience has killed ffmpeg: that is no error of ffmpeg's.
            self._error = _aborted() if self._stop.is_set() else error
        self._clean_up()
        return self._error

    def _clean_up(self) -> None:
        if self._process is not None:
            self._process.end(grace=0)
        if self._name is not None:
            self._name.discard()
        if self._tags is not None:
            with suppress(OSError):
                os.unlink(self._tags)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise _aborted()


def _aborted() -> Cancelled:
    return Cancelled("saving the video was aborted")


def _notes(video: VideoFormat, clip: Clip) -> list[str]:
    notes = []
    if clip.channels == 4:
        notes.append(f"the alpha channel was left out: {video.name} has none")
    width, height = video.size(clip)
    if (width, height) != (clip.width, clip.height):
        notes.append(
            f"the video is {width}x{height}, the frames are {clip.width}x{clip.height}: {video.name} needs even sizes, "
            "so the last column or line is repeated"
        )
    return notes


def _write_tags(metadata: str) -> str:
    """A file with ``metadata`` that only this user can read (it may hold a private workflow); its path."""
    handle, path = tempfile.mkstemp(prefix="async-decode-", suffix=".ffmetadata")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(metadata)
    except OSError as error:
        os.unlink(path)
        raise file_error(path, error) from error
    return path
