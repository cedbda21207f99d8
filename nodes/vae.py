"""The VAE as the engine sees it: which latents it takes, how it is loaded, how its decode is called.

Everything goes through the VAE object and its own decode, so that whatever other packs patched there keeps working.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from comfy import model_management

from ..async_decode import DecodeError, DecoderOutput, Tap, VideoDecoder

try:
    from comfy import model_prefetch
except ImportError:
    # Older cores plan nothing.
    model_prefetch = None

#: Models of core's that only a node of their own can decode, by a part of their class's full name.
OWN_NODES = {"relayvsr": "VSR Decode"}


def latent_of(samples: Any, vae: Any) -> torch.Tensor:
    """The latent in a LATENT, in the number of dimensions that ``vae`` decodes.

    Args:
        samples: ComfyUI's LATENT, a dict with the tensor under ``samples``; of a nested tensor (video with audio) the
            first part is the video, as for stock.
        vae: the VAE that will decode it.

    Returns:
        ``(N, C, T, H, W)`` for a video VAE, ``(N, C, H, W)`` for an image VAE.

    Raises:
        DecodeError: it holds no latent that this VAE could decode; the message names the value and the remedy.
    """
    latent = samples.get("samples") if isinstance(samples, dict) else None
    if not isinstance(latent, torch.Tensor) and not hasattr(latent, "unbind"):
        got = type(samples).__name__ if not isinstance(samples, dict) else type(latent).__name__
        raise DecodeError(f"samples: expected a LATENT with a tensor in it, got {got}; connect a sampler or LoadLatent")
    if getattr(latent, "is_nested", False):
        latent = latent.unbind()[0]
    if latent.ndim not in (4, 5):
        raise DecodeError(
            f"samples: expected (N, C, H, W) or (N, C, T, H, W), got {tuple(latent.shape)}; "
            "audio and 3-D latents have decode nodes of their own"
        )
    if latent.numel() == 0:
        raise DecodeError(
            f"samples: the latent is empty, its shape is {tuple(latent.shape)}; give it frames and a size"
        )
    if is_video(vae):
        return latent if latent.ndim == 5 else _with_time(latent, vae)
    # As stock: an image VAE decodes the first frame of each clip.
    return latent if latent.ndim == 4 else latent[:, :, 0]


def _with_time(latent: torch.Tensor, vae: Any) -> torch.Tensor:
    """``(N, C, T, H, W)`` of ``(N, C, H, W)``, a single frame, or of ``(N, C * T, H, W)``, SeedVR2's other form."""
    channels = getattr(vae, "latent_channels", None)
    if hasattr(vae.first_stage_model, "slicing_decode") and channels and latent.shape[1] % channels == 0:
        return latent.unflatten(1, (channels, -1))
    return latent.unsqueeze(2)


def clips_note(vae: Any, latent: torch.Tensor) -> list[str]:
    """What is to be said where several clips follow each other in one video."""
    if not is_video(vae) or latent.shape[0] == 1:
        return []
    return [
        f"the latent holds {latent.shape[0]} clips, which follow each other in one video; for a video each, take them "
        "apart with Latent From Batch"
    ]


def is_video(vae: Any) -> bool:
    """Whether ``vae`` decodes latents with a time axis."""
    return getattr(vae, "latent_dim", 2) == 3


def check_vae(vae: Any) -> None:
    """Refuse what does not decode to pictures.

    Raises:
        DecodeError: the message names the VAE and the node that is right for it.
    """
    model = getattr(vae, "first_stage_model", None)
    name = type(vae if model is None else model).__name__
    if model is None:
        if hasattr(vae, "throw_exception_if_invalid"):
            vae.throw_exception_if_invalid()
        own = _decode_nodes_beside(vae)
        remedy = f"use its own decode node ({own})" if own else "use the decode node of the pack that loaded it"
        raise DecodeError(f"vae: {name} is not one of ComfyUI's VAEs; {remedy}, or load the VAE with Load VAE")
    full_name = f"{type(model).__module__}.{name}".lower()
    for part, node in OWN_NODES.items():
        if part in full_name:
            raise DecodeError(f"vae: {name} needs more than a latent; use its own node, {node}, and save its images")
    if getattr(vae, "latent_dim", 2) == 1 or getattr(vae, "extra_1d_channel", None) is not None:
        raise DecodeError(f"vae: {name} decodes audio or shapes, not pictures; use VAE Decode Audio or its own node")
    channels = getattr(vae, "output_channels", 3)
    if channels not in (1, 3, 4):
        raise DecodeError(
            f"vae: {name} decodes to {channels} channels, which is no picture; use VAE Decode Audio or its own node"
        )


