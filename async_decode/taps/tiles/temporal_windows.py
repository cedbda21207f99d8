"""Windows of time, each of them cut into tiles where that is asked for: for clips that do not fit otherwise.

Not exact: a decoder that looks beyond a window sees its edge instead. The frames are those of ComfyUI's tiled decode
with the same numbers, but they leave as soon as the next window has been blended with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...decoding import Decoding
from ...errors import DecodeError
from ..base import Submit, Tap, VideoDecoder
from .tiling import Scale, Tiling, blend_tiles, leaves_holes

#: Frames that travel back to the device at a time where they had to be blended on the host.
_FRAMES_BACK = 8


class TemporalWindows(Tap):
    """Decodes a video in overlapping windows of time, tiles, or both.

    Without windows the tiles span the whole clip, so that nothing is final before the last tile; the clip is then
    blended in host memory, as ComfyUI does it.

    Args:
        decoder: the VAE, whose latents have a time axis.
        scale: from latents to pixels, for time, height and width.
        tiling: which windows and tiles.
    """

    def __init__(self, decoder: VideoDecoder, *, scale: Scale, tiling: Tiling) -> None:
        super().__init__(decoder)
        self.scale = scale
        self.tiling = tiling
        self.live_latents = tiling.window
        windows = tiling.window is not None
        self.decoding = Decoding("windows" if windows else "tiles", exact=False, bounded=windows, detail=str(tiling))

    def frames(self, latent: Tensor) -> int | None:
        if self.tiling.covers(latent):
            return super().frames(latent)
        return latent.shape[0] * self.scale.size_of(0, latent.shape[2])

    def live_shape(self, latent: Tensor) -> torch.Size:
        *before, height, width = super().live_shape(latent)
        most = self.tiling.tile or max(height, width)
        return torch.Size((*before, min(height, most), min(width, most)))

    def leaves_holes(self, latent: Tensor) -> bool:
        """Whether these windows would miss frames of ``latent``: they do not suit every VAE."""
        window = self.tiling.window
        return window is not None and leaves_holes(latent.shape[2], window, self.tiling.window_overlap, self.scale)

    def run(self, latent: Tensor, submit: Submit) -> None:
        self.run_from(latent, submit, 0)

    def run_from(self, latent: Tensor, submit: Submit, skip: int) -> None:
        """As ``run``, without the first ``skip`` frames of the first clip: windows before them are not decoded.

        Raises:
            DecodeError: the windows would leave holes.
        """
        if self.leaves_holes(latent):
            raise DecodeError(
                f"{self.tiling}: with {type(self.decoder.model).__name__}, windows of this length would leave holes in "
                f"{latent.shape[2]} latent frames; use another length, or none"
            )
        with torch.inference_mode():
            for clip in latent.split(1):
                self._run_clip(clip, submit, skip)
                skip = 0

    def _run_clip(self, clip: Tensor, submit: Submit, skip: int) -> None:
        frames, height, width = clip.shape[2:]
        tiling, device = self.tiling, self.decoder.device
        for stretch in blend_tiles(
            clip,
            lambda tile: self.decoder.decode(self.decoder.to_device(tile)),
            tile=(tiling.window or frames, tiling.tile or height, tiling.tile or width),
            overlap=(tiling.window_overlap, tiling.overlap, tiling.overlap),
            scale=self.scale,
            device=device if tiling.window is not None or tiling.covers(clip) else torch.device("cpu"),
            skip=skip,
        ):
            parts = [stretch] if stretch.device == device else stretch.split(_FRAMES_BACK, 2)
            for part in parts:
                submit(part.to(device)[0].movedim(0, 1))
