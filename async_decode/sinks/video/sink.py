"""Video files: frames go through a pipe to an ffmpeg of our own, which encodes while the next ones are decoded."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from ...errors import AsyncDecodeError, Cancelled, FFmpegError, SinkError
from ...frames import Clip, FrameArray, PixelFormat
from ...spans import Recorder, Span, Stage
from ..base import Sink
from ..ffmpeg import ffmetadata, find_ffmpeg
from ..files import OutputNames
from ..image.exif import exif_of, left_out, storable
from ..workers import Workers, running_future
from .catalogue import H264_MP4
from .encoding import Encoding, EncodingOptions
from .format import Tags, VideoFormat, exact_rate
from .notes import check_size, differences
from .playback import Playback
from .replay import Replay
from .sound import Sound

#: How long an abort waits for what a killed encoder has written to be made a file, in seconds.
_SALVAGE_SECONDS = 20.0


@dataclass(frozen=True)
class StandIn:
    """A file that is shown or read in the place of another one; nobody needs to be told how it differs from the frames.

    Attributes:
        frames: the other file's frames, so that they travel once.
        max_side: scale the video down so that no side is longer, in pixels. Default: ``None``, it stays as it is.
    """

    frames: PixelFormat
    max_side: int | None = None


class VideoSink(Sink):
    """Saves a clip as one video file.

    One thread feeds ffmpeg, frame by frame; a chunk's future is done when the pipe has taken all of it. The chunks that
    wait for that thread are bounded by the pipeline's slots.

    An abort lets ffmpeg close the file with the frames that it has, and names it ``…_cut-short.mp4``. If ffmpeg does
    not manage that in ``grace`` seconds (it hangs, or is much slower than the frames come), it is killed. What a killed
    or failed ffmpeg has written, up to its last second, becomes such a file as well, and the error says how many frames
    it holds. Nothing stays where there was not one frame yet, and of an animated WebP.

    If this program is killed, ffmpeg sees the end of its input and closes the file, which keeps its ``.part`` name and
    has no sound yet; if ffmpeg is killed as well, it still plays up to its last second.

    Args:
        names: where the file goes and what it is called.
        fps: frames a second; a fraction is exact, floats mean what ``exact_rate`` says.
        video: the format. Default: ``H264_MP4``.
        crf: quality on the format's scale. Default: ``None``, the format's own.
        preset: speed of the encoder. Default: ``None``, the format's own.
        metadata: text by key (``prompt``, ``workflow``, … already dumped as JSON), for the container's tags or EXIF.
            Default: ``None``.
        sound: what is heard, from the first frame on; silence is put behind it, or its end cut off, to be as long as
            the video. Default: ``None``.
        trim_to_sound: leave out the frames behind the end of the sound. Default: ``False``.
        repeats: how often the clip is played once more. GIF and WebP say it to the player, where 0 means for ever; in
            other files its frames are encoded again. Default: ``0``.
        ping_pong: play it backwards too, without its first and last frame, which would be seen twice. Default:
            ``False``.
        convert_on_device: take frames that were converted to 4:2:0 on the device, where the codec wants those. Default:
            ``False``.
        stand_in: the file stands in for another one. Default: ``None``, it is the file that was asked for.
        grace: how long an abort waits for the file to be closed, in seconds. Default: ``10.0``.

    Attributes:
        rate: frames a second, exactly.
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
        stand_in: StandIn | None = None,
        grace: float = 10.0,
    ) -> None:
        if trim_to_sound and sound is None:
            raise ValueError("trim_to_sound needs sound, got none")
        texts = storable(metadata or {})
        self._options = EncodingOptions(
            video=video,
            rate=exact_rate(fps),
            crf=video.crf if crf is None else crf,
            preset=video.preset if preset is None else preset,
            frames=stand_in.frames if stand_in else video.planar if convert_on_device else video.frames,
            tags=ffmetadata(texts) if texts and video.tags is Tags.CONTAINER else None,
            exif=exif_of(texts) if texts and video.tags is Tags.EXIF else b"",
            sound=sound if video.sound is not None else None,
            plays=repeats + 1 if repeats else 0,
            max_side=stand_in.max_side if stand_in else None,
        )
        self._playback = Playback(
            repeats=0 if video.loops and repeats > 0 else repeats,
            ping_pong=ping_pong,
            limit=sound.frames(self._options.rate) if sound is not None and trim_to_sound else None,
        )
        self.video = video
        self.rate = self._options.rate
        self.pixel_format: PixelFormat = self._options.frames
        lost = [key for key in metadata or {} if key not in texts]
        self.notes: list[str] = left_out("no text that a file can hold", lost)
        self._names = names
        self.folder = names.folder
        self._sound = sound
        self._is_untagged = bool(metadata) and video.tags is None
        self._is_stand_in = stand_in is not None
        self._grace = grace

        self._recorder: Recorder | None = None
        self._workers: Workers | None = None
        self._encoding: Encoding | None = None
        self._is_closed = False
        self._replay: Replay | None = None
        self._stop = threading.Event()
        # Guards who hands in the last job, and in what order jobs get in; the rest belongs to the worker.
        self._lock = threading.Lock()
        self._frames_accepted = 0
        self._frames_fed = 0
        self._close_was_called = False
        self._last_job_is_in = False
        self._error: BaseException | None = None

    @property
    def path(self) -> Path | None:
        """The finished file; ``None`` before that."""
        return self._encoding.path if self._encoding is not None else None

    @property
    def reserved(self) -> Path | None:
        """The name that the whole file will have, or has; ``None`` before the first frame."""
        return self._encoding.reserved if self._encoding is not None else None

    @property
    def cut_short(self) -> bool:
        """The file holds less than the clip, and its name says so."""
        return self._encoding is not None and self._encoding.cut_short

    @property
    def frames(self) -> int:
        """How many frames ffmpeg has taken; in the end, how many the file holds."""
        return self._encoding.frames if self._encoding is not None else 0

    @property
    def progress(self) -> object:
        """Frames that ffmpeg has taken, and bytes that it has written."""
        return (self.frames, self._encoding.bytes) if self._encoding is not None else None

    def prepare(self) -> None:
        super().prepare()
        find_ffmpeg()
        self._names.probe(self.video.extension)

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self._recorder = recorder
        check_size(self.video, clip.width, clip.height)
        if not self._is_stand_in:
            self.notes += differences(
                self.video, clip, self.pixel_format, sound=self._sound, untagged=self._is_untagged
            )
        self._encoding = Encoding(self._options, self._names, find_ffmpeg())
        self._encoding.open(clip)
        try:
            if not self._playback.is_once:
                self._replay = Replay(self._names.folder)
        except BaseException:
            self._close_file(cut_short=True)
            raise
        self._workers = Workers("video writer")

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        written = running_future()
        with self._lock:
            self._raise_error()
            assert self._workers is not None, "write comes after open"
            self._frames_accepted += len(frames)
            self._workers.submit(partial(self._feed, frames, first_index, written))
        return written

    def close(self) -> None:
        with self._lock:
            self._raise_error()
            assert self._workers is not None, "close comes after open"
            self._close_was_called = self._last_job_is_in = True
            self._workers.submit(self._finish)
        self._workers.close()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        self._stop.set()
        with self._lock:
            if self._workers is None or self._encoding is None:
                return
            if not self._last_job_is_in:
                self._last_job_is_in = True
                self._workers.submit(self._finish)
        if self._workers.close(timeout=self._grace if self.frames else 0):
            return
        self._encoding.end_encoder()
        if not self._workers.close(timeout=_SALVAGE_SECONDS):
            self._encoding.end()
            self._workers.close()

    # The worker's side.

    def _feed(self, frames: FrameArray, first_index: int, written: Future[None], lane: str) -> None:
        assert self._recorder is not None
        try:
            began = self._recorder.now()
            for frame in frames:
                self._raise_error()
                if self._replay is not None and not self._is_full:
                    self._replay.append(memoryview(frame))
                self._write_frame(memoryview(frame))
                self._frames_fed += 1
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
        assert self._encoding is not None
        if not self._is_full:
            self._encoding.write(frame)

    @property
    def _is_full(self) -> bool:
        return self._playback.is_full(self.frames)

    def _play_again(self) -> None:
        """Feed what follows when the clip has been played once, until somebody aborts."""
        if self._replay is None:
            return
        for frame in self._replay.read(self._playback.rest(self._frames_fed)):
            if self._stop.is_set() or self._is_full:
                return
            self._write_frame(frame)

    def _finish(self, lane: str) -> None:
        """Close the file; the last job."""
        assert self._recorder is not None
        if self._error is not None:
            return
        began = self._recorder.now()
        try:
            if self._close_was_called:
                self._play_again()
            self._close_file(
                cut_short=not self._close_was_called or self._stop.is_set() or self._frames_fed < self._frames_accepted
            )
            if self.path is None or self.cut_short:
                raise _aborted()
        except BaseException as error:
            self._fail(error)
        size = 0
        if self.path is not None:
            with suppress(OSError):
                size = self.path.stat().st_size
        self._recorder.add(Span(Stage.SAVE, lane, self._frames_fed, began, self._recorder.now(), bytes=size))

    def _close_file(self, *, cut_short: bool) -> None:
        """Finish what there is of the file, once."""
        assert self._encoding is not None
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._encoding.close(cut_short=cut_short)
        finally:
            if self._replay is not None:
                self._replay.close()
            self.notes += self._encoding.notes

    def _fail(self, error: BaseException) -> BaseException:
        """Keep the first error, and what there is of the file; return what was kept."""
        if self._error is None:
            # An abort that lost patience has killed ffmpeg: that is no error of ffmpeg's.
            error = _aborted() if self._stop.is_set() else error
            try:
                self._close_file(cut_short=True)
            except FFmpegError:
                # What ended the encoder is the error already.
                pass
            except SinkError as further:
                error = _with(error, str(further))
            except Exception as further:
                # Whoever waits for these frames must hear of the first error, whatever comes after it.
                error = _with(error, f"What there is of the file could not be closed: {further!r}")
            if self.path is not None:
                known = self._encoding is not None and self._encoding.is_counted
                what = f"The first {self.frames} frames are" if known else "What ffmpeg has written of the frames is"
                kept = f"{what} in {self.path}"
                self.notes.append(kept)
                error = _with(error, kept)
            self._error = error
        return self._error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
        if self._stop.is_set():
            raise _aborted()


def _aborted() -> Cancelled:
    return Cancelled("saving the video was aborted")


def _with(error: BaseException, sentence: str) -> BaseException:
    """``error`` with ``sentence`` behind what it says; one that is not ours stays as it is."""
    return type(error)(f"{error}\n{sentence}.") if isinstance(error, AsyncDecodeError) else error
