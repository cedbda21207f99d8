"""Tiles of pictures: for images, and for models that cut their frames into tiles themselves.

Videos that are cut into tiles by us are in ``temporal_windows.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...decoding import Decoding
from ..base import Submit, Tap, VideoDecoder
from ..whole import frames_of_pixels
from .tiling import Scale, Tiling, blend_tiles


class ImageTiles(Tap):
    """Decodes each image in tiles three times, upright, lying and square, and takes the mean, as ComfyUI does.

    Args:
        decoder: the VAE, whose latents have no time axis.
        scale: from latents to pixels, for height and width.
        tiling: which tiles.
    """

    def __init__(self, decoder: VideoDecoder, *, scale: Scale, tiling: Tiling) -> None:
        super().__init__(decoder)
        if tiling.tile is None or tiling.tile < 2:
            raise ValueError(f"tiles of images need a size of at least 2 latents, got {tiling.tile = }")
        self.tile, self.overlap = tiling.tile, tiling.overlap
        self.scale = scale
        detail = f"tiles of {self.tile}x{self.tile} latents, {self.overlap} shared, in three shapes"
        self.decoding = Decoding("tiles", exact=False, bounded=True, detail=detail)

    def live_shape(self, latent: Tensor) -> torch.Size:
        # The three shapes have about the same area.
        height, width = latent.shape[-2:]
        return torch.Size((1, latent.shape[1], min(height, self.tile), min(width, self.tile)))

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for image in latent.split(1):
                submit(self._image(image))

    def _image(self, image: Tensor) -> Tensor:
        tile = self.tile
        upright = self._decode_tiles(image, 2 * tile, tile // 2)
        lying = self._decode_tiles(image, tile // 2, 2 * tile)
        return (upright + lying + self._decode_tiles(image, tile, tile)) / 3.0

    def _decode_tiles(self, image: Tensor, height: int, width: int) -> Tensor:
        stretches = blend_tiles(
            image,
            lambda tile: self.decoder.decode(self.decoder.to_device(tile)),
            tile=(height, width),
            overlap=(self.overlap, self.overlap),
            scale=self.scale,
            device=self.decoder.device,
        )
        return torch.cat([stretch.clone() for stretch in stretches], 2)


class OwnTiles(Tap):
    """Leaves the tiling to a model that does it itself; the clip comes out in one go.

    Args:
        decoder: the VAE.
        decode_tiled: decodes a latent batch on the device, in the type of ``decoder``, in tiles.
        tiling: which tiles, for ``live_shape`` and the report; windows are not for us to make.
    """

    def __init__(self, decoder: VideoDecoder, *, decode_tiled: Callable[[Tensor], Tensor], tiling: Tiling) -> None:
        super().__init__(decoder)
        self.decode_tiled = decode_tiled
        self.tile = tiling.tile
        self.decoding = Decoding("tiles", exact=False, bounded=False, detail=f"the model's own tiling; {tiling}")

    def live_shape(self, latent: Tensor) -> torch.Size:
        *before, height, width = latent.shape
        most = self.tile or max(height, width)
        return torch.Size((1, *before[1:], min(height, most), min(width, most)))

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for clip in latent.split(1):
                submit(frames_of_pixels(self.decode_tiled(self.decoder.to_device(clip))))
