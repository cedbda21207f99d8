"""Taps: ways of getting pieces out of a VAE while its own decode runs, one small file for each."""

from .base import Decoding, Submit, Tap, VideoDecoder
from .choose import choose_tap
from .chunked_output import ChunkedOutput, OutputBuffer
from .image_batches import ImageBatches
from .step_hook import StepHook
from .whole import Whole

__all__ = [
    "ChunkedOutput",
    "Decoding",
    "ImageBatches",
    "OutputBuffer",
    "StepHook",
    "Submit",
    "Tap",
    "VideoDecoder",
    "Whole",
    "choose_tap",
]
