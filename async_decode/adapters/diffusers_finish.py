"""Frames as Diffusers' own ``VideoProcessor`` and ``VaeImageProcessor`` make them, for those who need their bytes.

They scale in the type that the VAE computes in, where this package scales in float32, and round to 8 bits, where
ComfyUI, and so this package, cuts off.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..device.conversion import DecoderOutput, FinishedFrames
from ..frames import PixelFormat


class ProcessorOutput(DecoderOutput):
    """Finishes raw decoder output as ``VideoProcessor.postprocess_video`` does with ``np``, and with ``pil`` for bytes.

    Args:
        dtype: the type in which the VAE computes.
    """

    def __init__(self, *, dtype: torch.dtype) -> None:
        super().__init__(lambda pixels: (pixels * 0.5 + 0.5).clamp(0, 1), dtype=dtype)

    def write(self, piece: Tensor, out: Mapping[PixelFormat, Tensor], has_nan: Tensor) -> None:
        for index in range(piece.shape[0]):
            frame = self.process_output(piece[index : index + 1].to(self.dtype)).movedim(1, -1).float()
            places = {name: place[index : index + 1] for name, place in out.items()}
            rounded = places.pop(PixelFormat.UINT8, None)
            has_nan[index].copy_(frame.isnan().any())
            if rounded is not None:
                rounded.copy_((frame * 255).round_())
            if places:
                FinishedFrames().write(frame, places, has_nan[index : index + 1])
