"""Tap for decoders that are called once per step of time, each call making a piece.

A forward hook on the submodule that makes pieces ships each piece and returns a stand-in of four pixels, so that the
model's own loop, caches and concatenation run as always while the clip never piles up on the device.

The stand-ins are numbered, and what the model returns in the end must be these numbers: had it dropped, moved or worked
on the pieces after the hook, it would have done so to the stand-ins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..decoding import Decoding
from ..errors import DecodeError
from .base import Submit, Tap, VideoDecoder
from .compiled import output_hook

#: Numbers that a stand-in can show in one channel: n / 128 is exact in every floating type that models use.
_DIGITS = 127


class StepHook(Tap):
    """Takes pieces where a submodule returns them.

    Args:
        decoder: the VAE.
        module: the submodule whose every call returns a piece: a tensor ``(1, C, T, H, W)``, or ``(1, C, H, W)`` for a
            single frame, a list of such tensors, or a tuple that starts with one.
        finish_piece: what the model's own decode does to the concatenated pieces afterwards, where that can be done to
            each piece alone (Wan 2.2 un-patchifies, which is spatial only); gives ``(1, C, T, H, W)``. Default:
            ``None``, nothing.
        keep: whether the model's decode keeps the piece of this number, counted from 0 in a clip of that many latent
            frames. Default: ``None``, it keeps all.
        blank: how many frames of zeros the model's decode puts behind a clip of that many latent frames. Default:
            ``None``, none.
        at_latent_size: ``module`` is called with frames of the latent's size. Default: ``False``.
        live_latents: as in ``Tap``. Default: ``None``.
        bounded: nothing else in the model grows with the clip; ``detail`` tells what does. Default: ``True``.
        detail: one line for the report. Default: ``""``.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        *,
        module: torch.nn.Module,
        finish_piece: Callable[[Tensor], Tensor] | None = None,
        keep: Callable[[int, int], bool] | None = None,
        blank: Callable[[int], int] | None = None,
        at_latent_size: bool = False,
        live_latents: int | None = None,
        bounded: bool = True,
        detail: str = "",
    ) -> None:
        super().__init__(decoder)
        self.module = module
        self.finish_piece = finish_piece if finish_piece is not None else _as_it_is
        self.keep = keep if keep is not None else _always
        self.blank = blank if blank is not None else _none
        self.at_latent_size = at_latent_size
        self.live_latents = live_latents
        self.decoding = Decoding("tapped", exact=True, bounded=bounded, detail=detail)

    def frames_of_piece(self, piece: Tensor) -> Tensor:
        """The frames ``(1, C, T, H, W)`` that a piece stands for, as the model's decode would return them."""
        return self.finish_piece(piece)

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for clip in latent.split(1):
                self._run_clip(clip, submit)

    def _run_clip(self, clip: Tensor, submit: Submit) -> None:
        latents, made = clip.shape[2], 0
        kept: list[int] = []
        form = blank_frame = torch.empty(0)

        def ship(piece: Tensor) -> Tensor:
            nonlocal made, form, blank_frame
            if piece.ndim == 5 and piece.shape[2] == 0:
                return piece
            stand_in = stand_in_for(piece, made)
            if self.keep(made, latents):
                frames = self.frames_of_piece(piece)
                submit(frames[0].movedim(0, 1))
                form = torch.empty(stand_in.shape, dtype=stand_in.dtype)
                # One number, whatever the size of a frame.
                blank_frame = frames.new_zeros(()).expand(1, frames.shape[1], *frames.shape[3:])
                kept.append(made)
            made += 1
            return stand_in

        whole_frames: bool | None = None

        def hook(_module: torch.nn.Module, arguments: Any, output: Any) -> Any:
            nonlocal whole_frames
            if whole_frames is None:
                # Nothing of a model that cuts its frames into tiles may leave: it is for the model to blend them.
                whole_frames = self._makes_whole_frames(clip, arguments, output)
            if not whole_frames:
                return output
            if isinstance(output, list):
                return [ship(piece) for piece in output]
            if isinstance(output, tuple):
                return (ship(output[0]), *output[1:])
            return ship(output)

        try:
            with output_hook(self.module, hook):
                rest = self.decoder.decode(self.decoder.to_device(clip))
        except BaseException:
            # Decoders that keep their cache on the module would hold a failed clip's memory until the next decode.
            clear_cache = getattr(self.decoder.model, "clear_cache", None)
            if callable(clear_cache):
                clear_cache()
            raise
        blanks = self.blank(latents)
        if made == 0:
            # Its frames are all in ``rest``. Where there was no call, somebody replaced the model's decode by one that
            # goes round the submodule.
            why = "this VAE's decode was replaced" if whole_frames is None else "this VAE decodes in tiles of its own"
            self.decoding = Decoding("whole", True, False, f"{why}: it ran whole")
            submit(rest[0].movedim(0, 1))
        elif not self._is_concatenation(rest, form, kept, blanks):
            raise DecodeError(
                f"expected {type(self.decoder.model).__name__}.decode to do no more than concatenate its {len(kept)} "
                f"pieces, but of their stand-ins it made {tuple(rest.shape)}: tapping it cannot be exact"
            )
        elif blanks > 0:
            submit(blank_frame.expand(blanks, -1, -1, -1).contiguous())

    def _makes_whole_frames(self, clip: Tensor, arguments: Any, output: Any) -> bool:
        """Whether a call of the submodule, the first one for ``clip``, was for whole frames and not for a tile."""
        model: Any = self.decoder.model
        latent = tuple(clip.shape[-2:])
        if self.at_latent_size and arguments and isinstance(arguments[0], Tensor):
            return tuple(arguments[0].shape[-2:]) == latent
        piece = output[0] if isinstance(output, list | tuple) else output
        scale = self.decoder.scale or getattr(model, "spatial_compression_ratio", None)
        if isinstance(scale, int):
            return tuple(self.finish_piece(piece).shape[-2:]) == tuple(scale * size for size in latent)
        # Diffusers' VAEs tell, if not how large their tiles are in every version.
        return not getattr(model, "use_tiling", False)

    def _is_concatenation(self, rest: Tensor, form: Tensor, kept: list[int], blanks: int) -> bool:
        """Whether ``rest`` is the stand-ins of these numbers, and ``blanks`` frames of zeros behind them."""
        if not kept:
            return False
        at, rest = 0, rest.to(form.device)
        for number in kept:
            expected = self.finish_piece(stand_in_for(form, number))
            shown = rest[:, :, at : at + expected.shape[2]]
            if not torch.equal(shown.to(expected.dtype), expected):
                return False
            at += expected.shape[2]
        return rest.shape[2] == at + blanks and not bool(rest[:, :, at:].any())


def stand_in_for(piece: Tensor, number: int) -> Tensor:
    """A stand-in for ``piece``: one frame of 2x2 pixels, above its number, below the channel's, each with both signs.

    The values are within -1 and 1, so that a model may end with the clamp to this range that the scaling of the frames
    repeats anyway.
    """
    size = (*piece.shape[:2], 2, 2) if piece.ndim == 4 else (*piece.shape[:2], 1, 2, 2)
    stand_in = piece.new_empty(size)
    stand_in[:, 0::2] = (number % _DIGITS + 1) / 128
    stand_in[:, 1::2] = (number // _DIGITS % _DIGITS + 1) / 128
    for channel in range(piece.shape[1]):
        stand_in[:, channel, ..., 1, :] = (channel % _DIGITS + 1) / 128
    stand_in[..., 1].neg_()
    return stand_in


def _as_it_is(piece: Tensor) -> Tensor:
    return piece


def _always(_number: int, _latents: int) -> bool:
    return True


def _none(_latents: int) -> int:
    return 0
