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
from .compiled import is_compiled, original
from .image_batches import ImageBatches
from .step_hook import StepHook
from .tiles.streamed_tiles import StreamedTiles
from .tiles.tiling import Scale, Tiling
from .whole import Whole

#: What part of some decoders runs on the whole clip, before the pieces.
_LATENT_PART = "the part at the latent's resolution runs on the whole clip"


def choose_tap(decoder: VideoDecoder, *, images_per_step: int = 4) -> Tap:
    """The tap that streams ``decoder`` best; an unknown model is decoded whole, which always works.

    Args:
        decoder: the VAE.
        images_per_step: images that are decoded at a time where the model decodes images, at least 1. Default: ``4``.

    Returns:
        A tap, ready to run.
    """
    if not decoder.is_video:
        if _mixes_images(decoder.model):
            return Whole(decoder, detail="this VAE decodes the images of a batch together")
        return ImageBatches(decoder, images_per_step=images_per_step)
    for family in (_writes_to_buffer, _wan, _seedvr2, _hunyuan_video, _cogvideox, _ltx, _taehv):
        tap = family(decoder)
        if isinstance(tap, StepHook) and (compiled := _compiled_around(tap)) is not None:
            return Whole(decoder, detail=f"its {compiled} is compiled as one, so that no pieces can be taken inside")
        if tap is not None:
            return tap
    return Whole(decoder, detail=f"{type(original(decoder.model)).__name__} makes its frames in one go")


def _compiled_around(tap: StepHook) -> str | None:
    """What of the model is compiled with the module in it that makes the pieces, where that is so."""
    model: Any = tap.decoder.model
    if any(is_compiled(decode) for decode in (tap.decoder.decode, getattr(model, "decode", None))):
        return "decode"
    upper = _part(model, "decoder")
    return "decoder" if upper is not None and is_compiled(upper) and tap.module is not upper else None


def _writes_to_buffer(decoder: VideoDecoder) -> Tap | None:
    """Core's protocol: ``decode`` takes an output buffer and writes finished frames into it."""
    model: Any = decoder.model
    if not getattr(model, "comfy_has_chunked_io", False) or not hasattr(model, "decode_output_shape"):
        return None
    step, shared = (getattr(model, name, None) for name in ("tokens_chunk_size", "token_overlap"))
    if isinstance(step, int) and isinstance(shared, int):
        # MiniMax H3 decodes windows of so many latents, and keeps the end of one to blend it with the next.
        return ChunkedOutput(decoder, live_latents=2 * step + shared, detail="frames as the model writes them out")
    slice_length = getattr(model, "slicing_latent_min_size", None)
    if _takes(getattr(model, "slicing_decode", None), "output_buffer"):
        # SeedVR2 decodes slice by slice, and hands each the end of the one before. Where the length of a slice follows
        # the free memory, frames are stock's at equal lengths.
        return ChunkedOutput(
            decoder,
            live_latents=1 + slice_length if isinstance(slice_length, int) else None,
            detail="slices of the causal decoder",
        )
    if hasattr(_part(model, "decoder"), "run_up"):
        # LTX goes down its blocks depth first, in parts of some MiB. What its first block makes of the whole clip is
        # small beside the clip's frames, so that a long clip need not have more room made for it than one of 81 frames.
        return ChunkedOutput(
            decoder, live_latents=11, bounded=False, detail=f"frames as the model writes them out; {_LATENT_PART}"
        )
    return ChunkedOutput(decoder, bounded=False, detail="frames as the model writes them out")


def _wan(decoder: VideoDecoder) -> Tap | None:
    """Wan's way (core, Diffusers and relatives): ``decoder`` is called step by step and is handed its cache."""
    model: Any = decoder.model
    if not _takes(_part(model, "decoder"), "feat_cache"):
        return None
    return StepHook(
        decoder,
        module=model.decoder,
        finish_piece=_unpatchify_2x2(model),
        at_latent_size=True,
        detail="pieces of the stepwise decoder",
    )


def streamed_tiles(
    decoder: VideoDecoder, *, scale: Scale, tiling: Tiling, cache_room: Callable[[], int] | None = None
) -> StreamedTiles | None:
    """The tap that decodes in these tiles without cutting the clip in time; ``None`` where the model is not that kind.

    It is Wan's kind: a decoder whose past is all in the cache that it is handed at each step.

    Args:
        decoder: the VAE.
        scale: from latents to pixels.
        tiling: which tiles, without windows.
        cache_room: as in ``StreamedTiles``. Default: ``None``.
    """
    model: Any = decoder.model
    if not decoder.is_video or not _takes(_part(model, "decoder"), "feat_cache", "feat_idx"):
        return None
    if is_compiled(model.decoder) and original(model.decoder) is model.decoder:
        # Compiled in place, it would overlook that its forward is another one for a while.
        return None
    return StreamedTiles(
        decoder,
        module=model.decoder,
        scale=scale,
        tiling=tiling,
        finish_piece=_unpatchify_2x2(model),
        cache_room=cache_room,
    )


def _seedvr2(decoder: VideoDecoder) -> Tap | None:
    """SeedVR2's way: ``slicing_decode`` calls ``decoder`` for some latents at a time and hands it its memory."""
    model: Any = decoder.model
    if not hasattr(model, "slicing_decode") or not _takes(_part(model, "decoder"), "memory_cache"):
        return None
    step = int(getattr(model, "slicing_latent_min_size", 1))
    # Core counts so few bytes for a pixel of the clip that those of one slice would not be enough.
    return StepHook(
        decoder,
        module=model.decoder,
        at_latent_size=True,
        live_latents=1 + 10 * step,
        detail="slices of the causal decoder",
    )


