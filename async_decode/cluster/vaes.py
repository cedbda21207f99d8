"""Where a VAE is, in words that can be sent to another machine, and how it is loaded there."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ..adapters.diffusers_timestep import check_timestep
from ..adapters.source import Source, source_of
from ..demo import WEIGHTS_PATH, load_vae
from ..errors import DecodeError
from ..taps import VideoDecoder
from . import comfyui
from .latent_files import LatentFile

#: Channels of the embedded VAE's latents.
EMBEDDED_CHANNELS = 16
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class LoadedVAE(Protocol):
    """A VAE that decodes one latent after the other."""

    device: torch.device

    def source(self, file: LatentFile) -> Source:
        """The VAE with this latent, ready to be decoded."""


@dataclass(frozen=True)
class VAEPlace:
    """Where a VAE is.

    Attributes:
        path: a folder of Diffusers (a VAE's, or a pipeline's with a VAE in it), or a single file; with ``comfyui`` a
            name in its folder ``vae``, or a path. Default: ``None``, the embedded VAE of the demo.
        comfyui: ComfyUI's folder: its own class decodes. Default: ``None``.
        class_name: Diffusers' class, for a single file. Default: ``None``.
        config: folder with the ``config.json`` for a single file. Default: ``None``.
        dtype: of Diffusers' VAEs: ``float32``, ``float16`` or ``bfloat16``. Default: ``"float32"``.
        normalized: as of ``async_decode.decode``. Default: ``"auto"``.
        sigma_data: as of ``async_decode.decode``. Default: ``None``.
        tiling: let Diffusers' VAE decode in its tiles. Default: ``False``.
        decode_timestep: as of ``async_decode.decode``. Default: ``None``.
        decode_noise_scale: as of ``async_decode.decode``. Default: ``None``, ``decode_timestep``.
        seed: of the noise at that timestep: every clip's begins with it, wherever it is decoded. Default: ``None``, 0.
        chunk_size: images that are decoded at a time. Default: ``4``.
    """

    path: str | None = None
    comfyui: str | None = None
    class_name: str | None = None
    config: str | None = None
    dtype: str = "float32"
    normalized: bool | str = "auto"
    sigma_data: float | None = None
    tiling: bool = False
    decode_timestep: float | None = None
    decode_noise_scale: float | None = None
    seed: int | None = None
    chunk_size: int = 4

    def check(self) -> None:
        """See, without loading it, whether it is there, and whether all that is said of it makes sense.

        Raises:
            DecodeError: it is not; the message names the place, or the value.
        """
        self.files()
        for name in ("decode_noise_scale", "seed"):
            if getattr(self, name) is not None and self.decode_timestep is None:
                raise DecodeError(
                    f"{name}={getattr(self, name)} is of the noise that belongs to a timestep; say decode_timestep too"
                )
        if self.path is not None and self.comfyui is None:
            if self.class_name is None and Path(self.path).is_file():
                raise DecodeError(
                    "vae: a single file does not tell its class; say --vae-class, such as AutoencoderKLWan, for "
                    f"{self.path}"
                )
            return
        useless = {
            "class_name": self.class_name is not None,
            "config": self.config is not None,
            "dtype": self.dtype != "float32",
            "normalized": self.normalized is True,
            "sigma_data": self.sigma_data is not None,
            "tiling": self.tiling,
            "decode_timestep": self.decode_timestep is not None,
        }
        for name in (name for name, given in useless.items() if given):
            whose = "the embedded VAE" if self.comfyui is None else "ComfyUI"
            raise DecodeError(
                f"{name}: of VAEs of Diffusers, but {whose} decodes here, got {name}={getattr(self, name)}; leave it "
                "out" + (", or say which VAE" if self.comfyui is None else "")
            )

    def files(self) -> list[Path]:
        """The files that it is made of.

        Raises:
            DecodeError: there are none.
        """
        if self.path is None:
            if self.comfyui is not None:
                raise DecodeError("vae: say which of ComfyUI's VAEs, such as --vae wan_2.1_vae.safetensors")
            return [WEIGHTS_PATH]
        if self.comfyui is not None:
            return [comfyui.vae_file(Path(self.comfyui), self.path)]
        folder = Path(self.path)
        if folder.is_file():
            return [folder]
        folder = _vae_folder(folder)
        weights = sorted({*folder.glob("*.safetensors"), *folder.glob("*.bin")})
        if not weights:
            raise DecodeError(f"vae: {self.path} holds no weights (*.safetensors) of a VAE of Diffusers")
        return [folder / "config.json", *weights]

    def everywhere(self) -> VAEPlace:
        """The same with places that do not depend on the folder in which a process stands."""
        path, root, config = self.path, self.comfyui, self.config
        if path is not None:
            path = os.path.abspath(path if root is None else comfyui.vae_file(Path(root), path))
        return replace(
            self,
            path=path,
            comfyui=None if root is None else os.path.abspath(Path(root).expanduser()),
            config=None if config is None else os.path.abspath(config),
        )

    def fingerprint(self) -> str:
        """A hash of the files, and of all that changes the frames."""
        told = hashlib.sha256()
        for path in self.files():
            with open(path, "rb") as file:
                while block := file.read(1 << 24):
                    told.update(block)
        facts = [self.class_name, self.dtype, self.normalized, self.sigma_data, self.tiling, self.comfyui is not None]
        # Only where they are said: what was made before there were such options is whole still.
        at = [] if self.decode_timestep is None else [self.decode_timestep, self.decode_noise_scale, self.seed or 0]
        told.update(json.dumps([*facts, *at, self.chunk_size]).encode())
        return told.hexdigest()

    def load(self, device: torch.device | str) -> LoadedVAE:
        """The VAE, on ``device``.

        Raises:
            DecodeError: it cannot be loaded.
        """
        self.check()
        try:
            device = torch.device(device)
            # What has no memory (meta), or no driver, fails here.
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            raise DecodeError(f"device: torch has no device {str(device)!r} here; cpu is there always") from error
        if self.comfyui is not None:
            root = Path(self.comfyui).expanduser()
            loaded: LoadedVAE = comfyui.vae_loader()(
                root, comfyui.vae_file(root, self.path or ""), device, chunk_size=self.chunk_size
            )
            return loaded
        if self.path is None:
            return _Embedded(device)
        return _Diffusers(self, device)


class _Embedded:
    """The demo's VAE."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        vae = load_vae(device)
        self._decoder = VideoDecoder(
            model=vae,
            decode=vae.decode,
            device=device,
            dtype=torch.float32,
            frames_of=lambda latents: 4 * latents - 3,
        )

    def source(self, file: LatentFile) -> Source:
        source = source_of(self._decoder, file.latent)
        if source.latent.shape[1] != EMBEDDED_CHANNELS:
            raise DecodeError(
                f"latents: the embedded VAE takes {EMBEDDED_CHANNELS} channels, got {source.latent.shape[1]}; say with "
                "--vae which VAE they belong to"
            )
        return source


