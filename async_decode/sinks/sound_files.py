"""Sound out of a file, with nothing but the standard library: WAV with whole numbers."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from ..errors import SinkError
from .video.sound import Sound


def read_sound(path: Path) -> Sound:
    """The sound in a WAV file of 8, 16, 24 or 32 bits.

    Raises:
        SinkError: it cannot be read, or is of another kind.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    except OSError as error:
        raise SinkError(f"sound: {path} cannot be read: {error.strerror or error}") from error
    except (EOFError, wave.Error) as error:
        raise SinkError(f"sound: {path} is no WAV file that can be read: {error}; convert it to 16 bits") from error
    samples = data.reshape(-1, width)
    # As whole numbers of 32 bits: the missing bytes are the low ones.
    wide = np.zeros((len(samples), 4), np.uint8)
    wide[:, 4 - width :] = samples
    if width == 1:
        # Eight bits have no sign.
        wide[:, 3] ^= 0x80
    numbers = wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    try:
        return Sound(np.ascontiguousarray(numbers.reshape(-1, channels).T), rate)
    except ValueError as error:
        raise SinkError(f"sound: {path}: {error}") from error
