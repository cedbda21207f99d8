"""What a path means: ``clip.mp4`` is a video, ``frames/*.png`` are images; the ending, or a name, tells the format."""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import SinkError
from .base import Sink
from .ffmpeg import find_ffmpeg
from .files import file_error
from .given_names import GivenNames, is_numbered
from .image.deep import Png16Encoder, TiffEncoder
from .image.exr import ExrEncoder
from .image.files import ImageFilesSink
from .image.formats import ImageEncoder, JpegEncoder, PngEncoder, WebpEncoder
from .spool import spool_bytes
from .tensor import TensorSink
from .video.catalogue import VIDEO_FORMATS
from .video.format import VideoFormat
from .video.hardware import hardware_formats
from .video.sink import VideoSink
from .video.sound import Sound
from .video.working import works

#: Where frames go: a path, a sink, several of both, or ``None``: into a tensor.
Target = str | os.PathLike[str] | Sink | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How files are written; what a format has no use for is an error where it was asked for.

    Attributes:
        fps: frames a second; of videos, which need it. Default: ``None``.
        format: name of the format (``VIDEO_NAMES``, ``IMAGE_NAMES``). Default: ``None``, the ending tells it.
        quality: of videos the codec's CRF, lower is better; of JPEG and WebP images 1 to 100, 100 is best. Default:
            ``None``, the format's own.
        preset: speed of a video's encoder. Default: ``None``, the format's own.
        compression: zlib's level of PNG, TIFF and EXR, 0 to 9. Default: ``None``, 4.
        color_space: what frames are, for EXR: ``sRGB``, ``HDR`` or ``linear``. Default: ``"sRGB"``.
        writers: threads that write images. Default: ``None``, as many as are good.
        sound: what is heard, from a video's first frame on. Default: ``None``.
        trim_to_sound: end a video with its sound. Default: ``False``.
        ping_pong: play a video backwards too. Default: ``False``.
        repeats: how often a video is played once more; GIF and WebP say it to the player, 0 is for ever. Default:
            ``0``.
        convert_on_device: convert to a video's own colours on the device. Default: ``None``, where that is a GPU.
        metadata: text by key, for the files' tags. Default: ``None``.
        overwrite: replace files that are there. Default: ``False``.
        spool_gb: disk space, in GB next to the files, for frames that wait for a writer that is slower than the VAE.
            Default: ``0``.
    """

    fps: float | Fraction | None = None
    format: str | None = None
    quality: float | None = None
    preset: str | None = None
    compression: int | None = None
    color_space: str = "sRGB"
    writers: int | None = None
    sound: Sound | None = None
    trim_to_sound: bool = False
    ping_pong: bool = False
    repeats: int = 0
    convert_on_device: bool | None = None
    metadata: Mapping[str, str] | None = None
    overwrite: bool = False
    spool_gb: float = 0

    @property
    def spool(self) -> int:
        """``spool_gb`` in bytes.

        Raises:
            SinkError: it is no size.
        """
        return spool_bytes(self.spool_gb)

    def given(self) -> set[str]:
        """Names of the options that say something else than their default."""
        return {name for name, value in vars(self).items() if value != getattr(Options, name)}


MakeEncoder = Callable[[Options], ImageEncoder]

_IMAGES: Mapping[str, tuple[tuple[str, ...], MakeEncoder, str | None]] = {
    # The name of the format: its endings, what makes its encoder, the option for how well or how hard.
    "png": ((".png",), lambda given: PngEncoder(**_level(given), metadata=given.metadata), "compression"),
    "png16": ((".png",), lambda given: Png16Encoder(**_level(given), metadata=given.metadata), "compression"),
    "jpeg": ((".jpg", ".jpeg"), lambda given: JpegEncoder(**_quality(given), metadata=given.metadata), "quality"),
    "webp": ((".webp",), lambda given: WebpEncoder(**_quality(given), metadata=given.metadata), "quality"),
    "webp-lossless": ((".webp",), lambda given: WebpEncoder(lossless=True, metadata=given.metadata), None),
    "tiff": ((".tiff", ".tif"), lambda given: TiffEncoder(**_level(given), metadata=given.metadata), "compression"),
    "exr": ((".exr",), lambda given: _exr(given, half=True), "compression"),
    "exr-float": ((".exr",), lambda given: _exr(given, half=False), "compression"),
}
_VIDEOS: Mapping[str, VideoFormat] = {video.name: video for video in VIDEO_FORMATS.values()}
#: Those of hardware, which are only ever asked for, never told by an ending.
_HARDWARE: Mapping[str, VideoFormat] = {video.name: video for video in hardware_formats().values()}
#: The names of the formats of images, and of videos (those of the nodes' widgets are known as well).
IMAGE_NAMES, VIDEO_NAMES = tuple(_IMAGES), tuple(_VIDEOS)
#: Options that videos, or images, have no use for.
_OF_IMAGES = {"compression", "color_space", "writers"}
_OF_VIDEOS = {"fps", "preset", "sound", "trim_to_sound", "ping_pong", "repeats", "convert_on_device"}


def sink_for(path: str | os.PathLike[str], options: Options, *, gpu: bool = False, elsewhere: bool = False) -> Sink:
    """Who writes ``path``: a video, or images where it has a place for their number (``*``, ``%05d``).

    Args:
        path: as somebody has written it.
        options: how it is written.
        gpu: the frames come from a GPU.
        elsewhere: another machine will write: nothing is said about the hardware of this one.

    Raises:
        SinkError: the path, its ending or an option makes no sense; the message names the value and the remedy.
    """
    _check_kinds(options)
    if "://" in os.fspath(path):
        raise SinkError(
            f"{os.fspath(path)!r}: this is a place in a store, and files are written here; say to='clip.mp4' and "
            "upload it, or use async_decode.cluster.decode_many, or the command, which write to stores"
        )
    try:
        names = GivenNames(path, overwrite=options.overwrite)
        names.check()
        if names.numbered:
            _refuse(options, _OF_VIDEOS, f"{os.fspath(path)!r} are images")
            encoder = _encoder(names.stem, options)
            return ImageFilesSink(names, encoder, writers=options.writers)
        _refuse(options, _OF_IMAGES, f"{os.fspath(path)!r} is a video")
        return _video(names, options, gpu, elsewhere)
    except OSError as error:
        raise file_error(path, error) from error
    except (ValueError, TypeError) as error:
        raise SinkError(f"{os.fspath(path)!r}: {error}") from error


def _check_kinds(options: Options) -> None:
    """See whether each option is of its kind, which is noticed too late where its value is used."""
    if options.sound is not None and not isinstance(options.sound, Sound):
        raise SinkError(
            f"sound: expected a Sound, got {type(options.sound).__name__}; say sound=read_sound(Path('sound.wav')), "
            "which is in async_decode.sinks.sound_files"
        )
    for name in ("compression", "writers", "repeats"):
        value = getattr(options, name)
        if value is not None and not isinstance(value, numbers.Integral):
            raise SinkError(f"{name}: expected a whole number, got {value!r}")
    if options.quality is not None and not isinstance(options.quality, numbers.Real):
        raise SinkError(f"quality: expected a number, got {options.quality!r}")
    if options.metadata is not None and not isinstance(options.metadata, Mapping):
        raise SinkError(f"metadata: expected text by key, such as {{'seed': '7'}}, got {options.metadata!r}")
    for key, text in (options.metadata or {}).items():
        if not (isinstance(key, str) and isinstance(text, str)):
            raise SinkError(f"metadata: expected text by key, got {key!r}: {text!r}; say str() or json.dumps() of it")


def sinks_for(to: Target | Sequence[Target], options: Options, *, gpu: bool = False) -> list[Sink]:
    """Who takes the frames for ``to``; ``gpu``: they come from a GPU.

    Raises:
        SinkError: a path or an option makes no sense.
    """
    if to is None or isinstance(to, str | os.PathLike | Sink):
        targets: list[Target] = [to]
    elif isinstance(to, Iterable):
        targets = list(to)
    else:
        raise SinkError(f"to: expected a path, a sink or several of them, got {type(to).__name__}")
    if not targets:
        raise SinkError("to: expected a path, a sink or several of them, got an empty list")
    unknown = [target for target in targets if not (target is None or isinstance(target, str | os.PathLike | Sink))]
    if unknown:
        raise SinkError(f"to: expected a path, a sink or several of them, got {type(unknown[0]).__name__}")
    paths = [target for target in targets if isinstance(target, str | os.PathLike)]
    seen: dict[str, str] = {}
    for path in paths:
        if "\0" in os.fspath(path):
            raise SinkError(f"to: {os.fspath(path)!r} holds a NUL character, which no file name can")
        if (place := os.path.realpath(os.path.expanduser(path))) in seen:
            raise SinkError(f"to: {seen[place]} and {os.fspath(path)} are one file; give each a name of its own")
        seen[place] = os.fspath(path)
    if not paths and options.fps is not None:
        raise SinkError(f"fps: there is no video to be written, got fps={options.fps}; say to='clip.mp4'")
    # Of several, each takes what it has a use for; what none of them has is refused.
    by_path = {os.fspath(path): useless(path, options.format) for path in paths}
    nobodys = set.intersection(*by_path.values()) if by_path else set()

    def fitting(path: str | os.PathLike[str]) -> Options:
        left_out = {name: getattr(Options, name) for name in by_path[os.fspath(path)] - nobodys}
        return dataclasses.replace(options, **left_out)

    return [
        target
        if isinstance(target, Sink)
        else TensorSink()
        if target is None
        else sink_for(target, fitting(target), gpu=gpu)
        for target in targets
    ]


def useless(path: str | os.PathLike[str], asked: str | None) -> set[str]:
    """Names of the options that files of ``path`` have no use for; ``asked``: the format, where one was asked for."""
    name = Path(path).name
    if is_numbered(name):
        _, _, option = _IMAGES.get(asked or _image_of(Path(name).suffix.lower()) or "", ((), None, None))
        return _OF_VIDEOS | ({"quality", "compression"} - {option or ""})
    return _OF_IMAGES | ({"quality"} if _format_of(name, asked).crf_range is None else set())


def _video(names: GivenNames, options: Options, gpu: bool, elsewhere: bool) -> VideoSink:
    video = _format_of(names.stem, options.format)
    if options.fps is None:
        raise SinkError(f"fps: {names.stem!r} is a video; say how many frames a second, such as fps=24")
    if video.crf_range is None:
        _refuse(options, {"quality"}, f"{video.name} has no such choice")
    if video.name in _HARDWARE and not elsewhere and not _works_here(video.name):
        raise SinkError(
            f"format: {video.encoder} does not work on this machine, for want of its hardware, of a driver, or of an "
            f"ffmpeg that has it; take another format, such as {next(iter(_VIDEOS))}"
        )
    return VideoSink(
        names,
        fps=options.fps,
        video=video,
        crf=options.quality,
        preset=options.preset,
        metadata=options.metadata,
        sound=options.sound,
        trim_to_sound=options.trim_to_sound,
        ping_pong=options.ping_pong,
        repeats=options.repeats,
        convert_on_device=gpu if options.convert_on_device is None else options.convert_on_device,
    )


@functools.cache
def _works_here(name: str) -> bool:
    """Whether hardware encodes a frame in this format; where there was no answer in time, it may only be slow."""
    return works(_HARDWARE[name], find_ffmpeg()) is not False


def _format_of(name: str, asked: str | None) -> VideoFormat:
    """The format of the video ``name``: the one ``asked`` for, or the first with its ending."""
    ending = Path(name).suffix.lower()
    if asked is not None:
        named = {**_VIDEOS, **VIDEO_FORMATS, **_HARDWARE, **hardware_formats()}
        video = named.get(asked)
        if video is None:
            raise SinkError(
                f"format: expected one of {', '.join(_VIDEOS)} for a video, or of hardware {', '.join(_HARDWARE)}, "
                f"got {asked!r}"
            )
        if video.extension != ending:
            raise SinkError(f"format: {asked} is written to {video.extension} files, got {name!r}")
        return video
    for video in _VIDEOS.values():
        if video.extension == ending:
            return video
    endings = ", ".join(dict.fromkeys(video.extension for video in _VIDEOS.values()))
    images = ", ".join(dict.fromkeys(ending for endings, _, _ in _IMAGES.values() for ending in endings[:1]))
    what = f"for images say where their number goes, as in frames/*{ending}; " if _image_of(ending) else ""
    raise SinkError(f"{name!r}: {what}expected a video's ending ({endings}), or images ({images}) with * in the name")


def _encoder(name: str, options: Options) -> ImageEncoder:
    ending = Path(name).suffix.lower()
    asked = options.format or _image_of(ending)
    if asked is None or asked not in _IMAGES:
        known = ", ".join(f"{name} ({endings[0]})" for name, (endings, _, _) in _IMAGES.items())
        raise SinkError(f"{name!r}: expected images of the format {known}, got {options.format or ending!r}")
    endings, make, option = _IMAGES[asked]
    if ending not in endings:
        raise SinkError(f"format: {asked} is written to {endings[0]} files, got {name!r}")
    _refuse(options, {"quality", "compression"} - {option or ""}, f"{asked} files have no such choice")
    encoder = make(options)
    encoder.extension = ending
    return encoder


def _image_of(ending: str) -> str | None:
    """The default format of images with this ending."""
    return next((name for name, (endings, _, _) in _IMAGES.items() if ending in endings), None)


def _refuse(options: Options, useless: set[str], why: str) -> None:
    for name in sorted(useless & options.given()):
        raise SinkError(f"{name}: {why}, got {name}={getattr(options, name)!r}")


def _level(given: Options) -> dict[str, Any]:
    return {} if given.compression is None else {"compress_level": given.compression}


def _quality(given: Options) -> dict[str, Any]:
    if given.quality is None:
        return {}
    if not math.isfinite(given.quality):
        raise SinkError(f"quality: expected a number from 1 to 100, got {given.quality}")
    return {"quality": round(given.quality)}


def _exr(given: Options, *, half: bool) -> ImageEncoder:
    space: Any = given.color_space
    return ExrEncoder(half=half, color_space=space, **_level(given), metadata=given.metadata)
