"""A video file: the widgets, the sound, the sinks and the outputs of the nodes that save video."""

from __future__ import annotations

import contextlib
import functools
import platform
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.v0_0_2 import InputImpl, io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ..async_decode import SinkError
from ..async_decode.sinks import (
    H264_MP4,
    VIDEO_FORMATS,
    OptionalSink,
    Sink,
    StandIn,
    VideoFormat,
    VideoSink,
    WorkingFormats,
)
from ..async_decode.sinks.files import OutputNames
from ..async_decode.sinks.video.notes import check_size
from . import background, saving, sounds
from .earlier_runs import SavedAs

#: Under this key a node's ``ui`` output names what its player takes instead of the file.
STAND_IN_KEY = "async_vae_decode_stand_in"
#: The longest side of what stands in for a file that browsers do not play, in pixels.
PROXY_SIDE = 768
#: The quality of that, on H.264's scale; …
PROXY_CRF = 26
#: … and of what stands in for a file that ComfyUI itself cannot read.
READABLE_CRF = 14


#: The format that the widget begins with.
DEFAULT_FORMAT = next(iter(VIDEO_FORMATS))
#: Frames a second that the nodes take.
LEAST_FPS, MOST_FPS = 0.01, 1000.0
#: What stands for an input that nothing is connected to, where ``None`` is one whose value nobody knows yet.
NOT_CONNECTED = object()


def formats() -> dict[str, VideoFormat]:
    """The formats by their names in the widget: those whose encoders are known to work, software's first.

    The first call begins to try them, in the background: ComfyUI's start does not wait for it, and offers software's
    formats meanwhile. What came out is kept in the user's folder, so that it is there at the next start.
    """
    return dict(_working().known())


@functools.cache
def _working() -> WorkingFormats:
    folder = Path(folder_paths.get_user_directory()) / "async_vae_decode"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    cuda = torch.cuda.is_available()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if cuda else []
    return WorkingFormats(folder / "encoders.json", machine=" ".join([platform.node(), *gpus]))


def inputs() -> list[io.Input]:
    """What is saved and where, in both nodes."""
    return [
        saving.filename_prefix_input("video/ComfyUI"),
        io.Combo.Input(
            "format",
            options=list(formats()),
            default=DEFAULT_FORMAT,
            tooltip="mp4 (H.264) plays everywhere. 4:4:4 keeps sharp coloured edges, few players take it. H.265 and "
            "AV1 make smaller files, their 10-bit forms smoother gradients. VP9 (and ProRes 4444, FFV1, GIF, WebP) "
            "keep alpha. FFV1 is lossless: the very frames come back. ProRes and DNxHR are for editing. HDR (HLG) and "
            "HDR PQ are for frames that are encoded so already, with BT.2020. A GIF gets a palette of 256 colours for "
            "each frame, so that memory does not grow with the clip; GIF and WebP carry no sound, GIF no workflow. "
            "Those with NVENC, QSV, AMF, VAAPI or VideoToolbox in their names are encoded by this machine's hardware: "
            "fast, but larger at the same quality.",
        ),
        io.Int.Input(
            "quality",
            default=int(H264_MP4.crf),
            min=0,
            max=63,
            tooltip="The codec's CRF: lower is better and larger. H.264: 0 (lossless) to 51, 23 is what Save Video "
            "uses, 17 is hard to tell from the frames, each 6 more about halve the file. H.265: 0 to 51, 28 is like 23 "
            "of H.264. AV1: 1 to 63, 30 is usual. VP9: 0 (lossless) to 63, 31 is usual. WebP: 0 is lossless, then 1 to "
            "63. Hardware: 1 to 51. ProRes, DNxHR, FFV1 and GIF have no such choice.",
        ),
        # Frame rates come out of other nodes as either.
        io.MultiType.Input(
            io.Float.Input(
                "fps",
                default=24.0,
                # Front ends would make the least that is taken of it, in silence; so it is refused when queued.
                min=0.0,
                max=MOST_FPS,
                step=0.001,
                tooltip="Frames per second. 23.976, 29.97 and 59.94 are taken as 24000/1001, 30000/1001 and "
                "60000/1001. GIF knows at most 50, WebP 100.",
            ),
            types=[io.Int],
        ),
    ]


