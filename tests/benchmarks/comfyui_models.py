"""ComfyUI's own VAEs as models of the benchmark, out of a checkout, with its own nodes as the stock arm.

Each model is a ``comfy.sd.VAE`` at full width with random weights: core is shown the few keys by which it knows a
checkpoint, builds the model that it would build for it, and the weights are then drawn on the device. The pack's own
``nodes/vae.py`` makes a decoder of it, so that what is measured is what the nodes do.

Nothing here runs in the engine's package, which knows nothing of ComfyUI.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from bench.host import HostSizes, MakePair, Pair, carry, clip, named
from bench.saving import FPS, Saving, frames_in
from bench.stock import save_images, save_video
from bench.workload import Loaders, Model
from torch import Tensor

import async_decode
from async_decode import FinishedFrames

ROOT = Path(__file__).resolve().parents[2]
#: The preset of core's Save Video, which has no input for it: x264's own default.
_STOCK_PRESET = "medium"


@dataclass(frozen=True)
class Family:
    """One of core's VAEs.

    Attributes:
        known_by: shapes of the keys that core looks at to tell what a checkpoint is.
        channels: of the latent; ``pixels`` per latent along each side.
        configure: the ``vae`` part of the checkpoint's metadata, where core reads its structure there.
    """

    known_by: dict[str, tuple[int, ...]]
    channels: int
    pixels: int
    configure: Callable[[], dict[str, Any]] | None = None


def _ltx_configuration() -> dict[str, Any]:
    """Core's for LTX-Video 0.9.5, without the noise that its decode would draw anew in every arm (as LTX-2 has it)."""
    core = importlib.import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
    configuration = core.VideoVAE.get_default_config(None, 2)
    return {**configuration, "timestep_conditioning": False}


FAMILIES = {
    "comfy-wan2.1": Family(
        {
            "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
            "decoder.head.0.gamma": (96, 1, 1, 1),
            "decoder.head.2.weight": (3, 96, 3, 3, 3),
            "encoder.conv1.weight": (96, 3, 3, 3, 3),
        },
        channels=16,
        pixels=8,
    ),
    "comfy-wan2.2": Family(
        {
            "decoder.middle.0.residual.0.gamma": (1024, 1, 1, 1),
            "decoder.upsamples.0.upsamples.0.residual.2.weight": (1024, 1024, 3, 3, 3),
        },
        channels=48,
        pixels=16,
    ),
    "comfy-ltx": Family(
        {
            "decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (1024, 1024, 3, 3, 3),
            "encoder.down_blocks.1.conv.conv.bias": (64,),
        },
        channels=128,
        pixels=32,
        configure=_ltx_configuration,
    ),
    "comfy-hunyuan1.5": Family({"decoder.conv_in.conv.weight": (1024, 32, 3, 3, 3)}, channels=32, pixels=16),
}


def loaders(checkout: Path) -> Loaders:
    """Loaders of these models out of a checkout of ComfyUI, which is imported when the first one is used.

    Args:
        checkout: its root folder. What it imports has to be installed for this Python.
    """
    return {name: functools.partial(_load, checkout, family) for name, family in FAMILIES.items()}


def host_pairs(checkout: Path) -> list[MakePair]:
    """Saving an IMAGE that is there already, beside core's own Save Video, which encodes in its process.

    Args:
        checkout: as of ``loaders``.
    """

    def save_video(sizes: HostSizes) -> Pair:
        prepare(checkout, torch.device("cpu"))
        stock, saving, images = CoreStock(checkout, None), Saving.parse(f"h264-{_STOCK_PRESET}"), clip(sizes)

        def ours(folder: Path) -> Callable[[], object]:
            sink = saving.sink(folder, "ours")
            carry(list(images.split(4)), sink, FinishedFrames())
            (path,) = saving.files(sink)
            return lambda: frames_in(path)

        def theirs(folder: Path) -> Callable[[], object]:
            (path,) = stock.save(images, saving, folder)
            return lambda: frames_in(path)

        return Pair(f"{saving.name}, {named(sizes)}", ours, stock.name, theirs, images.nbytes)

    return [save_video]


def prepare(checkout: Path, device: torch.device) -> None:
    """Make core's modules importable, and have it use ``device``.

    Raises:
        ImportError: there is no ComfyUI, or something that it needs is not installed.
    """
    if not (checkout / "comfy" / "sd.py").is_file():
        raise ImportError(f"{checkout} is no checkout of ComfyUI")
    # The checkout first: it has modules named like folders of this repository.
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    if "comfy.sd" in sys.modules:
        return
    arguments, sys.argv = sys.argv, [sys.argv[0], *(["--cpu"] if device.type == "cpu" else [])]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.sd")
    finally:
        sys.argv = arguments
    # Each load is told on the log's info level.
    logging.getLogger().setLevel(logging.ERROR)


