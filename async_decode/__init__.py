"""Decode, copy and save video at once.

While a VAE decodes chunk N+1, chunk N crosses to the host on a copy stream and chunk N-1 is written by background
writers: the same frames, in memory that does not grow with the clip. This package imports nothing of ComfyUI
(``cluster/comfyui.py`` is where ``decode --comfyui`` plugs in); the nodes are built on it, and so are the command line
(``python -m async_decode``) and programs with a Diffusers VAE::

    import async_decode

    async_decode.decode(pipe.vae, latents, "clip.mp4", fps=16)
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
