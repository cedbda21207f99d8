"""EXIF in WebP files that somebody else has written: chunks of a RIFF file, and nothing of what is in the pictures.

The layout is that of Google's *WebP Container Specification*: ``RIFF``, the size of all that follows, ``WEBP``, then
chunks, each with a name, the size of its content and, behind an odd one, a byte of padding. Only a file that begins
with a ``VP8X`` chunk may hold more than one picture; the chunk's first byte says what there is.
"""

from __future__ import annotations

import os
import struct
from io import FileIO

#: What EXIF begins with in a JPEG file, and not in a WebP file.
_JPEG_PREFIX = b"Exif\0\0"
#: The name and the size of a chunk, or of the whole.
_HEAD = struct.Struct("<4sI")
#: Where the first chunk begins.
_FIRST = 12
#: The most that a file may say of its size.
_MAX_SIZE = 2**32 - 10
#: The length of what VP8X holds.
_EXTENDED = 10
#: In the first byte of VP8X.
_ANIMATED, _EXIF, _ALPHA = 0x02, 0x08, 0x10


def add_exif(path: str | os.PathLike[str], exif: bytes) -> None:
    """Add ``exif`` to a WebP file in place, behind the frames, which stay as they are.

    An animation is not read, however large it is: the chunk goes behind it, then the file says that it is there. At
    every moment what is there can be played, because players ignore what they are not told of.

    Args:
        path: the file; it is whole and holds no EXIF.
        exif: with or without the six bytes that go before it in a JPEG file.

    Raises:
        ValueError: this is no WebP file, or it would be larger than the format allows.
        OSError: it could not be read or written; it plays as before.
    """
    chunk = _chunk(b"EXIF", exif.removeprefix(_JPEG_PREFIX))
    # Without a buffer, which on a full disk would try to write once more when the file is closed.
    with open(path, "r+b", buffering=0) as file:
        start = file.read(_FIRST + 9).ljust(_FIRST + 9, b"\0")
        riff, size, name = struct.unpack_from("<4sI4s", start)
        end = 8 + size
        if (riff, name) != (b"RIFF", b"WEBP") or os.fstat(file.fileno()).st_size < end:
            raise ValueError(f"expected a whole WebP file, got one that begins with {start!r}")
        # A still picture may need VP8X, too.
        if size + len(chunk) + _HEAD.size + _EXTENDED > _MAX_SIZE:
            raise ValueError(f"a WebP file holds at most 4 GiB, got {end} bytes and {len(chunk)} of EXIF")
        if start.startswith(b"VP8X", _FIRST) and start[-1] & _ANIMATED:
            _write(file, end, chunk, before=b"")
            file.seek(4)
            file.write(struct.pack("<I", size + len(chunk)))
            file.seek(_FIRST + _HEAD.size)
            file.write(bytes([start[-1] | _EXIF]))
        else:
            file.seek(0)
            picture = file.read(end)
            _write(file, 0, _still(picture, chunk), before=picture)


def without_odd_chunks(webp: memoryview) -> memoryview:
    """``webp`` with the bytes that pad chunks before its EXIF counted as theirs, in place.

    ComfyUI's older front ends (1.27 is one) forget about padding and find no workflow behind a chunk of odd length.
    What decoders read ends by itself, so that a byte more behind it changes nothing. (In an animation, every chunk is
    even: each frame is a chunk of chunks that are padded.)
    """
    offset = _FIRST
    while offset < len(webp) and bytes(webp[offset : offset + 4]) != b"EXIF":
        (size,) = struct.unpack_from("<I", webp, offset + 4)
        size += size % 2
        struct.pack_into("<I", webp, offset + 4, size)
        offset += 8 + size
    return webp


def _still(webp: bytes, exif: bytes) -> bytes:
    """A file with one picture, and ``exif``, a chunk, behind it."""
    chunks = webp[_FIRST:]
    if chunks.startswith(b"VP8X"):
        extended, chunks = chunks[_HEAD.size :][:_EXTENDED], chunks[_HEAD.size + _EXTENDED :]
    else:
        extended = _extended(chunks)
    extended = bytes([extended[0] | _EXIF]) + extended[1:]
    content = b"WEBP" + _chunk(b"VP8X", extended) + chunks + exif
    return bytes(without_odd_chunks(memoryview(bytearray(_HEAD.pack(b"RIFF", len(content)) + content))))


def _extended(chunks: bytes) -> bytes:
    """What VP8X says of a picture that did without: flags, three bytes of no meaning, width and height less one.

    Raises:
        ValueError: the picture is none that is known.
    """
    name, start = chunks[:4], chunks[_HEAD.size :][:10].ljust(10, b"\0")
    width: int
    height: int
    if name == b"VP8L" and start[0] == 0x2F:
        # WebP Lossless Bitstream Specification, section 3: 14 bits of width less one, 14 of height, one of alpha.
        (bits,) = struct.unpack_from("<I", start, 1)
        width, height, alpha = bits & 0x3FFF, bits >> 14 & 0x3FFF, bits >> 28 & 1
    elif name == b"VP8 " and start[3:6] == b"\x9d\x01\x2a":
        # RFC 6386, section 9.1: 14 bits of width, 2 that ask the player for another size, the same for the height.
        width, height = (bits % 0x4000 - 1 for bits in struct.unpack_from("<HH", start, 6))
        alpha = 0
    else:
        raise ValueError(f"expected a picture in VP8 or VP8L, got {name + start!r}")
    return bytes([_ALPHA * alpha, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")


def _chunk(name: bytes, content: bytes) -> bytes:
    return _HEAD.pack(name, len(content)) + content + b"\0" * (len(content) % 2)


def _write(file: FileIO, offset: int, content: bytes, *, before: bytes) -> None:
    """Let ``file`` end with ``content`` from ``offset`` on; where that fails, with what was there ``before``.

    Raises:
        OSError: the disk is full, or failed.
    """
    try:
        _write_all(file, offset, content)
    except OSError:
        _write_all(file, offset, before)
        raise


def _write_all(file: FileIO, offset: int, content: bytes) -> None:
    file.seek(offset)
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    file.truncate()
