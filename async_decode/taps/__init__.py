"""Taps: ways of getting pieces out of a VAE while its own decode runs, one small file for each."""

from ..decoding import Decoding
from .base import Submit, Tap, VideoDecoder
from .choose import choose_tap, streamed_tiles
from .chunked_output import ChunkedOutput, OutputBuffer
from .image_batches import ImageBatches
from .ladder import Ladder, is_out_of_memory
from .step_hook import StepHook
from .tiles.spatial_tiles import ImageTiles, OwnTiles
from .tiles.streamed_tiles import StreamedTiles
from .tiles.temporal_windows import TemporalWindows
from .tiles.tiling import Scale, Tiling
from .whole import Whole

__all__ = [
    "ChunkedOutput",
    "Decoding",
    "ImageBatches",
    "ImageTiles",
    "Ladder",
    "OutputBuffer",
    "OwnTiles",
    "Scale",
    "StepHook",
    "StreamedTiles",
    "Submit",
    "Tap",
    "TemporalWindows",
    "Tiling",
    "VideoDecoder",
    "Whole",
    "choose_tap",
    "is_out_of_memory",
    "streamed_tiles",
]
