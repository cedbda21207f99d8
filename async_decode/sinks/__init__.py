"""Sinks: who takes finished frames. One file for each kind, and the formats that they write."""

from .base import Sink
from .image.avif import Avif10Encoder, AvifEncoder
from .image.deep import Png16Encoder, TiffEncoder
from .image.exr import ExrEncoder
from .image.files import ImageFilesSink
from .image.formats import ImageEncoder, JpegEncoder, PngEncoder, WebpEncoder
from .null import NullSink
from .optional import OptionalSink
from .patience import Patience
from .preview import PreviewSink
from .tensor import TensorSink
from .video.catalogue import H264_MP4, VIDEO_FORMATS
from .video.format import VideoFormat, exact_rate
from .video.sink import StandIn, VideoSink
from .video.sound import Sound
from .video.working import WorkingFormats

__all__ = [
    "H264_MP4",
    "VIDEO_FORMATS",
    "Avif10Encoder",
    "AvifEncoder",
    "ExrEncoder",
    "ImageEncoder",
    "ImageFilesSink",
    "JpegEncoder",
    "NullSink",
    "OptionalSink",
    "Patience",
    "Png16Encoder",
    "PngEncoder",
    "PreviewSink",
    "Sink",
    "Sound",
    "StandIn",
    "TensorSink",
    "TiffEncoder",
    "VideoFormat",
    "VideoSink",
    "WebpEncoder",
    "WorkingFormats",
    "exact_rate",
]
