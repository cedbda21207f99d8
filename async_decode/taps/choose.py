"""Which tap fits a model: decided from what it has, never from a version number or a name alone."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .base import Tap, VideoDecoder
from .chunked_output import ChunkedOutput
from .image_batches import ImageBatches
from .step_hook import StepHook
from .whole import Whole

#: What part of some decoders runs on the whole clip, before the pieces.
_LATENT_PART = "the part at the latent's resolution runs on the whole clip"


def choose_tap(decoder: VideoDecoder, *, images_per_step: int = 4) -> Tap:
    """The tap that streams ``decoder`` best; an unknown model is decoded whole, which always works.

    Args:
        decoder: the VAE.
        images_per_step: images that are decoded at a time where the model decodes images.

    Returns:
        A tap, ready to run.
    """
    if not decoder.is_video:
        if _mixes_images(decoder.model):
            return Whole(decoder, detail="this VAE decodes the images of a batch together")
        return ImageBatches(decoder, images_per_step=images_per_step)
    for tap_of in (_chunked, _stepwise, _sliced, _carried, _rolling, _cached, _frame_by_frame):
        tap = tap_of(decoder)
        if tap is not None:
            return tap
    return Whole(decoder, detail=f"{type(decoder.model).__name__} makes its frames in one go")


def _chunked(decoder: VideoDecoder) -> Tap | None:
    """Core's protocol: ``decode`` takes an output buffer and writes finished frames into it."""
    model = decoder.model
    if not getattr(model, "comfy_has_chunked_io", False) or not hasattr(model, "decode_output_shape"):
        return None
    return ChunkedOutput(decoder, detail="frames as the model writes them out")


def _stepwise(decoder: VideoDecoder) -> Tap | None:
    """Wan's way (core, Diffusers and relatives): ``decoder`` is called step by step and is handed its cache."""
    model: Any = decoder.model
    if not _takes(_part(model, "decoder"), "feat_cache"):
        return None
    return StepHook(
        decoder,
        module=model.decoder,
        finish_piece=_unpatchify_2x2(model),
        detail="pieces of the stepwise decoder",
    )


def _sliced(decoder: VideoDecoder) -> Tap | None:
    """SeedVR2's way: ``slicing_decode`` calls ``decoder`` for some latents at a time and hands it its memory."""
    model: Any = decoder.model
    if not hasattr(model, "slicing_decode") or not _takes(_part(model, "decoder"), "memory_cache"):
        return None
    return StepHook(decoder, module=model.decoder, detail="slices of the causal decoder")


def _carried(decoder: VideoDecoder) -> Tap | None:
    """HunyuanVideo's way since its convolutions carry their past: the upper part runs piece by piece."""
    upper = _part(decoder.model, "decoder")
    conv_out = _part(upper, "conv_out")
    # tanh_out would be applied after the hook, and the image variants of the class cut their result afterwards.
    if getattr(upper, "tanh_out", False) or not getattr(upper, "refiner_vae", True):
        return None
    if conv_out is None or type(conv_out).__name__ != "CarriedConv3d":
        return None
    return StepHook(decoder, module=conv_out, bounded=False, detail=f"pieces of the last convolution; {_LATENT_PART}")


def _rolling(decoder: VideoDecoder) -> Tap | None:
    """CogVideoX's way: convolutions are handed their cache and return it beside their frames."""
    conv_out = _part(_part(decoder.model, "decoder"), "conv_out")
    if conv_out is None or not _takes(conv_out, "conv_cache"):
        return None
    return StepHook(
        # Core announces 4n - 3 frames, but makes 4n of an even number of latents.
        dataclasses.replace(decoder, frames_of=None),
        module=conv_out,
        bounded=False,
        detail="pieces of the last convolution; the part below half resolution runs on the whole clip",
    )


