"""The sound of a video: samples in host memory on their way into ffmpeg."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

#: What has a layout that ffmpeg knows by the number alone.
MAX_CHANNELS = 8
#: What a file gets: 5.1. PyAV (18.1), and ComfyUI's process with it, dies of eight, whatever the codec; seven, which it
#: reads, are no common layout.
FILE_CHANNELS = 6
#: Samples that are interleaved at once.
_BLOCK = 1 << 16


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
    def channels(self) -> int:
        """How many channels it has."""
        return int(self.samples.shape[0])

    @property
    def seconds(self) -> Fraction:
        """How long it is."""
        return Fraction(self.samples.shape[1], self.rate)

    def frames(self, rate: Fraction) -> int:
        """How many frames of a video it takes to hear all of it."""
        return max(1, math.ceil(self.seconds * rate))

    def blocks(self, length: int) -> Iterator[memoryview]:
        """The samples of all channels, one after the other, as ffmpeg reads them; each is good until the next one.

        Args:
            length: how many of each channel: what is longer is cut off, silence follows what is shorter.
        """
        for first in range(0, length, _BLOCK):
            part = self.samples[:, first : min(first + _BLOCK, length)].T
            block = np.zeros((min(_BLOCK, length - first), self.samples.shape[0]), "<f4")
            # What is no number, or louder than sound can be, is no codec's business.
            np.clip(np.nan_to_num(part, posinf=1.0, neginf=-1.0), -1.0, 1.0, out=block[: len(part)])
            yield block.data

    @property
    def input_arguments(self) -> list[str]:
        """ffmpeg's arguments that read ``blocks`` from its standard input."""
        return ["-f", "f32le", "-ar", str(self.rate), "-ac", str(self.channels), "-i", "pipe:0"]
