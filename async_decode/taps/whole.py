"""Tap for every model that offers nothing better: decode whole, then copy and save in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import DecodeError
from .base import Decoding, Submit, Tap, VideoDecoder


class Whole(Tap):
    """Decodes a clip in one call; copying and saving still overlap with each other.

    Args:
        decoder: the VAE.
        detail: one line for the report.
    """

    def __init__(self, decoder: VideoDecoder, *, detail: str = "") -> None:
        super().__init__(decoder)
        self.decoding = Decoding("whole", exact=True, bounded=False, detail=detail)

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            # The images of one batch may belong together (SVD decodes time as the batch axis): only clips are cut.
            for batch in latent.split(1) if self.decoder.is_video else [latent]:
                pixels = self.decoder.decode(batch.to(device=self.decoder.device, dtype=self.decoder.dtype))
                if pixels.ndim == 5:
                    submit(pixels.movedim(1, 2).flatten(0, 1))
                elif pixels.ndim == 4:
                    submit(pixels)
                else:
                    raise DecodeError(
                        "expected (N, C, T, H, W) or (N, C, H, W) from the decoder, got "
                        f"{tuple(pixels.shape)}: this VAE does not decode to pictures"
                    )
