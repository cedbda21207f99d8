"""What ffmpeg leaves out of animated pictures that are transparent in some frames only: a few bytes, put in in place.

It looks at a frame without knowing the next one. A GIF that begins opaque keeps what is drawn, so that nothing can
become transparent later; and an animated WebP says in front whether there is transparency, by its first frame.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Mapping

from .format import VideoFormat

#: GIF89a: what begins an extension, which one is a frame's display, and what ends the file; all else is an image.
_EXTENSION, _DISPLAY, _END = 0x21, 0xF9, 0x3B
#: In the first byte of a display: a colour is transparent; what becomes of the frame afterwards, and that it goes.
_HAS_TRANSPARENT, _DISPOSAL, _GOES = 0x01, 0x1C, 0x08
#: In the first byte of what a VP8X chunk holds, WebP's first one.
_ALPHA = 0x10


def tell_transparency(video: VideoFormat, path: str | os.PathLike[str]) -> None:
    """Let a file of four channels be as transparent as its frames; other formats than GIF and WebP know it themselves.

    Args:
        video: its format.
        path: the file, whole or cut off; of a GIF, every frame is a whole picture.

    Raises:
        OSError: it could not be read or written.
        ValueError: it is empty.
    """
    tell = _TELL.get(video.muxer)
    if tell is not None:
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
            tell(content)


def _tell_gif(content: mmap.mmap) -> None:
    """Let every frame go before the next one is drawn, and name the transparent colour in opaque ones, too.

    Some readers (Pillow is one) look for that in the first frame. It is the same in all of them, and kept free.
    """
    displays = list(_displays(content))
    transparent = next((content[at + 3] for at in displays if content[at] & _HAS_TRANSPARENT), None)
    if transparent is None:
        return
    for at in displays:
        if not content[at] & _HAS_TRANSPARENT:
            content[at + 3] = transparent
        content[at] = content[at] & ~_DISPOSAL | _GOES | _HAS_TRANSPARENT


def _displays(content: mmap.mmap) -> Iterator[int]:
    """Where the displays of frames have their flags: two bytes of time and the transparent colour follow."""
    at, end = 13 + _table(content[10]), len(content)
    while at + 10 < end and content[at] != _END:
        if content[at] == _EXTENSION:
            if content[at + 1] == _DISPLAY:
                yield at + 3
            at += 2
        else:
            # A place, a size, flags, perhaps a table of colours, and how many bits a pixel has.
            at += 10 + _table(content[at + 9]) + 1
        while at < end and content[at]:
            at += 1 + content[at]
        at += 1


def _table(flags: int) -> int:
    """How many bytes of colours follow."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tell_webp(content: mmap.mmap) -> None:
    """Say that there may be transparency: it is also where a frame does not reach, and that frame itself is opaque."""
    if content[12:16] == b"VP8X":
        content[20] |= _ALPHA


_TELL: Mapping[str, Callable[[mmap.mmap], None]] = {"gif": _tell_gif, "webp": _tell_webp}
