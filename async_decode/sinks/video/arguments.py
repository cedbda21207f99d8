"""ffmpeg's command line for a video: the pipe that frames come through, colours, tags, a file that survives, and sound.

Colours. Frames are sRGB with BT.709's primaries. They become Y'CbCr by BT.709's matrix in limited range (4:4:4 of 8
bits: full range, whose steps are no wider than RGB's), and stream and container say so: range, primaries, matrix, and
sRGB's transfer function, which is what the values follow (stock's Save Video tags the same; BT.709's own would be shown
lighter by players that take it at its word). Chroma of 4:2:0 is averaged over 2x2 pixels, hence sited at their centre,
and streams that can say so do. That is stock's siting, so no player shows less than with stock's file, while those that
read the tag get 4 dB more at coloured edges. On the left, H.264's default, it would be worse wherever the centre is
assumed, as browsers and ComfyUI itself do. ProRes 422 has its chroma on the left, as its specification wants it.

Files that survive. MP4 and MOV are written in fragments of a second, each of which plays if nothing comes behind it.
When all are there, they become an ordinary file with its index in front: a copy, nothing is encoded again. ffmpeg's own
hybrid mode would save that copy, but (in 9.0) the last frame is lost where it is alone in the last fragment, as often
happens with the 4n + 1 frames of a video model. MKV and WebM are written in clusters of a second.

Sound is encoded when that copy is made, in any container that has some: only then it is known how many frames there
are, and a sound that cannot be encoded costs nothing but itself.
"""

from __future__ import annotations

import sys
from fractions import Fraction

from ...errors import SinkError
from ...frames import Clip, PixelFormat
from ..ffmpeg import file_url
from .format import Colour, VideoFormat
from .sound import Sound

#: ffmpeg's names of the frames that come through the pipe, by channels; what would be alpha is left out, unless the
#: format keeps it.
_INPUT_FORMATS = {
    PixelFormat.UINT8: {1: "gray", 3: "rgb24", 4: "rgb0"},
    PixelFormat.UINT16: {1: "gray16", 3: "rgb48", 4: "rgba64"},
}
_ENDIAN = "le" if sys.byteorder == "little" else "be"
#: How long a fragment is, in microseconds.
_FRAGMENT_US = 1_000_000
#: Up to this width, in pixels, x265's cutree (seen in 4.3, with 34 to 48 pixels) writes behind its memory and dies.
_X265_NARROW = 64
#: The most that FLAC is given, in Hz; from about 620 kHz on, ffmpeg's encoder finds no block size and fails.
_FLAC_RATE = 384_000
#: ffmpeg's names of what reads a container, by what writes it.
_DEMUXERS = {"matroska": "matroska", "webm": "matroska", "gif": "gif"}


def input_format(video: VideoFormat, frames: PixelFormat, channels: int) -> str:
    """ffmpeg's name of the frames that come through the pipe.

    Raises:
        SinkError: no format takes frames with so many channels.
    """
    if channels not in (1, 3, 4):
        raise SinkError(f"expected frames with 1, 3 or 4 channels for a video, got {channels}")
    if frames.planes is not None:
        name = frames.value
        if frames.planes.alpha and channels == 4:
            name = name.replace("yuv", "yuva")
    else:
        name = _INPUT_FORMATS[frames][channels]
        if channels == 4 and video.alpha_format is not None:
            name = name.replace("rgb0", "rgba")
    return name + (_ENDIAN if frames.dtype.itemsize == 2 else "")


