"""Sinks: who takes finished frames. One file for each kind, and the formats that they write."""

from .base import Sink
from .image_files import ImageFilesSink
from .image_formats import ImageEncoder, JpegEncoder, PngEncoder, WebpEncoder
from .null import NullSink
from .preview import PreviewSink
from .tensor import TensorSink
from .video import VideoSink
from .video_formats import H264_MP4, VideoFormat, exact_rate

__all__ = [
    "H264_MP4",
    "ImageEncoder",
    "ImageFilesSink",
    "JpegEncoder",
    "NullSink",
    "PngEncoder",
    "PreviewSink",
    "Sink",
    "TensorSink",
    "VideoFormat",
    "VideoSink",
    "WebpEncoder",
    "exact_rate",
]
