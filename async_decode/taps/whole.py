"""Tap for every model that offers nothing better: decode whole, then copy and save in chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..decoding import Decoding
from ..errors import DecodeError
from .base import Submit, Tap, VideoDecoder


class Whole(Tap):
    """Decodes a clip in one call; copying and saving still overlap with each other.

    The images of a latent without a time axis may belong together all the same (SVD decodes time as the batch axis), so
    they are decoded in the batches that ``decoder.images_of`` names.

    Args:
        decoder: the VAE.
        detail: one line for the report. Default: ``""``.
    """

    def __init__(self, decoder: VideoDecoder, *, detail: str = "") -> None:
        super().__init__(decoder)
        self.detail = detail
        self.decoding = Decoding("whole", exact=True, bounded=False, detail=detail)
        # Frames that a clip of so many latents has made: some models make other numbers than their VAE announces.
        self._frames_made: dict[int, int] = {}

    def frames(self, latent: Tensor) -> int | None:
        made = self._frames_made.get(latent.shape[2]) if self.decoder.is_video else None
        return super().frames(latent) if made is None else latent.shape[0] * made

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for batch in latent.split(self._together(latent)):
                frames = frames_of_pixels(self.decoder.decode(self.decoder.to_device(batch)))
                if self.decoder.is_video:
                    self._frames_made.setdefault(latent.shape[2], frames.shape[0])
                submit(frames)

    def _together(self, latent: Tensor) -> int:
        """How many entries of the batch axis one call decodes."""
        if self.decoder.is_video:
            return 1
        if self.decoder.images_of is None:
            return latent.shape[0]
        count = min(latent.shape[0], self.decoder.images_of(latent.shape))
        if count < latent.shape[0]:
            self.decoding = Decoding(
                "whole", True, False, f"{self.detail}; {count} at a time, as many as the free memory holds"
            )
        return count


def frames_of_pixels(pixels: Tensor) -> Tensor:
    """``(T, C, H, W)`` of what a model's decode returned."""
    if pixels.ndim == 5:
        return pixels.movedim(1, 2).flatten(0, 1)
    if pixels.ndim == 4:
        return pixels
    raise DecodeError(
        f"expected (N, C, T, H, W) or (N, C, H, W) from the decoder, got {tuple(pixels.shape)}: this VAE does not "
        "decode to pictures"
    )
