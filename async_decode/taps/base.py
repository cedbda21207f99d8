"""What a tap is: one way of getting pieces out of a VAE while its own decode runs.

A tap never re-implements a decode loop: it runs the VAE's own and takes the pieces as they are made, in the thread
that called it. Which tap fits is decided from what the model has, never from a version number.
"""

from __future__ import annotations

import abc
import dataclasses
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from ..decoding import Decoding
from ..errors import DecodeError

#: Takes a piece ``(T, C, H, W)`` of raw decoder output on the compute device.
Submit = Callable[[Tensor], None]
#: Models that decode right now.
_decoding: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
_lock = threading.Lock()


@dataclass(frozen=True)
class VideoDecoder:
    """What a tap needs to know of a VAE, and no more.

    Attributes:
        model: the module whose submodules can be tapped (ComfyUI: ``vae.first_stage_model``; Diffusers: the VAE).
        decode: the model's own decode: a latent batch on ``device`` in ``dtype`` to ``(N, C, T, H, W)`` or
            ``(N, C, H, W)``.
        device: where decoding happens.
        dtype: what the latent is converted to first.
        frames_of: latent frames to pixel frames, where the VAE tells. Default: ``None``.
        is_video: the latent has a time axis: ``(N, C, T, H, W)``, else ``(N, C, H, W)``. Default: ``True``.
        images_of: how many images of a latent of this shape are decoded together where the number changes the frames
            (ComfyUI: as many as fit into the free memory), asked right before decoding; of a video, how many clips.
            Default: ``None``, all of them.
        scale: pixels along a side of a frame for one latent, where that is known. Default: ``None``.
        poll: called between the parts of a long decode that hands on nothing meanwhile; raises what shall end it.
            Default: ``None``, nothing.
    """

    model: torch.nn.Module
    decode: Callable[[Tensor], Tensor]
    device: torch.device
    dtype: torch.dtype
    frames_of: Callable[[int], int] | None = None
    is_video: bool = True
    images_of: Callable[[torch.Size], int] | None = None
    scale: int | None = None
    poll: Callable[[], None] | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the model for oneself: most keep what belongs to a clip in themselves while they decode it.

        Raises:
            DecodeError: another run decodes with it.
        """
        with _lock:
            if self.model in _decoding:
                raise DecodeError(
                    "vae: it decodes another clip right now, in another thread or in a stream that is held half-way; "
                    "wait for the end of that, close() the stream, or load a second VAE"
                )
            _decoding.add(self.model)
        try:
            yield
        finally:
            with _lock:
                _decoding.discard(self.model)

    def to_device(self, latent: Tensor) -> Tensor:
        """``latent`` where and as the model decodes it."""
        return latent.to(device=self.device, dtype=self.dtype)


class Tap(abc.ABC):
    """One way of getting pieces out of one VAE."""

    #: How it will decode; filled in by the constructor.
    decoding: Decoding
    #: The clips of a batch are decoded one after the other, not in one call.
    one_by_one = True
    #: Latent frames whose whole decode takes as much memory as this tap needs for a clip of any length, where it is so.
    live_latents: int | None = None

    def __init__(self, decoder: VideoDecoder) -> None:
        self.decoder = decoder

    def frames(self, latent: Tensor) -> int | None:
        """How many pixel frames ``latent`` gives over all its clips, or ``None`` where nobody can tell.

        A tap may know better once it hands on its first piece.
        """
        if not self.decoder.is_video:
            return latent.shape[0]
        if self.decoder.frames_of is None:
            return None
        return latent.shape[0] * self.decoder.frames_of(latent.shape[2])

    def live_shape(self, latent: Tensor) -> torch.Size:
        """The shape of a latent whose whole decode takes about as much device memory as this tap's decode.

        Whoever makes room for a decode asks for this much, so that a long clip does not drive out other models.
        """
        if not self.decoder.is_video:
            return latent.shape
        _, channels, frames, *size = latent.shape
        return torch.Size((1, channels, min(frames, self.live_latents or frames), *size))

    def decoding_of(self, latent: Tensor) -> Decoding:
        """How ``latent`` was decoded, for the report; asked after ``run``.

        The clips of a batch are decoded one by one. Where the VAE's own decode would take several at once, its kernels
        may sum in another order, so that the frames need not be its to the bit.
        """
        decoding = self.decoding
        if not self.decoder.is_video or not self.one_by_one or latent.shape[0] == 1 or not decoding.exact:
            return decoding
        images_of = self.decoder.images_of
        together = latent.shape[0] if images_of is None else min(latent.shape[0], images_of(latent.shape))
        # Diffusers' word for it.
        if together == 1 or getattr(self.decoder.model, "use_slicing", False):
            return decoding
        detail = f"{latent.shape[0]} clips one by one, of which the VAE's own decode takes {together} at once"
        return dataclasses.replace(
            decoding, exact=False, detail=f"{decoding.detail}; {detail}" if decoding.detail else detail
        )

    @abc.abstractmethod
    def run(self, latent: Tensor, submit: Submit) -> None:
        """Decode ``latent`` and hand on its pieces, in order, in this thread.

        Args:
            latent: ``(N, C, T, H, W)`` or ``(N, C, H, W)``, on any device, in any floating type. Several clips are
                decoded one after the other, as one long row of frames.
            submit: takes each piece; what it raises ends the decode and is passed on.

        Raises:
            DecodeError: the model made something else than was expected of it.
        """
