"""The last step on the compute device: raw decoder output becomes frames.

Everything here is elementwise, so a piece may be finished part by part and the bits stay those of the whole clip. They
depend on the order, which is stock ComfyUI's: float32 first, then the VAE's own scaling, then quantising by truncation.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import DecodeError
from ..frames import Clip, PixelFormat
from .planes import write_planes

#: Private copies are at most this large, in bytes. glibc returns larger blocks to the system each time they are freed,
#: and having every page of the next one zeroed takes several times as long as the arithmetic.
_COPY_BYTES = 32 << 20
#: Samples that the host quantises at once: they stay in a core's second-level cache.
_BLOCK_SAMPLES = 1 << 17


def stock_process_output(pixels: Tensor) -> Tensor:
    """-1 to 1 becomes 0 to 1, in place: ``clamp((x + 1) / 2)``, as the default of ``comfy.sd.VAE.process_output``."""
    return pixels.add_(1.0).div_(2.0).clamp_(0.0, 1.0)


class Finish(abc.ABC):
    """Turns pieces into frames, straight into the memory of a slot."""

    @abc.abstractmethod
    def clip(self, piece: Tensor, total_frames: int | None) -> Clip:
        """The geometry of the frames that pieces like ``piece`` give.

        Raises:
            DecodeError: the piece cannot become frames.
        """

    @abc.abstractmethod
    def write(self, piece: Tensor, out: Mapping[PixelFormat, Tensor], has_nan: Tensor) -> None:
        """Finish ``piece`` into ``out``.

        Args:
            piece: the part to finish, its first axis is time; it is left as it was.
            out: a tensor ``(T, *Clip.frame_shape)`` for each format that is wanted, on any device.
            has_nan: ``(T,)`` bool, receives whether a frame holds a NaN.
        """


class DecoderOutput(Finish):
    """Finishes raw decoder output ``(T, C, H, W)``.

    Args:
        process_output: the VAE's own scaling to 0..1; gets a private copy, may work in place, must be elementwise.
            Default: ``stock_process_output``.
        dtype: the type in which scaling and quantising are computed, which is the default unless ComfyUI runs with
            ``--fp16-intermediates``. Default: ``torch.float32``.
    """

    def __init__(
        self,
        process_output: Callable[[Tensor], Tensor] = stock_process_output,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.process_output = process_output
        self.dtype = dtype

    def clip(self, piece: Tensor, total_frames: int | None) -> Clip:
        if piece.ndim != 4 or piece.shape[1] not in (1, 3, 4):
            raise DecodeError(
                "expected pieces (T, C, H, W) with 1, 3 or 4 channels from the decoder, got "
                f"{tuple(piece.shape)}: this VAE does not decode to pictures"
            )
        _, channels, height, width = piece.shape
        return Clip(height=height, width=width, channels=channels, frames=total_frames)

    def write(self, piece: Tensor, out: Mapping[PixelFormat, Tensor], has_nan: Tensor) -> None:
        for part in _parts(piece, self.dtype):
            pixels = self.process_output(piece[part].to(dtype=self.dtype, copy=True))
            _write_formats(pixels.movedim(1, -1), _time_slice(out, part), has_nan[part], private=True)


class FinishedFrames(Finish):
    """Passes on frames ``(T, H, W, C)`` that are already scaled to 0..1, such as ComfyUI's IMAGE.

    They are quantised in their own type, as stock's SaveImage does; bfloat16, which stock cannot save, in float32.
    """

    def clip(self, piece: Tensor, total_frames: int | None) -> Clip:
        if piece.ndim != 4 or piece.shape[3] not in (1, 3, 4):
            raise DecodeError(f"expected frames (T, H, W, C) with 1, 3 or 4 channels, got {tuple(piece.shape)}")
        if not piece.is_floating_point():
            raise DecodeError(f"expected frames of a floating type, scaled to 0 to 1, got {piece.dtype}")
        _, height, width, channels = piece.shape
        return Clip(height=height, width=width, channels=channels, frames=total_frames)

    def write(self, piece: Tensor, out: Mapping[PixelFormat, Tensor], has_nan: Tensor) -> None:
        coarse = piece.dtype == torch.bfloat16
        for part in _parts(piece, torch.float32 if coarse else piece.dtype):
            frames = piece[part].float() if coarse else piece[part]
            _write_formats(frames, _time_slice(out, part), has_nan[part], private=coarse)


def _parts(piece: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Cut ``piece`` along time so that a copy of a part in ``dtype`` takes at most ``_COPY_BYTES``, or is one frame."""
    count = max(1, _COPY_BYTES // max(1, piece[:1].numel() * dtype.itemsize))
    for first in range(0, piece.shape[0], count):
        yield slice(first, first + count)


def _time_slice(out: Mapping[PixelFormat, Tensor], part: slice) -> dict[PixelFormat, Tensor]:
    return {name: tensor[part] for name, tensor in out.items()}


def _write_formats(frames: Tensor, out: Mapping[PixelFormat, Tensor], has_nan: Tensor, *, private: bool) -> None:
    """Write ``frames`` ``(T, H, W, C)`` in every wanted format; ``private`` frames may be overwritten on the way."""
    if PixelFormat.FLOAT32 in out:
        out[PixelFormat.FLOAT32].copy_(frames)
    on_host = frames.device.type == "cpu" and frames.dtype == torch.float32 and PixelFormat.UINT8 in out
    if out.keys() <= {PixelFormat.FLOAT32}:
        has_nan.fill_(False)
    elif not on_host:
        # amax passes NaN on and needs no second tensor of the frames' size.
        has_nan.copy_(frames.amax(dim=(1, 2, 3)).isnan())
    if PixelFormat.UINT16 in out:
        # Always float32, because half precision ends at 65504.
        wide = frames.to(dtype=torch.float32, copy=True).mul_(65535.0).clamp_(0.0, 65535.0).round_()
        place = out[PixelFormat.UINT16]
        # Only the host and CUDA are sure to know unsigned 16 bits.
        place.copy_(wide if wide.is_cuda else wide.to(place.device))
    for name, place in out.items():
        if name.planes is not None:
            write_planes(frames, place, name)
    if on_host:
        _quantise_on_host(frames, out[PixelFormat.UINT8], has_nan)
    elif PixelFormat.UINT8 in out:
        scaled = frames.mul_(255.0) if private else frames * 255.0
        # copy_ truncates, as numpy's astype does in stock's SaveImage.
        out[PixelFormat.UINT8].copy_(scaled.clamp_(0.0, 255.0))


def _quantise_on_host(frames: Tensor, out: Tensor, has_nan: Tensor) -> None:
    """The same for float32 in host memory, by lines that stay in a core's cache from one step to the next.

    In numpy, as stock's SaveImage, which truncates in a sixth of torch's time and starts no threads for it. Where the
    channels are planes in memory, each is put in its place by itself, which takes a third of the time for all at once.
    """
    count, height, width, channels = frames.shape
    lines = max(1, _BLOCK_SAMPLES // (width * channels))
    values, places = frames.numpy(), out.numpy()
    planes = not frames[:1].is_contiguous()
    if planes:
        scratch = np.empty((channels, lines, width), np.float32).transpose(1, 2, 0)
    else:
        scratch = np.empty((lines, width, channels), np.float32)
    top = np.float32(255.0)
    # What a NaN becomes is undefined, here as in stock's.
    with np.errstate(invalid="ignore"):
        for index in range(count):
            found = False
            for first in range(0, height, lines):
                block = values[index, first : first + lines]
                scaled, place = scratch[: len(block)], places[index, first : first + lines]
                np.multiply(block, top, out=scaled)
                np.clip(scaled, np.float32(0.0), top, out=scaled)
                # max passes NaN on.
                found = found or bool(np.isnan(scaled.max()))
                if planes:
                    for channel in range(channels):
                        np.copyto(place[..., channel], scaled[..., channel], casting="unsafe")
                else:
                    np.copyto(place, scaled, casting="unsafe")
            has_nan[index] = found
