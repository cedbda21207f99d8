"""Video files: frames go through a pipe to an ffmpeg of our own, which encodes while the next ones are decoded."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

from ...errors import Cancelled, FFmpegError
from ...frames import Clip, FrameArray, PixelFormat
from ...spans import Recorder, Span, Stage
from ..base import Sink
from ..ffmpeg import FFmpegProcess, ffmetadata, find_ffmpeg
from ..files import PART_SUFFIX, OutputNames, Reservation, file_error
from ..image.exif import exif_of
from ..image.webp_exif import add_exif
from ..workers import Workers, running_future
from .arguments import encode_arguments, whole_arguments
from .formats import H264_MP4, Tags, VideoFormat, exact_rate
from .notes import check_size, differences
from .sound import Sound, SoundFile
from .spool import FrameSpool
from .whole import WholeFile


class VideoSink(Sink):
    """Saves a clip as one video file.

    One thread feeds ffmpeg, frame by frame; a chunk's future is done when the pipe has taken all of it. The chunks that
    wait for that thread are bounded by the pipeline's slots.

    An abort lets ffmpeg close the file with the frames that it has, and names it ``…_cut-short.mp4``. If ffmpeg does
    not manage that in ``grace`` seconds (it hangs, or is much slower than the frames come), it is killed and nothing
    stays, as when there was not one frame yet.

    If this program is killed, ffmpeg sees the end of its input and closes the file, which keeps its ``.part`` name; if
    ffmpeg is killed as well, an MP4 or MOV still plays up to its last second.

    Args:
        names: where the file goes and what it is called.
        fps: frames a second; a fraction is exact, floats mean what ``exact_rate`` says.
        video: the format.
        crf: quality on the format's scale; ``None``: its default.
        preset: speed of the encoder; ``None``: the format's default.
        metadata: text by key (``prompt``, ``workflow``, … already dumped as JSON), for the container's tags or EXIF.
        sound: what is heard, from the first frame on; silence is put behind it, or its end cut off, to be as long as
            the video.
        trim_to_sound: leave out the frames behind the end of the sound.
        repeats: how often the clip is played once more. GIF and WebP say it to the player, where 0 means for ever; in
            other files its frames are encoded again.
        ping_pong: play it backwards too, without its first and last frame, which would be seen twice.
        convert_on_device: take frames that were converted to 4:2:0 on the device, where the codec wants those.
        frames_as: take these frames instead of the format's own.
        max_side: scale the video down so that no side is longer, in pixels.
        is_preview: nobody needs to be told how the file differs from the frames.
        grace: how long an abort waits for the file to be closed, in seconds.

    Attributes:
        path: the finished file; ``None`` before that.
        cut_short: the file holds less than the clip, and its name says so.
        frames: how many frames ffmpeg has taken.
        notes: what is different in the file from what the frames were, for people to read.

    Raises:
        ValueError: ``fps``, ``crf`` or ``preset`` is none that the format knows, or a tag holds a NUL.
    """

    def __init__(
        self,
        names: OutputNames,
        *,
        fps: float | Fraction,
        video: VideoFormat = H264_MP4,
        crf: float | None = None,
        preset: str | None = None,
        metadata: Mapping[str, str] | None = None,
        sound: Sound | None = None,
        trim_to_sound: bool = False,
        repeats: int = 0,
        ping_pong: bool = False,
        convert_on_device: bool = False,
        frames_as: PixelFormat | None = None,
        max_side: int | None = None,
        is_preview: bool = False,
        grace: float = 10.0,
    ) -> None:
        self.rate = exact_rate(fps)
        self.video = video
        self.crf = video.crf if crf is None else crf
        self.preset = video.preset if preset is None else preset
        if video.crf_range is not None:
            best, worst = video.crf_range
            if not best <= self.crf <= worst:
                raise ValueError(f"crf must be from {best:g} to {worst:g} for {video.name}, got {self.crf:g}")
        if self.preset not in video.presets:
            raise ValueError(f"expected a preset of {video.name} ({', '.join(video.presets)}), got {self.preset!r}")
        if video.max_rate is not None and self.rate > video.max_rate:
            raise ValueError(
                f"expected at most {video.max_rate} frames a second for {video.name}, whose players know no shorter "
                f"delays, got {float(self.rate):g}"
            )
        if repeats < 0:
            raise ValueError(f"expected 0 or more repeats, got {repeats}")
        if trim_to_sound and sound is None:
            raise ValueError("trim_to_sound needs sound, got none")
        self.pixel_format: PixelFormat = frames_as or (video.planar if convert_on_device else video.frames)
        self.path: Path | None = None
        self.cut_short = False
        self.frames = 0
        self.notes: list[str] = []
        self._names = names
        self._metadata = ffmetadata(metadata) if metadata and video.tags is Tags.CONTAINER else None
        self._exif = exif_of(metadata) if metadata and video.tags is Tags.EXIF else b""
        self._has_metadata = bool(metadata)
        self._sound = sound if video.sound is not None else None
        self._silenced = sound is not None and video.sound is None
        self._limit = sound.frames(self.rate) if sound is not None and trim_to_sound else None
        self._repeats = repeats
        self._ping_pong = ping_pong
        self._max_side = max_side
        self._is_preview = is_preview
        self._grace = grace

        self._recorder: Recorder | None = None
        self._workers: Workers | None = None
        self._executable: str | None = None
        self._process: FFmpegProcess | None = None
        self._whole: WholeFile | None = None
        self._name: Reservation | None = None
        self._tags: str | None = None
        self._temporary: list[str] = []
        self._heard: SoundFile | None = None
        self._spool: FrameSpool | None = None
        self._stop = threading.Event()
        # Guards who hands in the last job, and in what order jobs get in; the rest belongs to the worker.
        self._lock = threading.Lock()
        self._taken = 0
        self._fed = 0
        self._closing = False
        self._ending = False
        self._error: BaseException | None = None

    def prepare(self) -> None:
        super().prepare()
        find_ffmpeg()
        self._names.probe(self.video.extension)

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._recorder = recorder
        check_size(self.video, clip)
        self.notes = []
        if not self._is_preview:
            self.notes += differences(
                self.video,
                clip,
                self.pixel_format,
                silenced=self._silenced,
                untagged=self._has_metadata and self.video.tags is None,
            )
        self._executable = executable = find_ffmpeg()
        try:
            self._name = self._names.reserve(self.video.extension)
            if self._ping_pong or (self._repeats and not self.video.loops):
                self._spool = FrameSpool(self._names.folder)
            if self._metadata is not None:
                self._tags = self._keep(_write_tags(self._metadata))
            if self._sound is not None:
                frames = None if clip.frames is None else self._frames_of(clip.frames)
                self._heard = self._sound.write(None if frames is None else self._samples(self._sound, frames))
                self._keep(self._heard.path)
            arguments = encode_arguments(
                self.video,
                clip,
                rate=self.rate,
                crf=self.crf,
                preset=self.preset,
                output=os.fspath(self._name.part),
                frames=self.pixel_format,
                tags=self._tags,
                sound=self._heard,
                plays=self._repeats + 1 if self._repeats else 0,
                max_side=self._max_side,
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
            self._end_processes()
            self._workers.close()

    # The worker's side.

    def _feed(self, frames: FrameArray, first_index: int, written: Future[None], lane: str) -> None:
        assert self._recorder is not None
        try:
            began = self._recorder.now()
            for frame in frames:
                self._raise_error()
                if self._spool is not None and not self._full:
                    self._spool.append(memoryview(frame))
                self._write_frame(memoryview(frame))
                self._fed += 1
            # What the encoder makes of it is only known at the end.
            self._recorder.add(Span(Stage.SAVE, lane, first_index, began, self._recorder.now(), len(frames)))
        except Cancelled as error:
            written.set_exception(error)
        except BaseException as error:
            written.set_exception(self._fail(error))
        else:
            written.set_result(None)

    def _write_frame(self, frame: memoryview) -> None:
        """Feed one frame, unless the sound has ended before it."""
        assert self._process is not None
        if self._full:
            return
        self._process.write(frame)
        self.frames += 1

    @property
    def _full(self) -> bool:
        return self._limit is not None and self.frames >= self._limit

    def _play_again(self) -> None:
        """Feed what follows when the clip has been played once, until somebody aborts."""
        if self._spool is None:
            return
        for frame in self._spool.read(self._order(self._fed)):
            if self._stop.is_set() or self._full:
                return
            self._write_frame(frame)

    def _order(self, frames: int) -> Iterator[int]:
        """The numbers of the frames that follow the clip's own."""
        back = range(frames - 2, 0, -1) if self._ping_pong else range(0)
        yield from back
        for _ in range(0 if self.video.loops else self._repeats):
            yield from range(frames)
            yield from back

    def _frames_of(self, frames: int) -> int:
        """How many frames the file gets from a clip of ``frames``."""
        if self._spool is not None:
            frames += sum(1 for _ in self._order(frames))
        return frames if self._limit is None else min(frames, self._limit)

    def _samples(self, sound: Sound, frames: int) -> int:
        """How many samples of sound it takes for so many frames of the file."""
        # Never shorter than the video by a part of a sample: ffmpeg would leave out the last frame.
        return math.ceil(frames / self.rate * sound.rate)

    def _start_whole(self, name: Reservation, *, cut_short: bool) -> None:
        """Start what turns the file into an ordinary one."""
        output = self._keep(f"{name.path}.whole{PART_SUFFIX}")
        # The sound may be longer than a video that was cut short, by what ffmpeg had read of it already.
        seconds = self.frames / self.rate if cut_short else None
        arguments = whole_arguments(self.video, tags=self._tags, seconds=seconds, output=output)
        try:
            self._whole = WholeFile(arguments, output=output, executable=self._executable)
        except FFmpegError as error:
            self._stays_rough(error)

    def _make_whole(self, name: Reservation) -> None:
        """Turn what was written into an ordinary file; where that fails, it stays, and plays as well."""
        if self._whole is None:
            return
        try:
            self._whole.replace(name.part)
        except (FFmpegError, OSError) as error:
            self._stays_rough(error)

    def _stays_rough(self, error: Exception) -> None:
        if not self._stop.is_set():
            self.notes.append(f"the video stays in fragments, which some editors do not open: {error}")

    def _add_exif(self, name: Reservation) -> None:
        """Put prompt and workflow into the file; where that fails, it stays without them, and plays as well."""
        try:
            add_exif(name.part, self._exif)
        except (ValueError, OSError) as error:
            self.notes.append(f"prompt and workflow were left out: {error}")

    def _finish(self, lane: str) -> None:
        """Close the file; the last job."""
        assert self._process is not None and self._recorder is not None and self._name is not None
        try:
            began = self._recorder.now()
            if self._error is not None:
                raise self._error
            if self.frames == 0:
                raise _aborted()
            if self._closing:
                self._play_again()
            cut_short = not self._closing or self._stop.is_set() or self._fed < self._taken
            if cut_short and self._sound is not None and self._heard is not None:
                # Else ffmpeg would encode the sound of the whole clip before it closes the file.
                with suppress(OSError):
                    self._heard.cut(self._samples(self._sound, self.frames))
            if self.video.fragments or (cut_short and self._heard is not None):
                self._start_whole(self._name, cut_short=cut_short)
            self._process.finish()
            self._make_whole(self._name)
            if self._exif:
                self._add_exif(self._name)
            path = self._name.publish(cut_short=cut_short)
            size = path.stat().st_size
            self._recorder.add(Span(Stage.SAVE, lane, self._fed, began, self._recorder.now(), bytes=size))
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

    def _keep(self, path: str) -> str:
        """Remember a temporary file that has to go in the end."""
        self._temporary.append(path)
        return path

    def _end_processes(self) -> None:
        if self._process is not None:
            self._process.end(grace=0)
        if self._whole is not None:
            self._whole.end()

    def _clean_up(self) -> None:
        self._end_processes()
        if self._name is not None:
            self._name.discard()
        if self._spool is not None:
            self._spool.close()
        for path in self._temporary:
            with suppress(OSError):
                os.unlink(path)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise _aborted()


def _aborted() -> Cancelled:
    return Cancelled("saving the video was aborted")


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