def _cached(decoder: VideoDecoder) -> Tap | None:
    """LTX's way before it wrote to a buffer: convolutions keep their past, the pieces are un-patchified together."""
    upper = _part(decoder.model, "decoder")
    conv_out = _part(upper, "conv_out")
    if upper is None or conv_out is None or not hasattr(conv_out, "temporal_cache_state"):
        return None
    unpatchify = getattr(sys.modules[type(upper).__module__], "unpatchify", None)
    if not _takes(unpatchify, "patch_size_hw", "patch_size_t") or not hasattr(upper, "patch_size"):
        return None
    return StepHook(
        decoder,
        module=conv_out,
        finish_piece=functools.partial(unpatchify, patch_size_hw=upper.patch_size, patch_size_t=1),
        bounded=False,
        detail=f"pieces of the last convolution; {_LATENT_PART}",
    )


def _frame_by_frame(decoder: VideoDecoder) -> Tap | None:
    """TAEHV's way: ``decoder`` is a row of small blocks that one frame after the other goes through."""
    model: Any = decoder.model
    blocks = _part(model, "decoder")
    if not isinstance(blocks, torch.nn.Sequential) or getattr(model, "parallel", True):
        return None
    if not hasattr(model, "frames_to_trim") or not hasattr(model, "t_upscale"):
        return None
    trim, growth = int(model.frames_to_trim), int(model.t_upscale)
    in_windows = bool(getattr(model, "is_h3", False))
    if not in_windows:
        # Core announces 4n - 3 frames for the one of LTX-2, which makes 8n - 7.
        decoder = dataclasses.replace(decoder, frames_of=lambda latents: latents * growth - trim)
    patch_size = int(getattr(model, "patch_size", 1))

    def finish_piece(frame: Tensor) -> Tensor:
        pixels = torch.nn.functional.pixel_shuffle(frame, patch_size) if patch_size > 1 else frame
        return (pixels.clamp(0, 1) if in_windows else pixels).unsqueeze(2)

    return StepHook(
        decoder,
        module=blocks[-1],
        finish_piece=finish_piece,
        keep=functools.partial(_keeps_frame, trim, 5 * growth if in_windows else None, decoder),
        detail="frame by frame",
    )


def _keeps_frame(trim: int, window: int | None, decoder: VideoDecoder, number: int, latents: int) -> bool:
    """Whether TAEHV keeps this frame: it drops the first ``trim`` of the clip, or of each window, and the last ones."""
    past, within = divmod(number, window) if window is not None else (0, number)
    if within < trim:
        return False
    place = past * ((window or 0) - trim) + within - trim
    return decoder.frames_of is None or place < decoder.frames_of(latents)


def _unpatchify_2x2(model: Any) -> Callable[[Tensor], Tensor] | None:
    """The model's own un-patchify, where its decode ends with one: Wan 2.2 decodes 2x2 pixels as channels."""
    patch_size = getattr(getattr(model, "config", None), "patch_size", None)
    if any(hasattr(block, "upsamples") for block in getattr(model.decoder, "upsamples", ())):
        # Core's class for Wan 2.2, known by its nested upsampling blocks, has the number in its decode.
        patch_size = 2
    unpatchify = getattr(sys.modules[type(model).__module__], "unpatchify", None)
    if patch_size is None or unpatchify is None:
        return None
    return functools.partial(unpatchify, patch_size=patch_size)


def _mixes_images(model: torch.nn.Module) -> bool:
    """An image VAE with 3-D convolutions takes its batch as time (SVD), so that a batch cannot be cut."""
    decoder = getattr(model, "decoder", model)
    modules = decoder.modules() if isinstance(decoder, torch.nn.Module) else ()
    return any(isinstance(module, torch.nn.Conv3d) for module in modules)


def _part(module: Any, name: str) -> torch.nn.Module | None:
    """The submodule ``name``, where there is one."""
    part = getattr(module, name, None)
    return part if isinstance(part, torch.nn.Module) else None


def _takes(function: Any, *names: str) -> bool:
    """Whether a module's forward, or a function, has parameters of these names."""
    function = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return all(name in parameters for name in names)
