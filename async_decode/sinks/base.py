"""What every sink does: open, write frames, and close or abort.

A sink takes finished frames in host memory and puts them somewhere: a tensor, image files, a video file. Sinks own
their threads and know nothing of VAEs, devices or ComfyUI.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from ..errors import SinkError
from ..frames import Clip, FrameArray, PixelFormat
from ..spans import Recorder


class Sink(abc.ABC):
    """One taker of frames, used by one pipeline, once.

    Life of a sink:

    1. ``prepare`` is called before anything is decoded.
    2. ``open`` is called in the decoding thread, as soon as the first piece tells the geometry.
    3. ``write`` is called in the pipeline's copy thread, in order and without gaps.
    4. ``close`` is called in the copy thread after the last chunk: what the sink made is whole when it returns.
    5. ``abort`` is called instead of ``close``, or while ``close`` or ``write`` is still waiting in another thread,
       after an error or a cancel.
    """

    #: The pixel format that ``write`` expects; ``None``: any one that the pipeline carries anyway.
    pixel_format: PixelFormat | None
    #: What is different from what was asked for, one sentence each, for people to read; the report has it.
    notes: Sequence[str] = ()
    #: Where its files go; ``None``: nowhere. Frames that it has no time for may wait there.
    folder: Path | None = None
    #: How many chunks there is host memory for; the pipeline says it before ``open``.
    ring_slots = 1
    _used = False

    def prepare(self) -> None:
        """Find out what would otherwise fail only after the work; nothing is held after it.

        Raises:
            SinkError: the sink was used before, or what it writes to cannot be written to.
        """
        if self._used:
            raise SinkError(f"this {type(self).__name__} has had its run; make another one for another run")
        self._used = True

    @abc.abstractmethod
    def open(self, clip: Clip, recorder: Recorder) -> None:
        """Get ready for frames of this geometry.

        Args:
            clip: geometry of every frame that will come.
            recorder: where to record a ``Stage.SAVE`` span for each piece of writing.

        Raises:
            SinkError: the sink cannot take such frames; the message names the value and the remedy.
        """

    # Not abstract: most sinks have no names to take.
    def expect(self, frames: int, first_index: int) -> None:  # noqa: B027
        """Hear of frames that wait for this sink, and take the names for them that they will have.

        Called in the copy thread, in order, before ``write`` comes with them in another one; or not at all.

        Args:
            frames: how many.
            first_index: number of the first of them.

        Raises:
            SinkError: there are no names for them.
        """

    @abc.abstractmethod
    def write(self, frames: FrameArray, first_index: int) -> Future[None] | None:
        """Take a chunk.

        Args:
            frames: ``(T, H, W, C)``, a view of memory that is used again afterwards.
            first_index: number of the first of these frames in the clip, counted from 0.

        Returns:
            ``None`` when the sink has no further use of the memory, else a future that is done, with the error if
            there was one, once it has not. The copy thread brings the next chunk meanwhile.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Finish what was written and give it its final name.

        Raises:
            Exception: the first error of the sink, if it was not raised before.
        """

    @property
    def progress(self) -> object:
        """How far it is, in whatever it counts beside the frames that it is done with; from any thread.

        It changes as long as the sink gets on, while it closes, too. Default: ``None``, there is nothing else to tell.
        """
        return None

    @abc.abstractmethod
    def abort(self) -> None:
        """Stop as soon as possible, from any thread, at any time, any number of times.

        Never raises. When it returns, none of the sink's threads or processes is left and none of the memory handed
        to ``write`` is read again; a ``write`` or ``close`` that was waiting has ended (with an error), later ones
        raise. What was whole stays; what was not is gone, or carries a name that says that it was cut short.
        """
