"""What a case decodes: a model on a device, and a latent that stays the same in every arm and every run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from async_decode.device.conversion import DecoderOutput, Finish
from async_decode.taps import Tap, VideoDecoder, choose_tap

from .stock import EngineStock, Stock

#: The names that the command line and the results have for types.
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def soft_latent(channels: int, frames: int, height: int, width: int) -> Tensor:
    """Soft shapes that change over time: decoders make frames of it that compress about as grainy footage does."""
    generator = torch.Generator().manual_seed(0)
    coarse = (max(2, -(-size // 8) + 1) for size in (frames, height, width))
    field = torch.randn(1, channels, *coarse, generator=generator)
    return torch.nn.functional.interpolate(field, size=(frames, height, width), mode="trilinear", align_corners=True)


def noise_latent(channels: int, frames: int, height: int, width: int) -> Tensor:
    """Noise in every latent: several times more work for the encoders of video than any footage."""
    return torch.randn(1, channels, frames, height, width, generator=torch.Generator().manual_seed(0))


#: What is decoded, drawn on the host, so that it is the same on every device: ``(1, channels, frames, height, width)``.
LATENTS: Mapping[str, Callable[[int, int, int, int], Tensor]] = {"soft": soft_latent, "noise": noise_latent}


@dataclass(frozen=True)
class Model:
    """A VAE that can be measured.

    Attributes:
        decoder: it, as taps take it.
        latent_channels: of its latents.
        pixels_per_latent: along each side.
        make_finish: its scaling to frames.
        stock: how it is decoded and saved without this package; ``None``: as ComfyUI's nodes do, rebuilt here.
        latent: makes a latent of ``(frames, height, width)`` in latents; ``None``: one of ``LATENTS``.
    """

    decoder: VideoDecoder
    latent_channels: int
    pixels_per_latent: int
    make_finish: Callable[[], Finish] = DecoderOutput
    stock: Stock | None = None
    latent: Callable[[int, int, int], Tensor] | None = None


#: Makes a model on a device, in a type.
Loader = Callable[[torch.device, torch.dtype], Model]
#: Loaders by name.
Loaders = Mapping[str, Loader]


@dataclass(frozen=True)
class Case:
    """One setting; on the command line ``MODEL:DTYPE:HEIGHTxWIDTH:LATENTS``.

    Attributes:
        model: name of the loader.
        dtype: ``bf16``, ``fp16`` or ``fp32``.
        height: of the frames, in pixels; ``width`` likewise.
        latents: latent frames.
    """

    model: str
    dtype: str
    height: int
    width: int
    latents: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """The case that ``text`` names.

        Raises:
            ValueError: it does not name one.
        """
        try:
            model, dtype, size, latents = text.split(":")
            height, width = (int(side) for side in size.split("x"))
            case = cls(model, dtype, height, width, int(latents))
        except ValueError:
            raise ValueError(
                f"expected MODEL:DTYPE:HEIGHTxWIDTH:LATENTS, such as diffusers-wan2.1:bf16:480x832:41, got {text!r}"
            ) from None
        if dtype not in DTYPES:
            raise ValueError(f"expected a type of {', '.join(DTYPES)}, got {dtype!r} in {text!r}")
        if min(case.height, case.width, case.latents) < 1:
            raise ValueError(f"expected a positive size and number of latents, got {text!r}")
        return case

    def __str__(self) -> str:
        return f"{self.model}:{self.dtype}:{self.height}x{self.width}:{self.latents}"


class Workload:
    """A case, loaded: what every arm decodes.

    Args:
        case: the setting.
        loaders: where to find its model.
        device: where to decode.
        latent: a name of ``LATENTS``, for models that have no latent of their own.

    Attributes:
        latent: the frozen latent, on the device.
        stock: the way without this package.
        verdicts: where the faster decoder keeps what it has proven, as long as this lives: the first warm-up proves,
            the next one confirms, and the runs that are timed are as any but the first two of a size are for a user.

    Raises:
        ValueError: there is no such model, or the size is none that it can decode to.
    """

    def __init__(self, case: Case, loaders: Loaders, device: torch.device, latent: str = "soft") -> None:
        if case.model not in loaders:
            raise ValueError(f"expected a model of {', '.join(loaders)}, got {case.model!r}")
        self.case = case
        self.device = device
        self.model = loaders[case.model](device, DTYPES[case.dtype])
        ratio = self.model.pixels_per_latent
        if case.height % ratio or case.width % ratio:
            raise ValueError(f"{case.model} decodes to multiples of {ratio} pixels, got {case.height}x{case.width}")
        size = (case.latents, case.height // ratio, case.width // ratio)
        made = self.model.latent(*size) if self.model.latent else LATENTS[latent](self.model.latent_channels, *size)
        self.latent = self.decoder.to_device(made)
        self.stock: Stock = self.model.stock if self.model.stock is not None else EngineStock(self.model.decoder)
        self._folder = tempfile.TemporaryDirectory(prefix="async-decode-verdicts-")
        self.verdicts = Path(self._folder.name)

    @property
    def decoder(self) -> VideoDecoder:
        return self.model.decoder

    @property
    def frames(self) -> int | None:
        """Pixel frames that the latent decodes to, where the model tells."""
        return self.tap().frames(self.latent)

    def tap(self) -> Tap:
        """A fresh tap."""
        return choose_tap(self.decoder)

    def finish(self) -> Finish:
        """The model's scaling to frames."""
        return self.model.make_finish()