def further_inputs() -> list[io.Input]:
    """The rest of what both nodes have."""
    return [
        io.Combo.Input(
            "preset",
            options=list(H264_MP4.presets),
            default=H264_MP4.preset,
            tooltip="How long the encoder may think: faster presets keep up with faster decoders, slower ones make "
            "smaller files of the same quality. The names are those of H.264 and H.265; AV1 takes presets 12 to 3, VP9 "
            "cpu-used 8 to 0, WebP methods 0 to 6 for them. ProRes, DNxHR, FFV1 and GIF know one speed.",
        ),
        io.Boolean.Input(
            "ping_pong",
            default=False,
            optional=True,
            tooltip="Play the clip forwards, then backwards. The frames wait for that on disk, uncompressed (3 bytes a "
            "pixel, 6 in formats of more than 8 bits), next to the video, and are gone afterwards: memory does not "
            "grow with the clip.",
        ),
        io.Int.Input(
            "loop_count",
            default=0,
            min=0,
            max=1000,
            optional=True,
            tooltip="How often the clip is played once more. GIF and WebP tell it to the player, and 0 means for ever. "
            "In a video the frames are encoded again, from a copy on disk as for ping_pong, and 0 means once.",
        ),
        io.Audio.Input(
            "audio",
            optional=True,
            tooltip="The sound, from the first frame on: AAC in mp4, Opus in webm, PCM in mov, FLAC in mkv. It is "
            "padded with silence or cut to the length of the video.",
        ),
        io.Boolean.Input(
            "trim_to_audio",
            default=False,
            optional=True,
            tooltip="End the video where the sound ends, instead of the other way round. Needs audio.",
        ),
        io.Boolean.Input(
            "convert_on_gpu",
            default=True,
            optional=True,
            tooltip="Convert to the video's own 4:2:0 colours on the GPU (CUDA and ROCm): half as many bytes are "
            "copied and the encoder has less to do. The files are as good; off, ffmpeg converts, whose samples differ "
            "by one step at most. Frames with alpha in VP9 are always converted by ffmpeg.",
        ),
    ]


class VideoFile:
    """The file of one run, and a small one in ComfyUI's temporary folder where browsers would not play it.

    Args:
        hidden: the node's hidden inputs.
        filename_prefix: as of ``saving.target_of``.
        width: of the frames, in pixels; ``height`` likewise.
        channels: of the frames: 1, 3 or 4.
        device: where the frames are made.
        fps: frames a second.
        format: one of ``formats()``.
        quality: on the format's scale.
        preset: the encoder's speed.
        ping_pong: play it backwards as well.
        loop_count: how often it is played once more.
        audio: ComfyUI's AUDIO, or ``None``.
        trim_to_audio: end where the sound ends.
        convert_on_gpu: convert colours on the device.

    Attributes:
        sinks: who takes the frames.
        notes: what the report is to say of the widgets.
        saved_as: how the file is saved, for what is remembered of earlier runs.

    Raises:
        SinkError: a value is none that the format takes; as ``saving.target_of``.
    """

    def __init__(
        self,
        hidden: Any,
        filename_prefix: str,
        width: int,
        height: int,
        channels: int,
        device: torch.device,
        *,
        fps: float,
        format: str,
        quality: int,
        preset: str,
        ping_pong: bool = False,
        loop_count: int = 0,
        audio: Any = None,
        trim_to_audio: bool = False,
        convert_on_gpu: bool = True,
    ) -> None:
        check(format, quality, fps)
        video = formats()[format]
        check_size(video, width, height)
        self.notes: list[str] = []
        sound = sounds.sound_of(audio, self.notes)
        if trim_to_audio and sound is None:
            trim_to_audio = False
            self.notes.append("trim_to_audio: there is no audio to end with, so the video has all frames")
        target = saving.target_of(filename_prefix, width, height)
        keeps_alpha = channels == 4 and video.alpha_format is not None
        self.format = video
        has_speeds = len(set(map(tuple, video.speeds.values()))) > 1
        self.saved_as = SavedAs(
            f"{format}, quality {quality}, played {loop_count} times more{', back and forth' if ping_pong else ''}",
            f"preset {preset}" if has_speeds else "its only preset",
        )
        self._subfolder = target.subfolder
        # What the file and its stand-in have in common.
        shared: dict[str, Any] = {
            "fps": fps,
            "sound": sound,
            "trim_to_sound": trim_to_audio,
            "ping_pong": ping_pong,
        }
        self._file = VideoSink(
            target.names,
            video=video,
            crf=quality if video.crf_range is not None else None,
            preset=preset,
            metadata=saving.metadata_of(hidden),
            repeats=loop_count,
            convert_on_device=convert_on_gpu and device.type == "cuda" and not keeps_alpha,
            **shared,
        )
        self._proxy = self._stand_in(shared)
        # Where that fails, or gets no further, the file is made all the same.
        proxy = self._proxy
        self._spare = proxy and OptionalSink(
            proxy, _missing(video), place=_stand_in_place(video), progress=lambda: proxy.frames
        )
        self.sinks: list[Sink] = [self._file, *([self._spare] if self._spare else [])]

    def _stand_in(self, shared: dict[str, Any]) -> VideoSink | None:
        """Who makes the file that is shown, or read by other nodes, instead; ``None``: nobody has to."""
        readable = _is_readable(self.format)
        if self.format.in_browsers and readable:
            return None
        return VideoSink(
            OutputNames(folder_paths.get_temp_directory(), "AsyncVAEDecode"),
            crf=PROXY_CRF if readable else READABLE_CRF,
            preset="veryfast",
            stand_in=StandIn(self._file.pixel_format, max_side=PROXY_SIDE if readable else None),
            **shared,
        )

    def video(self, later: background.BackgroundRun | None) -> Any:
        """The VIDEO, backed by the file, or by what stands in for it where ComfyUI could not read it.

        Where that has failed there is none: the node that takes it says why.

        Args:
            later: who finishes it, if it is not whole yet.
        """
        spare = None if _is_readable(self.format) else self._spare
        sink = self._file if spare is None else self._proxy

        def path() -> str:
            if spare is not None and spare.error is not None:
                raise SinkError(spare.notes[0])
            assert sink is not None, "what stands in has a sink"
            return str(sink.path)

        if later is not None:
            return background.BackgroundVideo(later, path)
        try:
            return InputImpl.VideoFromFile(path())
        except SinkError as error:
            return ExecutionBlocker(str(error))

    def ui(self, whole: bool = True) -> dict[str, Any]:
        """What the node shows: the file, and the name of what browsers play instead, in ComfyUI's temporary folder.

        Args:
            whole: the files are; else these are the names that they will have.
        """
        saved = ui.SavedResult(_name_of(self._file, whole), self._subfolder, io.FolderType.output)
        shown = ui.PreviewVideo([saved]).as_dict()
        if self.format.extension == ".gif":
            # Front ends take what is animated, but WebP and PNG, for a video, and no video player plays it.
            shown["animated"] = (False,)
        lost = self._spare is not None and self._spare.error is not None
        if self._proxy is not None and not lost and not self.format.in_browsers:
            # A text, because ComfyUI counts every object here as a file that a prompt has made.
            shown[STAND_IN_KEY] = [_name_of(self._proxy, whole)]
        return shown