def _load(checkout: Path, family: Family, device: torch.device, dtype: torch.dtype) -> Model:
    prepare(checkout, device)
    core = importlib.import_module("comfy.sd")
    known_by = {name: torch.zeros(1, dtype=dtype).expand(shape) for name, shape in family.known_by.items()}
    metadata = {"config": json.dumps({"vae": family.configure()})} if family.configure is not None else None
    vae = core.VAE(sd=known_by, dtype=dtype, metadata=metadata)
    _draw_weights(vae.first_stage_model, device)
    pack = _pack_module("nodes.vae")
    # All of it: the arms of a benchmark find it loaded.
    management = importlib.import_module("comfy.model_management")
    management.load_models_gpu([vae.patcher], force_full_load=True)
    return Model(
        decoder=pack.decoder_of(vae),
        latent_channels=family.channels,
        pixels_per_latent=family.pixels,
        make_finish=lambda: pack.output_of(vae),
        stock=CoreStock(checkout, vae),
    )


def _draw_weights(model: torch.nn.Module, device: torch.device) -> None:
    """Variance 1 / fan-in, norms at one, small biases: finite frames of some contrast."""
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if not weight.is_floating_point():
                continue
            if "bias" in name or "mean" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator, device=device))
            elif weight.ndim > 1 and "gamma" not in name:
                drawn = torch.randn(weight.shape, generator=generator, device=device)
                weight.copy_(drawn / weight[0].numel() ** 0.5)
            else:
                weight.fill_(1.0)


class CoreStock:
    """The stock arm as ComfyUI runs it: *VAE Decode*, then *Save Image* or *Save Video*.

    Save Video has no input for the encoder's speed. What another preset than its own is asked for saves with our
    encoder, frame by frame, once the clip is there, and so does everything where core's nodes cannot be imported.

    Args:
        checkout: core's folder.
        vae: a ``comfy.sd.VAE``.

    Attributes:
        name: which code saves, for the results.
    """

    def __init__(self, checkout: Path, vae: Any) -> None:
        self._vae = vae
        version = re.search(r'"([\d.]+)"', (checkout / "comfyui_version.py").read_text())
        core = f"ComfyUI {version[1] if version else 'of unknown version'}"
        self._nodes, self._video = None, None
        try:
            self._nodes = importlib.import_module("nodes")
            self._video = importlib.import_module("comfy_api.latest")
        except ImportError as error:
            # Its nodes import PyAV, which the decoding does without.
            self.name = f"{core}: VAE.decode; saved by the benchmark's copy of its loops ({error})"
        else:
            self.name = f"{core}: VAEDecode, SaveImage, SaveVideo (preset {_STOCK_PRESET}; others by the benchmark)"

    def decode(self, latent: Tensor) -> Tensor:
        with torch.inference_mode():
            if self._nodes is not None:
                images: Tensor = self._nodes.VAEDecode().decode(self._vae, {"samples": latent})[0]
            else:
                images = self._vae.decode(latent).flatten(0, 1)
        return images

    def save(self, images: Tensor, saving: Saving, folder: Path) -> list[Path]:
        with torch.inference_mode():
            if saving.png_level is not None:
                return self._save_images(images, saving.png_level, folder)
            if saving.preset is not None:
                return self._save_video(images, saving, folder)
        return []

    def _save_images(self, images: Tensor, level: int, folder: Path) -> list[Path]:
        if self._nodes is None:
            return save_images(images, folder, compress_level=level)
        node = self._nodes.SaveImage()
        node.output_dir, node.compress_level = str(folder), level
        saved = node.save_images(images, filename_prefix="stock")
        return [folder / image["filename"] for image in saved["ui"]["images"]]

    def _save_video(self, images: Tensor, saving: Saving, folder: Path) -> list[Path]:
        if self._video is None or saving.preset != _STOCK_PRESET:
            return save_video(images, saving, folder)
        # What SaveVideo does once it has a name.
        types_of = self._video.Types
        components = types_of.VideoComponents(images=images, audio=None, frame_rate=Fraction(FPS))
        path = folder / "stock_00001_.mp4"
        self._video.InputImpl.VideoFromComponents(components).save_to(
            str(path), format=types_of.VideoContainer("mp4"), codec=types_of.VideoCodec("h264")
        )
        return [path]


def _pack_module(name: str) -> Any:
    """A module of the pack, without its entry points, which want a server; its engine is the one that is measured."""
    if "pack" not in sys.modules:
        for package, path in (("pack", ROOT), ("pack.nodes", ROOT / "nodes")):
            module = types.ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module
        sys.modules["pack.async_decode"] = async_decode
    with contextlib.suppress(AttributeError):
        # Imported under its own name everywhere else.
        sys.modules["pack"].async_decode = async_decode  # type: ignore[attr-defined]
    return importlib.import_module(f"pack.{name}")
