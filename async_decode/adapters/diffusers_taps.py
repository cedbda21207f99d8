"""Taps for VAEs of Diffusers, whose ``decode`` makes pieces and then works on them: cuts, blends, joins.

The pieces are taken where the decoder returns them, and what ``decode`` would do to them afterwards is done to each as
it comes, by the VAE's own functions (a *recipe*). ``decode`` itself goes on with stand-ins: as long as the pieces, but
of four pixels of noise. The same recipe makes of the stand-ins what ``decode`` must return in the end. Where it
returns anything else, the recipe is not that of this version of Diffusers, and the run ends with an error.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..decoding import Decoding
from ..errors import DecodeError
from ..taps import Submit, Tap, VideoDecoder
from ..taps.whole import frames_of_pixels


class Together(Tap):
    """Decodes a whole batch in one call, as ``vae.decode`` does.

    Args:
        decoder: the VAE.
        detail: one line for the report.
    """

    one_by_one = False

    def __init__(self, decoder: VideoDecoder, *, detail: str = "") -> None:
        super().__init__(decoder)
        self.decoding = Decoding("whole", exact=True, bounded=False, detail=detail)
        # What there is counts for more than what the VAE announces.
        self._frames_made: dict[torch.Size, int] = {}

    def frames(self, latent: Tensor) -> int | None:
        made = self._frames_made.get(latent.shape)
        return super().frames(latent) if made is None else made

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            frames = frames_of_pixels(self.decoder.decode(self.decoder.to_device(latent)))
            self._frames_made[latent.shape] = frames.shape[0]
            submit(frames)


class Recipe(abc.ABC):
    """What ``decode`` does to the pieces of one clip, as they come; they are ``(1, C, T, H, W)``.

    Args:
        submit: takes what is finished, ``(1, C, T, H, W)``.
    """

    def __init__(self, submit: Submit) -> None:
        self.submit = submit

    @abc.abstractmethod
    def add(self, piece: Tensor) -> None:
        """Take the next piece."""


class Joined(Recipe):
    """One piece behind the other, without the first ``skip`` frames of all."""

    def __init__(self, submit: Submit, *, skip: int = 0) -> None:
        super().__init__(submit)
        self._skip = skip

    def add(self, piece: Tensor) -> None:
        skipped = min(self._skip, piece.shape[2])
        self._skip -= skipped
        self.submit(piece[:, :, skipped:])


class WindowsInTime(Recipe):
    """Windows of time, each without its ``drops`` frame (but the clip's first window), blended with the one before.

    Args:
        vae: gives the sizes of windows and ``blend_t``.
        clip: the latent, ``(1, C, T, H, W)``.
        submit: as in ``Recipe``.
        drops: ``first`` or ``last``.
    """

    def __init__(self, vae: Any, clip: Tensor, submit: Submit, *, drops: str) -> None:
        super().__init__(submit)
        self._blend_t = vae.blend_t
        self._stride = int(vae.tile_sample_stride_num_frames)
        self._overlap = int(vae.tile_sample_min_num_frames) - self._stride
        self._frames_left = (clip.shape[2] - 1) * int(vae.temporal_compression_ratio) + 1
        self._kept_frames = slice(1, None) if drops == "first" else slice(None, -1)
        self._before: Tensor | None = None

    def add(self, piece: Tensor) -> None:
        length = self._stride + 1
        if self._before is not None:
            piece, length = self._blend_t(self._before, piece[:, :, self._kept_frames], self._overlap), self._stride
        done = piece[:, :, : min(length, self._frames_left)]
        self._frames_left -= done.shape[2]
        # A copy: a view would keep the window alive.
        self._before = piece[:, :, max(0, piece.shape[2] - self._overlap) :].clone()
        self.submit(done)


class HookedPieces(Tap):
    """Takes the pieces where a submodule, or a method of the model, returns them, one clip at a time.

    Args:
        decoder: the VAE.
        module: the submodule whose every call returns a piece, or a tuple that starts with one.
        recipe: makes the recipe of a clip, of its latent and of who takes what is finished.
        method: a method of the model that makes a piece by calling ``module`` several times, where it is used.
        detail: one line for the report.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        *,
        module: torch.nn.Module,
        recipe: Callable[[Tensor, Submit], Recipe],
        method: str | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(decoder)
        self.module = module
        self.method = method
        self.recipe = recipe
        self.decoding = Decoding("tapped", exact=True, bounded=True, detail=detail)

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for clip in latent.split(1):
                self._run_clip(clip, submit)

    def _run_clip(self, clip: Tensor, submit: Submit) -> None:
        expected: list[Tensor] = []

        def submit_frames(piece: Tensor) -> None:
            if piece.shape[2]:
                submit(frames_of_pixels(piece))

        pieces = self.recipe(clip, submit_frames)
        stand_ins = self.recipe(clip, lambda piece: expected.append(piece.clone()))
        noise = torch.Generator().manual_seed(0)

        def ship(piece: Tensor) -> Tensor:
            stand_in = torch.rand((*piece.shape[:3], 2, 2), generator=noise).to(piece)
            pieces.add(piece)
            stand_ins.add(stand_in.clone())
            return stand_in

        with self._hooked(ship):
            rest = self.decoder.decode(self.decoder.to_device(clip))
        if not expected:
            # Somebody replaced the VAE's decode by one that goes round the submodule.
            self.decoding = Decoding("whole", True, False, "this VAE's decode was replaced: it ran whole")
            submit(frames_of_pixels(rest))
        elif not torch.equal(rest, torch.cat(expected, 2)):
            raise DecodeError(
                f"expected {type(self.decoder.model).__name__}.decode to treat its pieces as the versions of Diffusers "
                "that are known, but it did something else: tapping it cannot be exact"
            )

    @contextmanager
    def _hooked(self, ship: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """While it lasts, every piece goes to ``ship``, and what that returns takes its place."""
        model: Any = self.decoder.model
        inside = False

        def hook(_module: torch.nn.Module, _arguments: Any, output: Any) -> Any:
            if inside:
                return output
            return (ship(output[0]), *output[1:]) if isinstance(output, tuple) else ship(output)

        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal inside
            inside = True
            try:
                output = own(*arguments, **options)
            finally:
                inside = False
            return type(output)(sample=ship(output.sample))

        own: Any = None if self.method is None else getattr(model, self.method)
        handle = self.module.register_forward_hook(hook)
        if self.method is not None:
            setattr(model, self.method, instead)
        try:
            yield
        finally:
            handle.remove()
            if self.method is not None:
                delattr(model, self.method)
