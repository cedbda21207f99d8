"""The sound of a video: samples in host memory on their way into ffmpeg."""

from __future__ import annotations

import math
import os
import tempfile
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ..ffmpeg import file_url
from ..files import file_error

#: What codecs of sound agree on.
MAX_CHANNELS = 8
#: Samples that are interleaved at once.
_BLOCK = 1 << 16
#: A float's, of one channel.
_SAMPLE_BYTES = 4


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound that belongs to a clip and begins with its first frame.

    Attributes:
        samples: ``(C, S)`` float32, -1 to 1, 1 to 8 channels.
        rate: samples a second.

    Raises:
        ValueError: the samples or the rate are none that could be saved.
    """

    samples: npt.NDArray[np.float32]
    rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ValueError(
                f"expected sound as (channels, samples) float32, got {self.samples.shape} {self.samples.dtype}"
            )
        if not 1 <= self.samples.shape[0] <= MAX_CHANNELS:
            raise ValueError(f"expected sound with 1 to {MAX_CHANNELS} channels, got {self.samples.shape[0]}")
        if self.samples.shape[1] == 0:
            raise ValueError("the sound is empty: it has no samples")
        if not 1 <= self.rate <= 768_000:
            raise ValueError(f"expected a sample rate from 1 to 768000 Hz, got {self.rate}")

    @property
    def seconds(self) -> Fraction:
        """How long it is."""
        return Fraction(self.samples.shape[1], self.rate)

    def frames(self, rate: Fraction) -> int:
        """How many frames of a video it takes to hear all of it."""
        return max(1, math.ceil(self.seconds * rate))

    def write(self, length: int | None = None) -> SoundFile:
        """Write the samples into a temporary file that only this user can read.

        Args:
            length: how many, which silence makes up for at the end; ``None``: those that are there.

        Raises:
            SinkError: it cannot be written.
        """
        handle, path = tempfile.mkstemp(prefix="async-decode-", suffix=".f32")
        try:
            with open(handle, "wb") as file:
                samples = self.samples[:, :length]
                for first in range(0, samples.shape[1], _BLOCK):
                    block = samples[:, first : first + _BLOCK]
                    # What a NaN sounds like is no codec's business.
                    file.write(np.ascontiguousarray(np.nan_to_num(block.T, posinf=1.0, neginf=-1.0), "<f4").data)
                if length is not None:
                    # Zeros are silence, and take no place on the disk.
                    file.truncate(length * _SAMPLE_BYTES * samples.shape[0])
        except OSError as error:
            os.unlink(path)
            raise file_error(path, error) from error
        return SoundFile(path, channels=self.samples.shape[0], rate=self.rate, ends=length is not None)


@dataclass(frozen=True)
class SoundFile:
    """Samples on their way into ffmpeg.

    Attributes:
        path: the file; who has it written has to remove it.
        channels: how many there are.
        rate: samples a second.
        ends: it ends where it is to end; else it goes on with silence.
    """

    path: str
    channels: int
    rate: int
    ends: bool

    def input_arguments(self) -> list[str]:
        """ffmpeg's arguments that read it."""
        return ["-f", "f32le", "-ar", str(self.rate), "-ac", str(self.channels), "-i", file_url(self.path)]

    def cut(self, length: int) -> None:
        """End it after ``length`` samples if it is longer, also while ffmpeg reads it.

        Raises:
            OSError: the file cannot be changed.
        """
        with open(self.path, "r+b") as file:
            file.truncate(min(length * _SAMPLE_BYTES * self.channels, os.fstat(file.fileno()).st_size))
