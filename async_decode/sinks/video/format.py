"""What a format of video files is: what its container and its codec are called, and what they have to be told.

A further format is a further ``VideoFormat`` in ``catalogue.py``; nothing here starts a process or touches a file. How
the frames' colours become the file's is in ``arguments.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from numbers import Rational

from ...frames import PixelFormat

#: What ffmpeg keeps of a rate that is given as a fraction: neither part may be larger.
_MAX_RATE_PART = 1_001_000
_MIN_RATE = Fraction(1, 1000)
#: Rates of television, which people and widgets write as 23.976, 29.97, …
_NTSC_RATES = tuple(Fraction(whole * 1000, 1001) for whole in (12, 15, 24, 30, 48, 60, 120, 144, 240))
#: Speeds of an encoder, fastest first: x264's names, which every other codec's own scale is mapped to.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


class Colour(enum.Enum):
    """What the frames' RGB becomes in the file."""

    #: BT.709's (or BT.2020's) Y'CbCr in limited range, which every player knows.
    LIMITED = "limited"
    #: The same in full range, whose steps are no wider than RGB's: 8 bits come back within one step.
    FULL = "full"
    #: RGB stays RGB.
    RGB = "rgb"


class Tags(enum.Enum):
    """How a file carries text of any length."""

    #: As tags of the container, which ffmpeg writes.
    CONTAINER = "container"
    #: In its EXIF, which we add to what ffmpeg wrote.
    EXIF = "exif"


def crf_option(value: float) -> list[str]:
    """What most encoders call their quality."""
    return ["-crf", f"{value:g}"]


def speeds(option: str, *values: object) -> dict[str, Sequence[str]]:
    """The value of ``option`` for each of the presets."""
    return {preset: (option, str(value)) for preset, value in zip(PRESETS, values, strict=True)}


#: For codecs that know one speed.
_ANY_SPEED: Mapping[str, Sequence[str]] = {preset: () for preset in PRESETS}


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """One way of writing video.

    Attributes:
        name: short and stable, for messages and scripts.
        extension: of the file, with its dot.
        muxer: ffmpeg's name of the container.
        encoder: ffmpeg's name of the codec.
        pixel_format: ffmpeg's name of what is encoded.
        alpha_format: the same for frames with alpha. Default: ``None``, alpha is left out.
        grey_format: the same for grey frames. Default: ``None``, as the others.
        frames: what the pipe carries: bytes of RGB, unless ffmpeg's conversion would lose what the codec could keep.
            Default: ``PixelFormat.UINT8``.
        planar: what it carries when colours are converted on the device. Default: ``PixelFormat.UINT8``.
        colour: what becomes of RGB. Default: ``Colour.LIMITED``.
        transfer: ffmpeg's name of the transfer function in the tags; what the frames' values follow is not changed.
            Default: ``"iec61966-2-1"``.
        is_wide: the frames' primaries are those of BT.2020 (with HLG or PQ); else BT.709's. The matrix goes with them.
            Default: ``False``.
        crf: the default quality; lower is better. Default: ``0``.
        crf_range: the best and the worst that the codec takes. Default: ``None``, it has no such choice.
        quality: ffmpeg's options for a quality. Default: ``crf_option``.
        preset: the default speed. Default: ``"medium"``.
        speeds: ffmpeg's options for each of the presets. Default: ``_ANY_SPEED``, none for any of them.
        options: further options of the encoder. Default: ``()``.
        muxer_options: further options of the container. Default: ``()``.
        fragments: the container can be written so that it plays wherever writing it ended. Default: ``False``.
        tags: how the file carries text of any length; ``None``: it cannot. Default: ``Tags.CONTAINER``.
        sound: ffmpeg's options for the sound. Default: ``None``, the container has none.
        loops: the container says how often it is to be played. Default: ``False``.
        max_rate: the most frames a second that players show as such, or that the encoder takes. Default: ``None``.
        unit: what the width and the height have to be divisible by. Default: ``(2, 2)``.
        min_size: the least width and height, in pixels. Default: ``(1, 1)``.
        max_size: the most. Default: ``(65534, 65534)``.
        in_browsers: browsers play it. Default: ``True``.
        device: options that stand before the input, for encoders of the hardware. Default: ``()``.
        upload: filters that bring frames to the hardware. Default: ``()``.
    """

    name: str
    extension: str
    muxer: str
    encoder: str
    pixel_format: str
    alpha_format: str | None = None
    grey_format: str | None = None
    frames: PixelFormat = PixelFormat.UINT8
    planar: PixelFormat = PixelFormat.UINT8
    colour: Colour = Colour.LIMITED
    transfer: str = "iec61966-2-1"
    is_wide: bool = False
    crf: float = 0
    crf_range: tuple[float, float] | None = None
    quality: Callable[[float], Sequence[str]] = crf_option
    preset: str = "medium"
    speeds: Mapping[str, Sequence[str]] = field(default_factory=lambda: _ANY_SPEED)
    options: Sequence[str] = ()
    muxer_options: Sequence[str] = ()
    fragments: bool = False
    tags: Tags | None = Tags.CONTAINER
    sound: Sequence[str] | None = None
    loops: bool = False
    max_rate: Fraction | None = None
    unit: tuple[int, int] = (2, 2)
    min_size: tuple[int, int] = (1, 1)
    max_size: tuple[int, int] = (65534, 65534)
    in_browsers: bool = True
    device: Sequence[str] = ()
    upload: Sequence[str] = ()

    @property
    def presets(self) -> tuple[str, ...]:
        """The speeds that the codec knows, fastest first."""
        return tuple(self.speeds)

    @property
    def survives(self) -> bool:
        """What is written of a file plays wherever writing it ended; an animated WebP says in front how long it is."""
        return self.muxer != "webp"

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the video in pixels: those of the frames, made larger where they have to be."""
        across, down = self.unit
        return -(-width // across) * across, -(-height // down) * down

    def encoded(self, channels: int) -> str:
        """ffmpeg's name of what frames with so many channels are encoded as."""
        special = {1: self.grey_format, 4: self.alpha_format}.get(channels)
        return special if special is not None else self.pixel_format


def exact_rate(fps: float | Fraction) -> Fraction:
    """The frame rate that is meant by ``fps``: 23.976 means 24000/1001; a fraction means itself.

    Args:
        fps: any number: Python's, NumPy's or a tensor of one element.

    Raises:
        ValueError: it is no number, less than 1/1000, or not a rate that a file can state exactly.
    """
    number = fps.item() if hasattr(fps, "item") else fps
    if not isinstance(number, int | float | Fraction | Decimal):
        raise ValueError(f"expected a frame rate as a number, got {fps!r}")
    if not _MIN_RATE <= number <= _MAX_RATE_PART:
        raise ValueError(f"expected a positive frame rate from {float(_MIN_RATE):g} frames a second on, got {fps}")
    rate = Fraction(number)
    if isinstance(number, Rational):
        if max(rate.numerator, rate.denominator) > _MAX_RATE_PART:
            raise ValueError(f"expected a frame rate with parts up to {_MAX_RATE_PART}, got {rate}")
        return rate
    # Within rounding to two places (23.98 is furthest away). 14.99 is further: 14.985 lies between two of those.
    for television in _NTSC_RATES:
        if abs(rate - television) < Fraction(4, 1000):
            return television
    return rate.limit_denominator(1000)