def _name_of(sink: VideoSink, whole: bool) -> str:
    path = sink.path if whole else sink.reserved
    assert path is not None, "it has a name from the first frame on"
    return path.name


def check(format: str | None, quality: int | None, fps: float | None) -> None:
    """Refuse what the format does not take, by the widgets' names.

    Args:
        format: one of ``formats()``; ``None``, as of the others: it is connected, and nobody knows it yet.
        quality: on the format's scale.
        fps: frames a second.

    Raises:
        SinkError: the message names the value and what the format takes.
    """
    if fps is not None and not LEAST_FPS <= fps <= MOST_FPS:
        raise SinkError(f"fps: expected {LEAST_FPS:g} to {MOST_FPS:g} frames a second, got {fps:g}")
    if format is None:
        return
    video = formats()[format]
    if video.crf_range is not None and quality is not None:
        best, worst = video.crf_range
        if not best <= quality <= worst:
            raise SinkError(f"quality: {format} takes {best:g} (best) to {worst:g} (smallest), got {quality}")
    if video.max_rate is not None and fps is not None and fps > video.max_rate:
        raise SinkError(f"fps: {format} knows at most {video.max_rate} frames a second, got {fps:g}; choose fewer")


def check_trim(format: str | None, trim_to_audio: bool | None, audio: Any) -> None:
    """Refuse to end a video with a sound that nobody has connected.

    Args:
        format: as of ``check``; one without sound does not look at ``trim_to_audio``.
        trim_to_audio: end where the sound ends; ``None``: it is connected, and nobody knows it yet.
        audio: ``NOT_CONNECTED``, or anything else.

    Raises:
        SinkError: the message names the value and the remedy.
    """
    video = formats()[format] if format is not None else None
    if trim_to_audio and audio is NOT_CONNECTED and (video is None or video.sound is not None):
        raise SinkError("trim_to_audio: True, but nothing is connected to audio; connect a sound, or switch it off")


def _missing(video: VideoFormat) -> str:
    """What there is not, where the stand-in for a file has failed."""
    if _is_readable(video):
        return "the file is saved, but the node has no small video to play in its place"
    return f"the file is saved, but there is no VIDEO for other nodes, which cannot read {video.muxer}"


def _stand_in_place(video: VideoFormat) -> str:
    """Where it is that something is different, where that is not the file but what stands in for it."""
    return "in the small video that the node plays" if _is_readable(video) else "in the VIDEO for other nodes"


def _is_readable(video: VideoFormat) -> bool:
    """Whether ComfyUI, that is its ffmpeg, decodes it: none does that for animated WebP."""
    return video.muxer != "webp"
