"""Taps: ways of getting pieces out of a VAE while its own decode runs, one small file for each."""

from .base import Decoding, Submit, Tap, VideoDecoder
from .choose import choose_tap
from .image_batches import ImageBatches
from .step_hook import StepHook
from .whole import Whole

__all__ = ["Decoding", "ImageBatches", "StepHook", "Submit", "Tap", "VideoDecoder", "Whole", "choose_tap"]