def encode_arguments(
    video: VideoFormat,
    clip: Clip,
    *,
    rate: Fraction,
    crf: float,
    preset: str,
    output: str,
    frames: PixelFormat | None = None,
    tags: str | None = None,
    plays: int = 0,
    max_side: int | None = None,
) -> list[str]:
    """ffmpeg's arguments for frames that come through its standard input.

    Args:
        video: the format.
        clip: geometry of the frames.
        rate: frames a second.
        crf: quality, on the format's scale.
        preset: speed, one of the format's.
        output: path of the file to write.
        frames: what comes through the pipe; ``None``: what the format takes.
        tags: where ffmpeg reads tags in its metadata format.
        plays: how often a container that can say so wants to be played; 0: forever.
        max_side: scale the video down so that no side is longer, in pixels.

    Raises:
        SinkError: no format takes frames with so many channels.
    """
    frames = video.frames if frames is None else frames
    width, height = _frame_size(clip, frames)
    source = [*video.device, "-f", "rawvideo", "-pixel_format", input_format(video, frames, clip.channels)]
    # Not -framerate, for which ffmpeg would guess what is meant: 120 for 119.88.
    source += ["-video_size", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0"]
    maps = ["-map", "0:v"]
    if tags is not None:
        source += ["-f", "ffmetadata", "-i", tags]
        maps += ["-map_metadata", "1"]
    target = ["-vf", ",".join(_filters(video, clip, frames, max_side))]
    if not video.upload:
        target += ["-pix_fmt", video.encoded(clip.channels)]
    target += _encoder_tags(video)
    codec = ["-c:v", video.encoder, *video.speeds[preset], *video.options]
    if video.encoder == "gif" and clip.channels == 4:
        # Whole pictures: each goes before the next one.
        codec += ["-gifflags", "-offsetting-transdiff"]
    if video.encoder == "libx265" and video.size(clip.width, clip.height)[0] <= _X265_NARROW:
        codec[codec.index("-x265-params") + 1] += ":cutree=0"
    if video.crf_range is not None:
        codec += video.quality(crf)
    container = ["-f", video.muxer, *_muxer_options(video, plays), "-y", file_url(output)]
    return [*source, *maps, *target, *codec, *container]


def whole_arguments(
    video: VideoFormat,
    *,
    source: str | None,
    tags: str | None,
    sound: Sound | None,
    most: int | None = None,
    rate: Fraction | None = None,
    output: str,
) -> list[str]:
    """ffmpeg's arguments that copy a file to make it ordinary: with its index in front, and with its sound.

    Args:
        video: the format.
        source: path of the file, as ``encode_arguments`` had it written; ``None``: it comes through standard input.
        tags: where ffmpeg reads the tags that were used for it.
        sound: what is heard, through standard input.
        most: how many frames to copy at most; ``None``: all.
        rate: frames a second, where ffmpeg does not find that in the file; ``None``: it does.
        output: path of the file to write.
    """
    options = list(video.muxer_options)
    if video.fragments:
        options[options.index("-movflags") + 1] += "+faststart"
    inputs, maps = [], []
    if sound is not None:
        # Before the video: it is opened when the first sound comes, which is when the video is there.
        inputs += sound.input_arguments
        maps += ["-map", "1:v", "-map", "0:a"]
    # What a killed encoder had not written to the end is left out.
    inputs += ["-fflags", "+discardcorrupt", "-f", "mov" if video.fragments else _DEMUXERS[video.muxer]]
    inputs += [*([] if rate is None else ["-r", str(rate)]), "-i", "pipe:0" if source is None else file_url(source)]
    if sound is None:
        maps += ["-map", "0:v"]
    # The tags from where they came: the file itself would add what it says of its container.
    if tags is None:
        maps += ["-map_metadata", "-1"]
    else:
        maps += ["-map_metadata", "1" if sound is None else "2"]
        inputs += ["-f", "ffmetadata", "-i", tags]
    codecs = ["-c:v", "copy", *([] if most is None else ["-frames:v", str(most)])]
    if sound is not None:
        codecs += [*_sound_filter(video, sound), *(video.sound or ())]
    # The codec's name in the file is the muxer's choice again.
    tag = ["-tag:v", "hvc1"] if "hvc1" in video.options else []
    return [*inputs, *maps, *codecs, *tag, "-f", video.muxer, *options, "-y", file_url(output)]


def count_arguments(video: VideoFormat, source: str, *, by_decoding: bool = False) -> list[str]:
    """ffmpeg's arguments that read a file, whole or not, and tell how many frames it holds.

    Args:
        video: the format.
        source: path of the file.
        by_decoding: count what is shown, which packets do not tell. Default: ``False``, packets.
    """
    demuxer = "mov" if video.fragments else _DEMUXERS[video.muxer]
    inputs = ["-fflags", "+discardcorrupt", "-f", demuxer, "-i", file_url(source)]
    # By the name that ffmpeg 4 knows: each frame once, whatever its time.
    how = ["-vsync", "passthrough"] if by_decoding else ["-c", "copy"]
    # Not its statistics, which (in 7.0) do not tell how many frames were copied.
    return [*inputs, "-map", "0:v", *how, "-v", "verbose", "-nostats", "-f", "null", "-"]


def _sound_filter(video: VideoFormat, sound: Sound) -> list[str]:
    """Names of the channels where ffmpeg would guess others, and fewer where there are too many; a rate for FLAC."""
    rate = ["-ar", str(_FLAC_RATE)] if "flac" in (video.sound or ()) and sound.rate > _FLAC_RATE else []
    channels = sound.file_channels
    # Not 2.1, as ffmpeg would guess, whose third channel keeps the bass only; Opus takes four in one layout.
    layout = {3: "3.0", 4: "quad" if "libopus" in (video.sound or ()) else None}.get(channels)
    if channels < sound.channels:
        return [*rate, "-ac", str(channels)]
    if layout is None:
        return rate
    return [*rate, "-af", "channelmap=" + "|".join(map(str, range(channels))) + f":{layout}"]


def _muxer_options(video: VideoFormat, plays: int) -> list[str]:
    options = list(video.muxer_options)
    if video.fragments:
        options[options.index("-movflags") + 1] += "+empty_moov+delay_moov"
        # Flushing: else the file would lag behind by what ffmpeg holds back.
        options += ["-frag_duration", str(_FRAGMENT_US), "-flush_packets", "1"]
    elif video.muxer in ("matroska", "webm"):
        # Its clusters are what fragments are: kept back until they are whole.
        options += ["-cluster_time_limit", str(_FRAGMENT_US // 1000), "-flush_packets", "1"]
    if video.loops:
        # GIF counts how often it is repeated (-1: never), WebP how often it is played; 0 means forever for both.
        options += ["-loop", str(plays if video.muxer == "webp" else plays - 1 if plays > 1 else -1 if plays else 0)]
    return options


def _encoder_tags(video: VideoFormat) -> list[str]:
    """How the colours are tagged. Earlier ffmpegs take that from the encoder's options alone."""
    if video.colour is Colour.RGB:
        return ["-color_range", "pc"]
    return [
        *("-color_range", "tv" if video.colour is Colour.LIMITED else "pc"),
        *("-colorspace", _matrix(video), "-color_primaries", "bt2020" if video.is_wide else "bt709"),
        *("-color_trc", video.transfer),
    ]


def _matrix(video: VideoFormat) -> str:
    """ffmpeg's name of the matrix, with a constant luminance that nobody writes left out."""
    return "bt2020nc" if video.is_wide else "bt709"


def _frame_tags(video: VideoFormat, channels: int) -> str:
    """The same for ffmpeg 7 and later, which takes it from the frames alone."""
    if video.colour is Colour.RGB:
        matrix = "bt709" if channels == 1 and video.grey_format is not None else "gbr"
        return f"setparams=range=pc:colorspace={matrix}:color_primaries=bt709:color_trc=iec61966-2-1"
    return (
        f"setparams=range={'tv' if video.colour is Colour.LIMITED else 'pc'}:colorspace={_matrix(video)}"
        f":color_primaries={'bt2020' if video.is_wide else 'bt709'}:color_trc={video.transfer}"
    )


def _frame_size(clip: Clip, frames: PixelFormat) -> tuple[int, int]:
    """Width and height of what comes through the pipe; planes have been made as large as their chroma needs."""
    if frames.planes is None:
        return clip.width, clip.height
    across, down = frames.planes.across, frames.planes.down
    return -(-clip.width // across) * across, -(-clip.height // down) * down


def _filters(video: VideoFormat, clip: Clip, frames: PixelFormat, max_side: int | None) -> list[str]:
    """A size that the codec takes, by repeating the last column and line, then one accurate conversion."""
    width, height = video.size(clip.width, clip.height)
    came_width, came_height = _frame_size(clip, frames)
    right, bottom = width - came_width, height - came_height
    filters = []
    if right or bottom:
        filters += [f"pad={width}:{height}", f"fillborders=right={right}:bottom={bottom}:mode=smear"]
    longest = max(width, height)
    if max_side is not None and longest > max_side:
        width, height = (max(2, round(side * max_side / longest / 2) * 2) for side in (width, height))
        filters.append(f"scale={width}:{height}:flags=area")
    if frames not in (video.frames, video.planar) or (frames.planes is None and video.colour is not Colour.RGB):
        filters.append(_conversion(video, frames))
    filters.append(_frame_tags(video, clip.channels))
    if video.encoder == "gif":
        # A palette for each frame: one for the clip would have to hold all frames until the last has come.
        alpha = int(clip.channels == 4)
        filters.append(
            f"split[a][b];[a]palettegen=stats_mode=single:reserve_transparent={alpha}[p];"
            "[b][p]paletteuse=new=1:dither=sierra2_4a"
        )
    if video.encoder == "dnxhd":
        # It dies (SIGSEGV) of lines that do not begin at its processor's steps, as those of a pipe may.
        filters.append("copy")
    return [*filters, *video.upload]


def _conversion(video: VideoFormat, frames: PixelFormat) -> str:
    """One scaler of swscale's, for 8-bit 4:2:0. Grey is full range too, which ffmpeg would not assume."""
    full = frames.planes is None or frames.planes.full_range
    # In 1/256 of a pixel: the centre of 2x2 pixels.
    return (
        f"scale=in_range={'full' if full else 'tv'}:in_color_matrix=bt709:out_range=tv"
        f":out_color_matrix={'bt2020' if video.is_wide else 'bt709'}"
        ":out_h_chr_pos=128:out_v_chr_pos=128:flags=area+accurate_rnd+full_chroma_int"
    )
