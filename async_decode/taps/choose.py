"""Which tap fits a model: decided from what it has, never from a version number or a name alone."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from .base import Tap, VideoDecoder
from .image_batches import ImageBatches
from .step_hook import StepHook
from .whole import Whole


def choose_tap(decoder: VideoDecoder, *, images_per_step: int = 4) -> Tap:
    """The tap that streams ``decoder`` best; an unknown model is decoded whole, which always works.

    Args:
        decoder: the VAE.
        images_per_step: images that are decoded at a time where the model decodes images.

    Returns:
        A tap, ready to run.
    """
    model = decoder.model
    stepwise = _stepwise_decoder(model) if decoder.is_video else None
    if stepwise is not None:
        return StepHook(
            decoder,
            module=stepwise,
            finish_piece=_unpatchify(model, stepwise),
            detail="pieces of the stepwise decoder",
        )
    if not decoder.is_video and not _mixes_images(model):
        return ImageBatches(decoder, images_per_step=images_per_step)
    return Whole(decoder, detail=f"{type(model).__name__} makes its frames in one go")


def _stepwise_decoder(model: torch.nn.Module) -> torch.nn.Module | None:
    """Wan's way (core, Diffusers and relatives): ``decoder`` is called step by step and is handed its cache."""
    decoder = getattr(model, "decoder", None)
    if isinstance(decoder, torch.nn.Module) and "feat_cache" in inspect.signature(decoder.forward).parameters:
        return decoder
    return None


def _unpatchify(model: torch.nn.Module, stepwise: torch.nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The model's own un-patchify, where its decode ends with one: Wan 2.2 decodes 2x2 pixels as channels."""
    patch_size = getattr(getattr(model, "config", None), "patch_size", None)
    if any(hasattr(block, "upsamples") for block in getattr(stepwise, "upsamples", ())):
        # Core's class for Wan 2.2, known by its nested upsampling blocks, has the number in its decode.
        patch_size = 2
    unpatchify = getattr(sys.modules[type(model).__module__], "unpatchify", None)
    if patch_size is None or unpatchify is None:
        return None
    return functools.partial(unpatchify, patch_size=patch_size)


def _mixes_images(model: torch.nn.Module) -> bool:
    """An image VAE with 3-D convolutions takes its batch as time (SVD), so that a batch cannot be cut."""
    decoder = getattr(model, "decoder", model)
    return any(isinstance(module, torch.nn.Conv3d) for module in decoder.modules())
