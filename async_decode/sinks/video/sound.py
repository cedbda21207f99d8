"""The sound of a video: samples in host memory on their way into ffmpeg."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

#: What has a layout that ffmpeg knows by the number alone; more are taken for pairs, left and right.
_MAX_CHANNELS = 8
_PAIR = 2
#: What a file gets: 5.1. PyAV (18.1), and ComfyUI's process with it, dies of eight, whatever the codec; seven, which it
#: reads, are no common layout.
_FILE_CHANNELS = 6
#: Rates that every encoder takes, or can be given by resampling; of slower ones, AAC makes no sound, without a word.
_RATES = (1000, 768_000)
#: Values that are interleaved at once.
_BLOCK = 1 << 19


@dataclass(frozen=True, eq=False)
class Sound:
    """The sound that belongs to a clip and begins with its first frame.

    Attributes:
        samples: ``(C, S)`` float32, -1 to 1.
        rate: samples a second, 1000 to 768000.

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
        if self.samples.size == 0:
            channels, samples = self.samples.shape
            raise ValueError(f"the sound is empty: it has {channels} channels of {samples} samples")
        least, most = _RATES
        if not least <= self.rate <= most:
            raise ValueError(f"expected a sample rate from {least} to {most} Hz, got {self.rate}")

    @property
    def channels(self) -> int:
        """How many channels it has."""
        return int(self.samples.shape[0])

    @property
    def file_channels(self) -> int:
        """How many of them a file gets: more are mixed."""
        if self.channels > _MAX_CHANNELS:
            return _PAIR
        return min(self.channels, _FILE_CHANNELS)

    @property
    def _piped(self) -> int:
        """How many channels ``blocks`` has: ffmpeg itself mixes those that have a layout."""
        return self.channels if self.channels <= _MAX_CHANNELS else _PAIR

    @property
    def seconds(self) -> Fraction:
        """How long it is."""
        return Fraction(self.samples.shape[1], self.rate)

    @property
    def is_finite(self) -> bool:
        """Whether all of its samples are numbers that can be compared with others."""
        return all(bool(np.isfinite(channel).all()) for channel in self.samples)

    def frames(self, rate: Fraction) -> int:
        """How many frames of a video it takes to hear all of it."""
        return max(1, math.ceil(self.seconds * rate))

    def blocks(self, length: int) -> Iterator[memoryview]:
        """The samples of all channels, one after the other, as ffmpeg reads them; each is good until the next one.

        Args:
            length: how many of each channel: what is longer is cut off, silence follows what is shorter.
        """
        step = max(1, _BLOCK // self.channels)
        for first in range(0, length, step):
            part = self.samples[:, first : min(first + step, length)].T
            block = np.zeros((min(step, length - first), self._piped), "<f4")
            # What is no number, or louder than sound can be, is no codec's business.
            loud = np.clip(np.nan_to_num(part, posinf=1.0, neginf=-1.0), -1.0, 1.0)
            block[: len(part)] = loud if self._piped == self.channels else _pair(loud)
            yield block.data

    @property
    def input_arguments(self) -> list[str]:
        """ffmpeg's arguments that read ``blocks`` from its standard input."""
        return ["-f", "f32le", "-ar", str(self.rate), "-ac", str(self._piped), "-i", "pipe:0"]


def _pair(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``(S, 2)`` of ``(S, C)``: the means of every other channel, and on both sides the last of an odd number."""
    left, right = samples[:, 0::2], samples[:, 1::2]
    if samples.shape[1] % 2:
        right = np.concatenate([right, samples[:, -1:]], axis=1)
    return np.stack([left.mean(axis=1), right.mean(axis=1)], axis=1)
