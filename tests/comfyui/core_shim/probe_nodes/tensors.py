"""Tensors in and out of a prompt, exactly."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import folder_paths
import torch
from safetensors.torch import save_file

_numbers = itertools.count()


class _AnyType(str):
    """A type that fits every input, as packs of small tools have it."""

    def __ne__(self, other: object) -> bool:
        return False

    __eq__ = str.__eq__
    __hash__ = str.__hash__


class Anything:
    """Hands any value to any input, which no core looks at: ``value`` is JSON, in which ``NaN`` is one as well."""

    RETURN_TYPES = (_AnyType("*"),)
    FUNCTION = "make"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("STRING", {"default": "null"})}}

    def make(self, value: str) -> tuple[Any]:
        return (json.loads(value),)


class SaveTensor:
    """Saves an IMAGE bit for bit, in its own type, into the temp folder; ``ui`` names the file and describes it."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    CATEGORY = "testing"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"images": ("IMAGE",)}}

    def save(self, images: torch.Tensor) -> dict[str, Any]:
        name = f"tensor-{next(_numbers)}.safetensors"
        save_file({"tensor": images.contiguous()}, os.path.join(folder_paths.get_temp_directory(), name))
        described = {"shape": list(images.shape), "dtype": str(images.dtype), "device": str(images.device)}
        return {"ui": {"tensor": [{"filename": name, "subfolder": "", "type": "temp", **described}]}}


class SaveSound(SaveTensor):
    """Saves an AUDIO's waveform in the same way; ``ui`` tells its rate as well."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"audio": ("AUDIO",)}}

    def save(self, audio: Mapping[str, Any]) -> dict[str, Any]:
        saved = super().save(audio["waveform"])
        return {"ui": {**saved["ui"], "rate": [audio["sample_rate"]]}}


class Sound:
    """An AUDIO of any shape and rate, or something that is none.

    ``kind``: ``tone`` is a sine of 440 Hz in all channels; ``text`` has one in place of the waveform; ``no rate`` has
    none; ``nothing`` is an AUDIO without anything; ``list`` is none.
    """

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "make"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "shape": ("STRING", {"default": "1,2,48000"}),
                "rate": ("INT", {"default": 48_000, "min": -(2**31), "max": 2**31}),
                "kind": (["tone", "text", "no rate", "nothing", "list"], {"default": "tone"}),
            }
        }

    def make(self, shape: str, rate: int, kind: str) -> tuple[Any]:
        if kind in ("nothing", "list"):
            return ({} if kind == "nothing" else [],)
        if kind == "text":
            return ({"waveform": "a text", "sample_rate": rate},)
        sizes = [int(size) for size in shape.split(",")]
        times = torch.arange(sizes[-1]) / (rate or 1)
        waveform = (torch.sin(2 * torch.pi * 440 * times) / 2).expand(sizes)
        return ({"waveform": waveform, "sample_rate": None if kind == "no rate" else rate},)


class _NoSound(Mapping[str, Any]):
    """What loaders of video hand out: the sound is looked for when somebody asks for it, here in vain."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("failed to extract audio from silent.mp4")

    def __iter__(self) -> Iterator[str]:
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2


class LazyAudio:
    """An AUDIO of a silent source."""

    RETURN_TYPES = ("AUDIO",)
    FUNCTION = "load"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def load(self) -> tuple[Mapping[str, Any]]:
        return (_NoSound(),)


class Latent:
    """A LATENT of any shape and type, or something that is none.

    ``kind``: ``random`` draws it from ``seed``; ``nan`` does, too, with NaN in its last frame; ``nested`` puts a second
    tensor beside it, as for video with sound, where core knows such latents; ``text`` and ``missing`` hold no tensor.
    """

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "make"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "shape": ("STRING", {"default": "1,16,5,8,8"}),
                "seed": ("INT", {"default": 0}),
                "dtype": (["float32", "float16", "bfloat16"],),
                "kind": (["random", "nan", "nested", "text", "missing"],),
            }
        }

    def make(self, shape: str, seed: int, dtype: str, kind: str) -> tuple[dict[str, Any]]:
        if kind == "missing":
            return ({},)
        if kind == "text":
            return ({"samples": "not a tensor"},)
        sizes = [int(size) for size in shape.split(",")]
        drawn = torch.randn(sizes, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))
        if kind == "nan":
            drawn[:, :, -1] = float("nan")
        if kind == "nested":
            from comfy.nested_tensor import NestedTensor

            return ({"samples": NestedTensor([drawn, torch.zeros(sizes[0], 8, 16)])},)
        return ({"samples": drawn},)


class Images:
    """An IMAGE of any shape and type, drawn from ``seed``: a little below 0 to a little above 1.

    ``layout``: ``contiguous``; ``channels_first`` in memory, as decoders leave it; ``every_other`` frame of a longer
    one.
    """

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "make"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "shape": ("STRING", {"default": "5,33,47,3"}),
                "seed": ("INT", {"default": 0}),
                "dtype": (["float32", "float16", "bfloat16", "float64", "uint8"],),
                "layout": (["contiguous", "channels_first", "every_other"],),
            }
        }

    def make(self, shape: str, seed: int, dtype: str, layout: str) -> tuple[torch.Tensor]:
        sizes = [int(size) for size in shape.split(",")]
        if layout == "every_other":
            sizes[0] *= 2
        drawn = torch.rand(sizes, generator=torch.Generator().manual_seed(seed)) * 1.1 - 0.05
        images = (drawn * 255 if dtype == "uint8" else drawn).to(getattr(torch, dtype))
        if layout == "channels_first":
            return (images.movedim(-1, 1).contiguous().movedim(1, -1),)
        return (images[::2] if layout == "every_other" else images,)
