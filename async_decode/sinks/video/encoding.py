"""One video file while it is made: the ffmpeg that encodes it, the copy that makes it ordinary, and its names.

Whatever ends the encoder, what it has written is kept: as the file that was asked for, or, where it holds less, as one
whose name says that it was cut short. Only what does not hold one frame is removed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from ...errors import FFmpegError, SinkError
from ...frames import Clip, PixelFormat
from ..ffmpeg import FFmpegProcess, major_version
from ..files import OutputNames, Reservation
from ..image.webp_exif import add_exif
from .arguments import encode_arguments
from .format import VideoFormat
from .second_pass import IncompleteCopy, SecondPass, count_frames
from .sound import Sound
from .tags import TagsFile
from .transparency import tell_transparency

#: From this version on, ffmpeg finds in fragments how long their frames are. (4.2.2 does not, 7.0.2 does; those
#: between are taken for old.) An older one's copies would often not show the last frame, though it is in there.
_KNOWS_LENGTHS = 7


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """How a file is to be encoded.

    Attributes:
        video: the format.
        rate: frames a second.
        crf: quality, on the format's scale.
        preset: speed, one of the format's.
        frames: what comes for each frame.
        tags: texts for the container, as of ``ffmetadata``; ``None``: there are none.
        exif: the same for a format that keeps them there; empty: there are none.
        sound: what is heard; ``None``: nothing is.
        plays: how often a container that can say so wants to be played; 0: for ever.
        max_side: scale the video down so that no side is longer, in pixels.

    Raises:
        ValueError: the rate, the quality or the speed is none that the format knows.
    """

    video: VideoFormat
    rate: Fraction
    crf: float
    preset: str
    frames: PixelFormat
    tags: str | None = None
    exif: bytes = b""
    sound: Sound | None = None
    plays: int = 0
    max_side: int | None = None

    def __post_init__(self) -> None:
        video = self.video
        if video.crf_range is not None:
            best, worst = video.crf_range
            if not best <= self.crf <= worst:
                raise ValueError(f"crf must be from {best:g} to {worst:g} for {video.name}, got {self.crf:g}")
        if self.preset not in video.presets:
            raise ValueError(f"expected a preset of {video.name} ({', '.join(video.presets)}), got {self.preset!r}")
        if video.max_rate is not None and self.rate > video.max_rate:
            raise ValueError(
                f"expected at most {video.max_rate} frames a second for {video.name}, which knows no shorter delays, "
                f"got {float(self.rate):g}"
            )


class Encoding:
    """Encodes one file.

    One thread writes and closes; any thread may ``end_encoder`` or ``end`` meanwhile.

    Args:
        options: how.
        names: where the file goes and what it is called.
        executable: the ffmpeg to run.

    Attributes:
        path: the finished file; ``None`` before that.
        frames: how many frames ffmpeg has taken, then how many are in the file.
        is_counted: that is known of the file; else it may hold fewer.
        cut_short: the file holds less than the clip, and its name says so.
        notes: what became different in the file, for people to read.
    """

    def __init__(self, options: EncodingOptions, names: OutputNames, executable: str) -> None:
        self.path: Path | None = None
        self.frames = 0
        self.is_counted = True
        self.cut_short = False
        self.notes: list[str] = []
        self._options = options
        self._names = names
        self._executable = executable
        self._has_alpha = False
        self._name: Reservation | None = None
        self._encoder: FFmpegProcess | None = None
        self._closed = ExitStack()
        # Guards the processes that are alive; none is started once the end has come.
        self._lock = threading.Lock()
        self._processes: list[FFmpegProcess] = []
        self._ended = False

    @property
    def reserved(self) -> Path | None:
        """The name that the whole file will have, or has; ``None`` before ``open``."""
        return self.path if self.path is not None or self._name is None else self._name.path

    @property
    def bytes(self) -> int:
        """How many were written so far: of the file, and of the copy that makes it ordinary."""
        return 0 if self._name is None else sum(map(_size, (self._name.part, self._name.copy)))

    def open(self, clip: Clip) -> None:
        """Take a name and start the encoder.

        Raises:
            SinkError: the folder cannot be written to, or ffmpeg could not be started.
        """
        options = self._options
        self._has_alpha = clip.channels == 4 and options.video.alpha_format is not None
        self._name = self._names.reserve(options.video.extension)
        try:
            tags = self._tags()
            arguments = encode_arguments(
                options.video,
                clip,
                rate=options.rate,
                crf=options.crf,
                preset=options.preset,
                output=os.fspath(self._name.part),
                frames=options.frames,
                tags=None if tags is None else tags.source,
                plays=options.plays,
                max_side=options.max_side,
            )
            self._encoder = self._start(tags, arguments)
        except BaseException:
            self._name.discard()
            self._closed.close()
            raise

    def write(self, frame: memoryview) -> None:
        """Feed one frame, C-contiguous.

        Raises:
            FFmpegError: ffmpeg has ended.
        """
        assert self._encoder is not None, "write comes after open"
        self._encoder.write(frame)
        self.frames += 1

    def close(self, *, cut_short: bool) -> None:
        """Finish the file and give it its name; no process and no temporary file is left behind.

        Args:
            cut_short: the clip has more frames than those that came.

        Raises:
            FFmpegError: the encoder failed; if its file holds a frame, ``path`` has it nevertheless.
            SinkError: no name could be given to the file; the message says where it is, and what it lacks.
        """
        assert self._encoder is not None and self._name is not None, "close comes after open"
        error: FFmpegError | None = None
        with self._closed:
            try:
                copy = None
                if self.frames:
                    copy = self._start_copy()
                    error = self._end_of_encoder()
                    if error is not None:
                        cut_short = True
                        self._count()
                        if self.frames:
                            copy = copy or self._start_copy(is_broken=True)
                if self.frames:
                    made = self._ordinary(copy)
                    self._add_transparency(made)
                    self._add_exif(made)
                    self.path = self._published(made, cut_short=cut_short)
                    self.cut_short = cut_short
            finally:
                self.end()
                self._name.discard()
        if error is not None:
            raise error

    def end_encoder(self) -> None:
        """Kill the encoder, from any thread; what it has written can still be closed. Never raises."""
        if self._encoder is not None:
            self._encoder.end(grace=0)

    def end(self) -> None:
        """Kill every process, from any thread, also those that ``close`` would start yet. Never raises."""
        with self._lock:
            self._ended = True
            processes = tuple(self._processes)
        for process in processes:
            process.end(grace=0)

    def _tags(self) -> TagsFile | None:
        if self._options.tags is None:
            return None
        tags = TagsFile(self._options.tags, self._names.folder)
        self._closed.callback(tags.close)
        return tags

    def _start(self, tags: TagsFile | None, arguments: Sequence[str]) -> FFmpegProcess:
        with self._lock:
            if self._ended:
                raise FFmpegError("ffmpeg was not started: saving the video was aborted")
            process = FFmpegProcess(arguments, executable=self._executable, pass_fds=tags.pass_fds if tags else ())
            self._processes.append(process)
        return process

    def _end_of_encoder(self) -> FFmpegError | None:
        assert self._encoder is not None
        try:
            self._encoder.finish()
        except FFmpegError as error:
            return error
        return None

    def _count(self) -> None:
        """Find out how many frames are in the file of an encoder that did not close it."""
        assert self._name is not None
        if not self._options.video.survives or not _size(self._name.part):
            self.frames = 0
            return
        self.is_counted = False
        # Where the time for that is over, the file is kept.
        with suppress(FFmpegError):
            self.frames = count_frames(self._options.video, self._name.part, partial(self._start, None))
            # Nobody tells a half frame of a GIF from a whole one.
            self.frames -= min(self.frames, self._options.video.muxer == "gif")
            self.is_counted = True

    def _start_copy(
        self, *, is_silent: bool = False, is_broken: bool = False, is_timed: bool = False
    ) -> SecondPass | None:
        """Start what turns the file into an ordinary one; ``None``: it is one already, or has to stay as it is."""
        options = self._options
        assert self._name is not None
        sound = None if is_silent else options.sound
        if sound is None and not options.video.fragments and not is_broken:
            return None
        try:
            version = major_version(self._executable)
            is_old = version is not None and version < _KNOWS_LENGTHS
            tags = self._tags()
            return SecondPass(
                options.video,
                options.rate,
                self._name.part,
                self._name.copy,
                tags=None if tags is None else tags.source,
                sound=sound,
                most=self.frames if is_broken else None,
                is_timed=is_timed or (is_old and options.video.fragments),
                is_decoded=is_old,
                start=partial(self._start, tags),
            )
        except SinkError as error:
            if sound is not None and not self._ended:
                self.notes.append(f"the sound was left out: {error}")
            if options.video.fragments or is_broken:
                self._stays_rough(error)
            return None

    def _ordinary(self, copy: SecondPass | None) -> Path:
        """The file to publish: the copy, or where that fails, what was written, which plays as well."""
        assert self._name is not None
        if copy is None:
            return self._name.part
        try:
            copy.run(self.frames)
        except (FFmpegError, OSError) as error:
            copy.end()
            if isinstance(error, IncompleteCopy) and not copy.is_timed:
                return self._ordinary(self._start_copy(is_silent=not copy.has_sound, is_timed=True))
            if not copy.has_sound or self._ended:
                self._stays_rough(error)
                return self._name.part
            # One stream's fault is not to cost the other.
            self.notes.append(f"the sound was left out: {error}")
            return self._ordinary(self._start_copy(is_silent=True))
        return self._name.copy

    def _stays_rough(self, error: Exception) -> None:
        if not self._ended:
            rough = "in fragments, which some editors do not open"
            if not self._options.video.fragments:
                rough = "without an index, which some players seek by"
            note = f"the video stays {rough}: {error}"
            # What was cut short is tried once more, and fails of the same.
            if note not in self.notes:
                self.notes.append(note)

    def _published(self, made: Path, *, cut_short: bool) -> Path:
        """Give the file its name; where that fails, what it lacks is said with the place where it stays."""
        assert self._name is not None
        try:
            return self._name.publish(cut_short=cut_short, made=made)
        except SinkError as error:
            # The reasons are the same, as a rule.
            lacks = "; ".join(note.partition(": ")[0] for note in self.notes)
            raise SinkError(f"{error}\nOf that file: {lacks}." if lacks else str(error)) from error

    def _add_transparency(self, made: Path) -> None:
        """Let the file be as transparent as the frames; where that fails, it is by its first frame, and plays."""
        if self._has_alpha:
            try:
                tell_transparency(self._options.video, made)
            except (ValueError, OSError) as error:
                self.notes.append(f"what becomes transparent after the first frame may be shown opaque: {error}")

    def _add_exif(self, made: Path) -> None:
        """Put prompt and workflow into the file; where that fails, it stays without them, and plays as well."""
        if self._options.exif:
            try:
                add_exif(made, self._options.exif)
            except (ValueError, OSError) as error:
                self.notes.append(f"prompt and workflow were left out: {error}")


def _size(path: Path) -> int:
    """Of a file that may not be there: not yet, or since somebody has removed it."""
    with suppress(OSError):
        return path.stat().st_size
    return 0
