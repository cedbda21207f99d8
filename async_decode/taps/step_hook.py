"""Tap for decoders that are called once per step of time, each call making a piece.

A forward hook on the submodule that makes pieces ships each piece and returns a stand-in with (almost) no frames, so
that the model's own loop, caches and concatenation run as always while the clip never piles up on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import DecodeError
from .base import Decoding, Submit, Tap, VideoDecoder


class StepHook(Tap):
    """Takes pieces where a submodule returns them.

    Args:
        decoder: the VAE.
        module: the submodule whose every call returns a piece: a tensor ``(1, C, T, H, W)``, a list of such tensors,
            or a tuple that starts with one.
        finish_piece: what the model's own decode does to the concatenated pieces afterwards, where that can be done
            to each piece alone (Wan 2.2 un-patchifies, which is spatial only).
        detail: one line for the report.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        *,
        module: torch.nn.Module,
        finish_piece: Callable[[Tensor], Tensor] | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(decoder)
        self.module = module
        self.finish_piece = finish_piece
        self.decoding = Decoding("tapped", exact=True, bounded=True, detail=detail)

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for clip in latent.split(1):
                self._run_clip(clip, submit)

    def _run_clip(self, clip: Tensor, submit: Submit) -> None:
        shape: torch.Size | None = None

        def ship(piece: Tensor) -> Tensor:
            nonlocal shape
            pixels = piece if self.finish_piece is None else self.finish_piece(piece)
            shape = pixels.shape
            submit(pixels[0].movedim(0, 1))
            # A new tensor, not a slice: an empty slice would keep the whole piece alive.
            return piece.new_empty((*piece.shape[:2], 0, *piece.shape[3:]))

        def hook(_module: torch.nn.Module, _arguments: Any, output: Any) -> Any:
            if isinstance(output, list):
                return [ship(piece) for piece in output]
            if isinstance(output, tuple):
                return (ship(output[0]), *output[1:])
            return ship(output)

        handle = self.module.register_forward_hook(hook)
        try:
            rest = self.decoder.decode(clip.to(device=self.decoder.device, dtype=self.decoder.dtype))
        except BaseException:
            # Decoders that keep their cache on the module would hold a failed clip's memory until the next decode.
            clear_cache = getattr(self.decoder.model, "clear_cache", None)
            if callable(clear_cache):
                clear_cache()
            raise
        finally:
            handle.remove()
        if shape is None:
            # Somebody replaced the model's decode by one that goes round the submodule: its frames are all in ``rest``.
            self.decoding = Decoding("whole", True, False, "this VAE's decode was replaced: it ran whole")
            submit(rest[0].movedim(0, 1))
        elif rest.shape[2] != 0 or rest.shape[:2] != shape[:2] or rest.shape[3:] != shape[3:]:
            raise DecodeError(
                f"expected {type(self.decoder.model).__name__}.decode to concatenate its pieces {tuple(shape)}, but it "
                f"returned {tuple(rest.shape)}: it works on them afterwards, so that tapping it cannot be exact"
            )