def _decode_nodes_beside(vae: Any) -> str:
    """The names of the decode nodes in the pack that ``vae``'s class comes from, as people see them; may be empty."""
    # ComfyUI's list of nodes, which is there whenever a workflow runs.
    nodes = sys.modules.get("nodes")
    # ComfyUI imports a pack under its path, without dots.
    pack = type(vae).__module__.partition(".")[0]
    named = getattr(nodes, "NODE_DISPLAY_NAME_MAPPINGS", {})
    return " or ".join(
        named.get(key, key)
        for key, node in getattr(nodes, "NODE_CLASS_MAPPINGS", {}).items()
        if node.__module__.partition(".")[0] == pack and "decode" in key.lower()
    )


def decoder_of(vae: Any) -> VideoDecoder:
    """``vae`` as the taps take it."""
    model, poll = vae.first_stage_model, model_management.throw_exception_if_processing_interrupted

    def decode(latent: torch.Tensor) -> torch.Tensor:
        # A window may be many tiles, none of which reaches the pipeline before the last.
        poll()
        pixels = model.decode(latent)
        # Some image VAEs are video models of one frame.
        return pixels.squeeze(2) if pixels.ndim == 5 and not is_video(vae) else pixels

    frames_of = vae.upscale_ratio[0] if is_video(vae) and isinstance(vae.upscale_ratio, tuple) else None
    return VideoDecoder(
        model=model,
        decode=decode,
        device=vae.device,
        dtype=vae.vae_dtype,
        frames_of=frames_of if callable(frames_of) else None,
        is_video=is_video(vae),
        images_of=lambda shape: images_at_once(vae, shape),
        poll=poll,
    )


def output_of(vae: Any) -> DecoderOutput:
    """The VAE's own scaling, in the type in which this core computes it."""
    dtype = vae.vae_output_dtype() if hasattr(vae, "vae_output_dtype") else torch.float32
    return DecoderOutput(vae.process_output, dtype=dtype)


def load(vae: Any, tap: Tap, latent: torch.Tensor, *, ring_bytes: int) -> None:
    """Load the VAE, asking for the memory of what ``tap`` keeps live while it decodes ``latent``, and of the ring."""
    shape = tap.live_shape(latent)
    load_for(vae, shape, int(vae.memory_used_decode(shape, vae.vae_dtype)) + ring_bytes)


def load_for(vae: Any, shape: torch.Size, memory: int) -> None:
    """Load the VAE for a decode of ``shape`` that needs so many bytes beside it."""
    with outside_of_memory_plan():
        if hasattr(vae, "prepare_decode"):
            vae.prepare_decode(shape, memory_required=memory)
        else:
            model_management.load_models_gpu([vae.patcher], memory_required=memory, force_full_load=vae.disable_offload)


def outside_of_memory_plan() -> contextlib.AbstractContextManager[Any]:
    """For what outlives a step: newer cores record allocations, to plan them, and ask to be told of others."""
    pause = getattr(model_prefetch, "pause_malloc_graph", None)
    return contextlib.nullcontext() if pause is None else pause()


def images_at_once(vae: Any, shape: torch.Size) -> int:
    """How many images of a batch of ``shape`` stock's VAE Decode would decode in one call, once the VAE is loaded."""
    return max(1, int(free_memory(vae) / vae.memory_used_decode(shape, vae.vae_dtype)))


def memory_beside(vae: Any, shape: torch.Size) -> int:
    """Bytes of the device's memory that a decode of ``shape`` leaves free, once the VAE is loaded."""
    return max(0, int(free_memory(vae) - vae.memory_used_decode(shape, vae.vae_dtype)))


def free_memory(vae: Any) -> int:
    """Bytes that are free on the device of ``vae``, or that core would free for it."""
    if hasattr(vae.patcher, "get_free_memory"):
        return int(vae.patcher.get_free_memory(vae.device))
    return int(model_management.get_free_memory(vae.device))


@contextlib.contextmanager
def device_context(device: torch.device) -> Iterator[None]:
    """Make ``device`` the current one, where core knows how."""
    context = getattr(model_management, "cuda_device_context", None)
    with contextlib.nullcontext() if context is None else context(device):
        yield


def frame_size(vae: Any, latent: torch.Tensor) -> tuple[int, int]:
    """Width and height, in pixels, of the frames that ``latent`` decodes to."""
    scale = vae.spacial_compression_decode()
    return int(latent.shape[-1] * scale), int(latent.shape[-2] * scale)


@contextlib.contextmanager
def explained(vae: Any, latent: torch.Tensor) -> Iterator[None]:
    """Turn what a model says to a latent of another model into a message that helps.

    Asking beforehand would refuse VAEs whose declared number of channels is not what they take.
    """
    try:
        yield
    except (RuntimeError, IndexError, ValueError) as error:
        expected = getattr(vae, "latent_channels", None)
        if expected is None or latent.shape[1] == expected:
            raise
        name = type(vae.first_stage_model).__name__
        raise DecodeError(
            f"samples: this latent has {latent.shape[1]} channels, but the VAE ({name}) decodes {expected}; "
            "load the VAE that belongs to the model that made the latent"
        ) from error
