"""Frames made smaller without any loss, and fast: for a disk that they lie on for a moment.

Each sample becomes its difference from that of the pixel before, which is mostly small; the bytes of wider samples are
sorted by their weight, so that those that hardly change stand together; what repeats, and what is frequent, is written
shorter (deflate, without its search for longer matches, which would take most of the time). Integers all the way: the
bits of floats, NaN and infinities as well, come back as they were.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ..frames import FrameArray

#: Bare deflate streams: the file is read by whoever has written it.
_BARE = -zlib.MAX_WBITS
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def pack(lines: FrameArray) -> memoryview:
    """Lines of frames as bytes.

    Args:
        lines: ``(lines, columns, channels)``, C-contiguous.

    Returns:
        Fewer bytes than ``lines`` has, or just these where it takes no less.
    """
    samples = lines.view(_UNSIGNED[lines.itemsize])
    differences = np.empty_like(samples)
    differences[:, :1] = samples[:, :1]
    np.subtract(samples[:, 1:], samples[:, :-1], out=differences[:, 1:])
    coder = zlib.compressobj(1, zlib.DEFLATED, _BARE, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    packed = coder.compress(_by_weight(differences)) + coder.flush()
    return memoryview(packed) if len(packed) < lines.nbytes else _bytes_of(lines).data


def unpack(packed: memoryview, lines: FrameArray) -> None:
    """The way back.

    Args:
        packed: what ``pack`` returned.
        lines: filled with what it was called with; C-contiguous, of the same shape and type.
    """
    if len(packed) == lines.nbytes:
        _bytes_of(lines)[:] = np.frombuffer(packed, np.uint8)
        return
    samples = lines.view(_UNSIGNED[lines.itemsize])
    sorted_bytes = np.frombuffer(zlib.decompress(packed, _BARE, lines.nbytes), np.uint8)
    _bytes_of(samples).reshape(-1, samples.itemsize)[:] = sorted_bytes.reshape(samples.itemsize, -1).T
    np.add.accumulate(samples, axis=1, dtype=samples.dtype, out=samples)


def _by_weight(samples: npt.NDArray[Any]) -> memoryview:
    """All first bytes, then all second ones, and so on."""
    return _bytes_of(np.ascontiguousarray(_bytes_of(samples).reshape(-1, samples.itemsize).T)).data


def _bytes_of(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of a C-contiguous array, as they are in memory."""
    return array.reshape(-1).view(np.uint8)