def _hunyuan_video(decoder: VideoDecoder) -> Tap | None:
    """HunyuanVideo's way since its convolutions carry their past: the upper part runs piece by piece."""
    upper = _part(decoder.model, "decoder")
    conv_out = _part(upper, "conv_out")
    # tanh_out would be applied after the hook, and the image variants of the class cut their result afterwards.
    if getattr(upper, "tanh_out", False) or not getattr(upper, "refiner_vae", True):
        return None
    if conv_out is None or type(original(conv_out)).__name__ != "CarriedConv3d":
        return None
    return StepHook(decoder, module=conv_out, bounded=False, detail=f"pieces of the last convolution; {_LATENT_PART}")


def _cogvideox(decoder: VideoDecoder) -> Tap | None:
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


def _ltx(decoder: VideoDecoder) -> Tap | None:
    """LTX's way before it wrote to a buffer: convolutions keep their past, the pieces are un-patchified together."""
    upper = _part(decoder.model, "decoder")
    conv_out = _part(upper, "conv_out")
    if upper is None or conv_out is None or not hasattr(conv_out, "temporal_cache_state"):
        return None
    unpatchify = getattr(sys.modules[type(original(upper)).__module__], "unpatchify", None)
    if not callable(unpatchify) or not _takes(unpatchify, "patch_size_hw", "patch_size_t"):
        return None
    if not hasattr(upper, "patch_size"):
        return None
    return StepHook(
        decoder,
        module=conv_out,
        finish_piece=functools.partial(unpatchify, patch_size_hw=upper.patch_size, patch_size_t=1),
        bounded=False,
        detail=f"pieces of the last convolution; {_LATENT_PART}",
    )


def _taehv(decoder: VideoDecoder) -> Tap | None:
    """TAEHV's way: ``decoder`` is a row of small blocks that one frame after the other goes through."""
    model: Any = decoder.model
    blocks = original(_part(model, "decoder"))
    if not isinstance(blocks, torch.nn.Sequential) or getattr(model, "parallel", True):
        return None
    if not hasattr(model, "frames_to_trim") or not hasattr(model, "t_upscale"):
        return None
    trim, growth = int(model.frames_to_trim), int(model.t_upscale)
    in_windows = bool(getattr(model, "is_h3", False))
    # Core announces 4n - 3 frames for the one of LTX-2, which makes 8n - 7.
    frames_of = functools.partial(_frames_in_windows if in_windows else _frames_in_a_row, trim, growth)
    patch_size = int(getattr(model, "patch_size", 1))

    def finish_piece(frame: Tensor) -> Tensor:
        pixels = torch.nn.functional.pixel_shuffle(frame, patch_size) if patch_size > 1 else frame
        return (pixels.clamp(0, 1) if in_windows else pixels).unsqueeze(2)

    def keep(number: int, latents: int) -> bool:
        past, within = divmod(number, 5 * growth) if in_windows else (0, number)
        return within >= trim and past * (5 * growth - trim) + within - trim < frames_of(latents)

    def blank(latents: int) -> int:
        return frames_of(latents) - sum(keep(number, latents) for number in range(latents * growth))

    return StepHook(
        dataclasses.replace(decoder, frames_of=frames_of),
        module=blocks[-1],
        finish_piece=finish_piece,
        keep=keep,
        blank=blank,
        live_latents=2,
        detail="frame by frame",
    )


def _frames_in_a_row(trim: int, growth: int, latents: int) -> int:
    """Frames that TAEHV makes of a clip: it drops the first ``trim``."""
    return latents * growth - trim


def _frames_in_windows(trim: int, growth: int, latents: int) -> int:
    """Frames that the TAEHV of MiniMax H3 makes of a clip.

    It fills up the last window of 5 latents with blank frames, drops the first ``trim`` of each window, and the last
    three latents' worth of the clip; of ``5k + 1`` latents some blank ones remain.
    """
    if latents == 1:
        return growth - trim
    windows = -(-latents // 5)
    return windows * (5 * growth - trim) - 3 * growth


def _unpatchify_2x2(model: Any) -> Callable[[Tensor], Tensor] | None:
    """The model's own un-patchify, where its decode ends with one: Wan 2.2 decodes 2x2 pixels as channels."""
    patch_size = getattr(getattr(model, "config", None), "patch_size", None)
    if any(hasattr(block, "upsamples") for block in getattr(model.decoder, "upsamples", ())):
        # Core's class for Wan 2.2, known by its nested upsampling blocks, has the number in its decode.
        patch_size = 2
    unpatchify = getattr(sys.modules[type(original(model)).__module__], "unpatchify", None)
    if patch_size is None or unpatchify is None:
        return None
    return functools.partial(unpatchify, patch_size=patch_size)


def _mixes_images(model: torch.nn.Module) -> bool:
    """An image VAE whose convolutions reach over time takes its batch as time (SVD), so that it cannot be cut."""
    decoder = getattr(model, "decoder", model)
    modules = decoder.modules() if isinstance(decoder, torch.nn.Module) else ()
    return any(isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] > 1 for module in modules)


def _part(module: Any, name: str) -> torch.nn.Module | None:
    """The submodule ``name``, where there is one."""
    part = getattr(module, name, None)
    return part if isinstance(part, torch.nn.Module) else None


def _takes(function: Any, *names: str) -> bool:
    """Whether a module's forward, or a function, has parameters of these names."""
    function = original(function)
    function = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return all(name in parameters for name in names)