class _Diffusers:
    def __init__(self, place: VAEPlace, device: torch.device) -> None:
        self.device = device
        self._place = place
        try:
            import diffusers
        except ImportError as error:
            raise DecodeError(f'vae: {error}; pip install "async-vae-decode[diffusers]"') from error
        path = Path(place.path or "")
        if path.is_file():
            kind, load = _class(diffusers, place.class_name or ""), "from_single_file"
            options: dict[str, Any] = {} if place.config is None else {"config": place.config}
        else:
            path, options, load = _vae_folder(path), {}, "from_pretrained"
            told = json.loads((path / "config.json").read_text(encoding="utf-8")).get("_class_name", "")
            kind = _class(diffusers, place.class_name or told)
        if not hasattr(kind, load):
            raise DecodeError(f"vae: {kind.__name__} has no {load}; give it as a folder of Diffusers")
        try:
            vae = getattr(kind, load)(str(path), torch_dtype=_TYPES[place.dtype], **options)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DecodeError(f"vae: {path} could not be loaded as {kind.__name__}: {error}") from error
        check_timestep(vae, timestep=place.decode_timestep, noise_scale=place.decode_noise_scale)
        self._vae: Any = vae.eval().requires_grad_(False).to(device)
        if place.tiling:
            self._vae.enable_tiling()

    def source(self, file: LatentFile) -> Source:
        normalized: Any = self._place.normalized
        if normalized == "auto" and file.of_comfyui:
            # What ComfyUI keeps is what its VAE takes, which for LTX is before mean and standard deviation.
            normalized = type(self._vae).__name__.startswith("AutoencoderKLLTX")
        place = self._place
        return source_of(
            self._vae,
            file.latent,
            normalized=normalized,
            sigma_data=place.sigma_data,
            decode_timestep=place.decode_timestep,
            decode_noise_scale=place.decode_noise_scale,
            # On the CPU, so that every device gets the same noise.
            generator=None if place.decode_timestep is None else torch.Generator().manual_seed(place.seed or 0),
        )


def _vae_folder(path: Path) -> Path:
    """The folder of the VAE, which may be a pipeline's subfolder."""
    for folder in (path, path / "vae"):
        if (folder / "config.json").is_file():
            return folder
    raise DecodeError(f"vae: {path} is neither a file nor a folder of Diffusers with a config.json")


def _class(diffusers: Any, name: str) -> Any:
    kind = getattr(diffusers, name, None)
    if kind is None or not hasattr(kind, "decode"):
        raise DecodeError(f"vae: {name!r} is no VAE of this version of Diffusers ({diffusers.__version__})")
    return kind


__all__ = ["LoadedVAE", "VAEPlace"]
