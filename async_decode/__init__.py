"""Decode, copy and save video at once.

While a VAE decodes chunk N+1, chunk N crosses to the host on a copy stream and chunk N-1 is written by background
writers: the same frames, in memory that does not grow with the clip. This package imports nothing of ComfyUI
(``cluster/comfyui.py`` is where ``decode --comfyui`` plugs in); the nodes are built on it, and so are the command line
(``python -m async_decode``) and programs with a Diffusers VAE::

    import async_decode

    async_decode.decode(pipe.vae, latents, "clip.mp4", fps=16)

The way of a frame, from a node to a video file; none of these files imports one that stands before it:

1. ``nodes/save_video.py``: the node; makes the video's sinks (``VideoSink`` and what else shows it).
2. ``nodes/execute.py``: chooses the tap, loads the VAE, and lets a ``FramePipeline`` decode.
3. ``async_decode/pipeline/frame_pipeline.py``: the tap hands each piece that the VAE makes to ``submit``.
4. ``async_decode/pipeline/chunks.py``: pieces are finished on the device, into the staging memory of a free slot.
5. ``async_decode/pipeline/copy_thread.py``: full chunks cross to the host and go to every sink.
6. ``async_decode/sinks/video/sink.py``: a thread of the sink takes their frames one by one.
7. ``async_decode/sinks/video/encoding.py``: one file while it is made: the encoder, its second pass, its names.
8. ``async_decode/sinks/ffmpeg.py``: the process, and the pipe into it.
"""

from .api import Result, decode, stream
from .decoding import Decoding
from .device.conversion import DecoderOutput, Finish, FinishedFrames
from .errors import AsyncDecodeError, Cancelled, DecodeError, FFmpegError, SinkError
from .frames import Clip, PixelFormat
from .pipeline.frame_pipeline import FramePipeline
from .pipeline.stream import Stream
from .report.report import Report
from .spans import Recorder, Span, Stage
from .taps import Tap, VideoDecoder, choose_tap

__version__ = "0.1.0"

__all__ = [
    "AsyncDecodeError",
    "Cancelled",
    "Clip",
    "DecodeError",
    "DecoderOutput",
    "Decoding",
    "FFmpegError",
    "Finish",
    "FinishedFrames",
    "FramePipeline",
    "PixelFormat",
    "Recorder",
    "Report",
    "Result",
    "SinkError",
    "Span",
    "Stage",
    "Stream",
    "Tap",
    "VideoDecoder",
    "choose_tap",
    "decode",
    "stream",
]
