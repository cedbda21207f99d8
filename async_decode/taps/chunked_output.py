"""Tap for decoders that write finished stretches of time into an output buffer which the caller hands in.

The buffer handed in here holds nothing: it looks like a tensor to the model, and every stretch that is written to it
goes on as a piece. Frames that have gone on cannot be taken back, so the buffer takes each of them once and in order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..decoding import Decoding
from ..errors import DecodeError
from .base import Submit, Tap, VideoDecoder


class OutputBuffer:
    """Looks like the tensor ``(1, C, T, H, W)`` into which a model writes its frames, and passes them on.

    It can be asked for its shape, type and device, sliced along any axis as long as the slice leaves all axes but time
    whole, and copied to.

    Args:
        shape: shape of the clip, ``(1, C, T, H, W)``.
        dtype: the type that it claims to have; what is written keeps its own.
        device: the device on which it claims to be.
        submit: takes what is written, as ``(T, C, H, W)``.
    """

    def __init__(self, shape: torch.Size, *, dtype: torch.dtype, device: torch.device, submit: Submit) -> None:
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.written = 0
        self._submit = submit

    @property
    def ndim(self) -> int:
        """Number of axes, as a tensor has it."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> torch.Size | int:
        """The shape, or its length along ``dim``, as a tensor has it."""
        return self.shape if dim is None else self.shape[dim]

    def __getitem__(self, index: Any) -> OutputBuffer | OutputSlice:
        start, stop = self._time_range(index)
        return self if (start, stop) == (0, self.shape[2]) else OutputSlice(self, start, stop)

    def __setitem__(self, index: Any, frames: Tensor) -> None:
        start, stop = self._time_range(index)
        self.write(start, stop, frames)

    def copy_(self, frames: Tensor, non_blocking: bool = False) -> OutputBuffer:
        """Take the whole clip at once."""
        self.write(0, self.shape[2], frames)
        return self

    def write(self, start: int, stop: int, frames: Tensor) -> None:
        """Pass on ``frames`` as those from ``start`` up to ``stop``.

        Raises:
            DecodeError: they do not follow the ones before, or have another shape than their place.
        """
        place = (*self.shape[:2], stop - start, *self.shape[3:])
        if tuple(frames.shape) != place:
            raise DecodeError(f"expected frames of shape {place} for {start} to {stop}, got {tuple(frames.shape)}")
        if start != self.written:
            raise DecodeError(
                f"expected the model to write its frames in order, each once: frame {self.written} is the next, but it "
                f"wrote {start} to {stop}"
            )
        self.written = stop
        if stop > start:
            self._submit(frames[0].movedim(0, 1))

    def _time_range(self, index: Any) -> tuple[int, int]:
        """The stretch of time that ``index`` selects."""
        parts = index if isinstance(index, tuple) else (index,)
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts = (*parts[:at], *[slice(None)] * (self.ndim - len(parts) + 1), *parts[at + 1 :])
        start, stop = 0, self.shape[2]
        for axis, part in enumerate(parts):
            if not isinstance(part, slice) or part.step not in (None, 1):
                raise DecodeError(f"expected slices into the output buffer, got {index!r}")
            first, last, _ = part.indices(self.shape[axis])
            if axis == 2:
                start, stop = first, max(first, last)
            elif (first, last) != (0, self.shape[axis]):
                raise DecodeError(f"expected whole frames written to {tuple(self.shape)}, got the part {index!r}")
        return start, stop


class OutputSlice:
    """A stretch of time of an ``OutputBuffer``, to be copied to."""

    def __init__(self, buffer: OutputBuffer, start: int, stop: int) -> None:
        self.shape = torch.Size((*buffer.shape[:2], stop - start, *buffer.shape[3:]))
        self.dtype = buffer.dtype
        self.device = buffer.device
        self._buffer = buffer
        self._range = (start, stop)

    def copy_(self, frames: Tensor, non_blocking: bool = False) -> OutputSlice:
        """Take the frames of this stretch."""
        self._buffer.write(*self._range, frames)
        return self


class ChunkedOutput(Tap):
    """Takes the stretches that ``model.decode(latent, output_buffer=…)`` writes.

    Args:
        decoder: a VAE whose model has ``decode_output_shape`` besides.
        live_latents: latent frames whose whole decode takes about as much memory as one stretch does. Default:
            ``None``, those of the clip.
        bounded: nothing else in the model grows with the clip; ``detail`` tells what does. Default: ``True``.
        detail: one line for the report. Default: ``""``.
    """

    def __init__(
        self, decoder: VideoDecoder, *, live_latents: int | None = None, bounded: bool = True, detail: str = ""
    ) -> None:
        super().__init__(decoder)
        self.live_latents = live_latents
        self.decoding = Decoding("tapped", exact=True, bounded=bounded, detail=detail)

    def frames(self, latent: Tensor) -> int:
        return latent.shape[0] * self._clip_shape(latent)[2]

    def run(self, latent: Tensor, submit: Submit) -> None:
        with torch.inference_mode():
            for clip in latent.split(1):
                self._run_clip(clip, submit)

    def _clip_shape(self, latent: Tensor) -> torch.Size:
        model: Any = self.decoder.model
        return torch.Size(model.decode_output_shape((1, *latent.shape[1:])))

    def _run_clip(self, clip: Tensor, submit: Submit) -> None:
        buffer = OutputBuffer(self._clip_shape(clip), dtype=torch.float32, device=self.decoder.device, submit=submit)
        model: Any = self.decoder.model
        model.decode(self.decoder.to_device(clip), output_buffer=buffer)
        if buffer.written != buffer.shape[2]:
            raise DecodeError(
                f"expected {buffer.shape[2]} frames from {type(model).__name__}.decode, but it wrote {buffer.written} "
                "into the output buffer"
            )
