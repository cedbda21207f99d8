"""Tap for image VAEs: a batch of images is decoded some at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..decoding import Decoding
from .base import Submit, Tap, VideoDecoder


class ImageBatches(Tap):
    """Decodes ``images_per_step`` images at a time.

    The frames are bit-equal to those of the model's own decode of the same batches. Decoding a batch of another size
    may round differently (the kernels sum in another order), which holds for stock's own batches as well: their size
    depends on the free memory.

    Args:
        decoder: the VAE.
        images_per_step: images that one call decodes, at least 1.
    """

    def __init__(self, decoder: VideoDecoder, *, images_per_step: int) -> None:
        super().__init__(decoder)
        if images_per_step < 1:
            raise ValueError(f"images_per_step must be at least 1, got {images_per_step}")
        self.images_per_step = images_per_step
        self.decoding = Decoding("batches", exact=True, bounded=True, detail=f"{images_per_step} images a step")

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for batch in latent.split(self.images_per_step):
                submit(self.decoder.decode(batch.to(device=self.decoder.device, dtype=self.decoder.dtype)))
