"""ComfyUI's dynamic VRAM in a benchmark: switched on as core's ``main.py`` does it; VAEs that are loaded through it.

Needs what the checkout's ``requirements.txt`` names, ``comfy-aimdo`` above all, installed for this Python.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from comfyui_models import prepare
from torch import Tensor

#: The calls of comfy-aimdo's ``init``, from newer versions to older ones, which raise ``TypeError``.
_STARTS: tuple[dict[str, Any], ...] = (
    {"simple_vram_headroom": None, "nvml_pressure": True},
    {"simple_vram_headroom": None},
    {},
)


def switch_on(checkout: Path, device: torch.device) -> None:
    """Have core fetch weights when they are used; to be called before CUDA is.

    Raises:
        ImportError: there is no ComfyUI, or something that it needs is not installed.
        RuntimeError: this core has no dynamic VRAM, or comfy-aimdo does not start.
    """
    control = importlib.import_module("comfy_aimdo.control")
    for options in _STARTS:
        try:
            control.init(**options)
            break
        except TypeError:
            continue
    prepare(checkout, device)
    patcher = importlib.import_module("comfy.model_patcher")
    if not hasattr(patcher, "ModelPatcherDynamic"):
        raise RuntimeError(f"the ComfyUI in {checkout} has no dynamic VRAM")
    if not control.init_devices([device.index or 0]):
        raise RuntimeError("comfy-aimdo does not start on this machine")
    patcher.CoreModelPatcher = patcher.ModelPatcherDynamic
    importlib.import_module("comfy.memory_management").aimdo_enabled = True
    logging.getLogger().setLevel(logging.ERROR)


def vae_out_of(weights: dict[str, Tensor], file: Path, device: torch.device) -> Any:
    """A ``comfy.sd.VAE`` with these weights, out of a file, as core's loader makes it.

    Args:
        weights: of a model that core knows by its keys, all of the type that it decodes in.
        file: where they are written; it has to stay, because core may read them again.
        device: where it decodes.

    Raises:
        RuntimeError: core has not put it into its dynamic VRAM.
    """
    from safetensors.torch import save_file

    save_file(weights, file)
    (dtype,) = {weight.dtype for weight in weights.values()}
    loaded = importlib.import_module("comfy.utils").load_torch_file(str(file))
    vae = importlib.import_module("comfy.sd").VAE(sd=loaded, dtype=dtype, device=device)
    if not vae.patcher.is_dynamic():
        raise RuntimeError("core has not put the VAE into its dynamic VRAM")
    return vae


def made_ready(vae: Any) -> Callable[[], None]:
    """What core does before each decode: it sees to it that the weights can be fetched."""
    management = importlib.import_module("comfy.model_management")
    return lambda: management.load_models_gpu([vae.patcher])


def filled(device: torch.device, leave: float) -> Tensor:
    """A tensor that takes what is free on the card but for ``leave`` GiB, so that weights cannot all stay."""
    free, _ = torch.cuda.mem_get_info(device)
    return torch.empty(max(0, free - int(leave * 2**30)), dtype=torch.uint8, device=device)
