"""Formats of video files: what each is called, and what ffmpeg has to be told to write it.

A further format is a further ``VideoFormat``; nothing here starts a process or touches a file.

Colours. Frames are sRGB with BT.709's primaries. They become Y'CbCr by BT.709's matrix in limited range, and stream and
container say so: range, primaries, matrix, and sRGB's transfer function, which is what the values follow (stock's Save
Video tags the same; BT.709's own would be shown lighter by players that take it at its word). Chroma of 4:2:0 is
averaged over 2x2 pixels, hence sited at their centre, and the stream says that as well. That is stock's siting, so no
player shows less than with stock's file, while those that read the tag get 4 dB more at coloured edges. On the left,
H.264's default, it would be worse wherever the centre is assumed, as browsers and ComfyUI itself do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import SinkError
from ..ffmpeg import file_url
from ..frames import Clip

#: What ffmpeg keeps of a rate that is given as a fraction: neither part may be larger.
_MAX_RATE_PART = 1_001_000
#: Rates of television, which people and widgets write as 23.976, 29.97, …
_NTSC_RATES = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 120))
#: ffmpeg's names of the frames that come through the pipe, by channels; what would be alpha is left out.
_INPUT_FORMATS = {1: "gray", 3: "rgb24", 4: "rgb0"}
#: How the colours of every video are tagged. Earlier ffmpegs take that from the encoder's options alone …
_ENCODER_TAGS = (
    "-color_range",
    "tv",
    "-colorspace",
    "bt709",
    "-color_primaries",
    "bt709",
    "-color_trc",
    "iec61966-2-1",
)
#: … and ffmpeg 7 and later from the frames alone.
_FRAME_TAGS = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=iec61966-2-1"
#: Grey is full range too, which ffmpeg would not assume. The positions (in 1/256 of a pixel) are the centre of 2x2.
_CONVERSION = (
    "scale=in_range=full:out_range=tv:out_color_matrix=bt709:out_h_chr_pos=128:out_v_chr_pos=128"
    ":flags=bicubic+accurate_rnd+full_chroma_int"
)


@dataclass(frozen=True, kw_only=True)
class VideoFormat:
    """One way of writing video.

    Attributes:
        name: short and stable, for widgets and scripts.
        extension: of the file, with its dot.
        muxer: ffmpeg's name of the container.
        encoder: ffmpeg's name of the codec.
        pixel_format: ffmpeg's name of what is encoded.
        crf: the default quality on the codec's own scale; lower is better.
        crf_range: the best and the worst that the codec takes.
        preset: the default speed.
        presets: the speeds that the codec knows, fastest first.
        options: further options of the encoder.
        muxer_options: further options of the container.
        even: the width and the height have to be even.
    """

    name: str
    extension: str
    muxer: str
    encoder: str
    pixel_format: str
    crf: float
    crf_range: tuple[float, float]
    preset: str
    presets: Sequence[str]
    options: Sequence[str] = ()
    muxer_options: Sequence[str] = ()
    even: bool = True

    def size(self, clip: Clip) -> tuple[int, int]:
        """Width and height of the video in pixels: those of the frames, made even where they have to be."""
        unit = 2 if self.even else 1
        return -(-clip.width // unit) * unit, -(-clip.height // unit) * unit


#: What plays everywhere. The defaults are those of stock's Save Video.
H264_MP4 = VideoFormat(
    name="h264",
    extension=".mp4",
    muxer="mp4",
    encoder="libx264",
    pixel_format="yuv420p",
    crf=23,
    crf_range=(0, 51),
    preset="medium",
    presets=("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
    # Centre, in the order of H.264's table E-1; ffmpeg's own option for it is overruled by the frames.
    options=("-x264-params", "chromaloc=1"),
    # use_metadata_tags keeps keys that MP4 does not know (prompt, workflow); faststart puts the index in front.
    muxer_options=("-movflags", "use_metadata_tags+faststart"),
)


def exact_rate(fps: float | Fraction) -> Fraction:
    """The frame rate that is meant by ``fps``: 23.976 means 24000/1001; a fraction means itself.

    Raises:
        ValueError: it is not positive, or not a rate that a file can state exactly.
    """
    if isinstance(fps, float):
        if not 0 < fps < _MAX_RATE_PART:
            raise ValueError(f"expected a positive frame rate, got {fps}")
        # Within rounding to two places, and well away from the whole number beside it.
        for rate in _NTSC_RATES:
            if abs(fps - rate) < 0.005:
                return rate
        return Fraction(fps).limit_denominator(1000)
    rate = Fraction(fps)
    if rate <= 0 or max(rate.numerator, rate.denominator) > _MAX_RATE_PART:
        raise ValueError(f"expected a positive frame rate with parts up to {_MAX_RATE_PART}, got {rate}")
    return rate


def encode_arguments(
    video: VideoFormat, clip: Clip, *, rate: Fraction, crf: float, preset: str, tags: str | None, output: str
) -> list[str]:
    """ffmpeg's arguments for frames that come through its standard input.

    Args:
        video: the format.
        clip: geometry of the frames.
        rate: frames a second.
        crf: quality, on the codec's scale.
        preset: speed, one of the format's.
        tags: path of a file in ffmpeg's metadata format.
        output: path of the file to write.

    Raises:
        SinkError: no format takes frames with so many channels.
    """
    if clip.channels not in _INPUT_FORMATS:
        raise SinkError(f"expected frames with 1, 3 or 4 channels for a video, got {clip.channels}")
    source = ["-f", "rawvideo", "-pixel_format", _INPUT_FORMATS[clip.channels]]
    source += ["-video_size", f"{clip.width}x{clip.height}", "-framerate", str(rate), "-i", "pipe:0"]
    tagging = [] if tags is None else ["-f", "ffmetadata", "-i", file_url(tags), "-map_metadata", "1"]
    target = ["-map", "0:v", "-vf", _filters(video, clip), "-pix_fmt", video.pixel_format, *_ENCODER_TAGS]
    codec = ["-c:v", video.encoder, "-preset", preset, "-crf", f"{crf:g}", *video.options]
    container = ["-f", video.muxer, *video.muxer_options, "-y", file_url(output)]
    return [*source, *tagging, *target, *codec, *container]


def _filters(video: VideoFormat, clip: Clip) -> str:
    """Even size, by repeating the last column and line, then one accurate conversion."""
    width, height = video.size(clip)
    right, bottom = width - clip.width, height - clip.height
    filters = []
    if right or bottom:
        filters += [f"pad={width}:{height}", f"fillborders=right={right}:bottom={bottom}:mode=smear"]
    return ",".join([*filters, _CONVERSION, _FRAME_TAGS])
