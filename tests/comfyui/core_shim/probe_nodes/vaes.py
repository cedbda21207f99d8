"""VAEs for tests: narrow ones, which decode in a fraction of the time, and ones that wait or fail in mid-clip."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import comfy.ldm.hunyuan3d.vae
import comfy.ldm.wan.vae
import comfy.ldm.wan.vae2_2
import comfy.sd
import folder_paths
import torch
from comfy_execution.utils import get_executing_context
from safetensors import safe_open
from torch import nn

import nodes

from .flow import hold


class LoadVAE:
    """Stock's VAELoader for files of any width.

    Core reads the width from the file for some families in some versions, and expects the full one otherwise.
    """

    RETURN_TYPES = ("VAE",)
    FUNCTION = "load"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae_name": ("STRING", {"default": ""})}}

    def load(self, vae_name: str) -> tuple[Any]:
        with width_from_file(folder_paths.get_full_path_or_raise("vae", vae_name)):
            return nodes.VAELoader().load_vae(vae_name)


@contextlib.contextmanager
def width_from_file(path: str) -> Iterator[None]:
    """While this lasts, core's own classes are built as wide as the decoder in the file."""
    with safe_open(path, "pt") as file:
        last_norm = next(key for key in ("decoder.head.0.gamma", "decoder.norm_out.weight") if key in file.keys())  # noqa: SIM118
        width = file.get_slice(last_norm).get_shape()[0]

    def narrowed(owner: Any, name: str, change: Any) -> Any:
        model = getattr(owner, name)
        return mock.patch.object(owner, name, lambda **settings: model(**change(settings)))

    with (
        narrowed(comfy.ldm.wan.vae, "WanVAE", lambda given: {**given, "dim": width}),
        narrowed(comfy.ldm.wan.vae2_2, "WanVAE", lambda given: {**given, "dim": width, "dec_dim": width}),
        narrowed(comfy.sd, "AutoencoderKL", lambda given: {**given, "ddconfig": {**given["ddconfig"], "ch": width}}),
    ):
        yield


class DecoderStep:
    """Passes a VAE on whose decoder, in this prompt, does something when it is called for the ``step``-th time.

    ``action``: ``hold`` waits at a gate, which a cancelled prompt does not open; ``raise`` fails;
    ``out of memory`` fails as torch does when there is none.
    """

    RETURN_TYPES = ("VAE",)
    FUNCTION = "arm"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "vae": ("VAE",),
                "step": ("INT", {"default": 3, "min": 1}),
                "action": (["hold", "raise", "out of memory"],),
                "gate": ("STRING", {"default": "step"}),
            }
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")

    def arm(self, vae: Any, step: int, action: str, gate: str) -> tuple[Any]:
        armed_in = get_executing_context().prompt_id
        calls = 0

        def before_step(module: nn.Module, inputs: Any) -> None:
            nonlocal calls
            # The model outlives the prompt in the cache; what was armed for one must not meet the next.
            if get_executing_context().prompt_id != armed_in:
                handle.remove()
                return
            calls += 1
            if calls != step:
                return
            handle.remove()
            if action == "raise":
                raise RuntimeError(f"the decoder fails at step {step}, as the test wants it")
            if action == "out of memory":
                raise torch.cuda.OutOfMemoryError(f"no memory at step {step}, as the test wants it")
            hold(gate, interruptible=False)

        handle = vae.first_stage_model.decoder.register_forward_pre_hook(before_step)
        return (vae,)


class CheapVAE(LoadVAE):
    """Wan 2.1's VAE whose decoder only enlarges its latents: long clips take no time, and all around it is core's."""

    def load(self, vae_name: str) -> tuple[Any]:
        (vae,) = super().load(vae_name)
        decoder = vae.first_stage_model.decoder
        # Newer cores get a list of pieces.
        in_pieces = hasattr(decoder, "run_up")

        def enlarge(x: torch.Tensor, feat_cache: Any = None, feat_idx: Any = (0,)) -> Any:
            first = feat_cache is None or feat_cache[0] is None
            if feat_cache is not None:
                feat_cache[0] = True
            frames = x[:, :3].repeat_interleave(1 if first else 4, dim=2)
            pixels = frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
            return [pixels] if in_pieces else pixels

        decoder.forward = enlarge
        return (vae,)


class OtherVAE:
    """A VAE that does not decode to pictures: core's for sound or for shapes, or an object that is none of core's."""

    RETURN_TYPES = ("VAE",)
    FUNCTION = "make"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"kind": (["audio", "shape", "foreign"],)}}

    def make(self, kind: str) -> tuple[Any]:
        if kind == "foreign":
            return (ForeignVAE(),)
        if kind == "audio":
            model = functools.partial(comfy.sd.AudioOobleckVAE, channels=4)
            owner, name = comfy.sd, "AudioOobleckVAE"
        else:
            model = functools.partial(
                comfy.ldm.hunyuan3d.vae.ShapeVAE, width=64, heads=1, num_decoder_layers=1, num_encoder_layers=1
            )
            owner, name = comfy.ldm.hunyuan3d.vae, "ShapeVAE"
        with mock.patch.object(owner, name, model):
            return (comfy.sd.VAE(sd=model().state_dict()),)


class ForeignVAE:
    """What another pack may hand over as a VAE."""

    def decode(self, latent: Any) -> Any:
        raise AssertionError("nobody but this class's own nodes knows how to call this")


class StandInVAE(LoadVAE):
    """A VAE that follows a protocol of newer cores than the one that runs.

    ``kind``: ``estimate above free`` calls its estimate reliable, which is above what is free, prefers tiles of 40
    latents, and decodes them itself; ``estimate below free`` would, too, but its estimate is small; ``rgba`` is an
    image VAE of four channels that is a video model of one frame; ``relayvsr`` has the name of one that only its own
    node decodes; ``memory plan`` refuses to be loaded while allocations are recorded.
    """

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = ["estimate above free", "estimate below free", "rgba", "relayvsr", "memory plan"]
        return {"required": {"vae_name": ("STRING", {"default": ""}), "kind": (kinds,)}}

    def load(self, vae_name: str, kind: str) -> tuple[Any]:
        (vae,) = super().load(vae_name)
        model = vae.first_stage_model
        if kind == "relayvsr":
            model.__class__ = type("RelayVSRDecoder", (type(model),), {})
        elif kind == "memory plan":
            _refuse_inside_of_memory_plan(vae)
        elif kind == "rgba":
            vae.output_channels = 4
            decode = model.decode

            def with_alpha(latent: torch.Tensor) -> torch.Tensor:
                pixels = decode(latent)
                return torch.cat([pixels, pixels[:, :1]], 1).unsqueeze(2)

            model.decode = with_alpha
        else:
            vae.handles_tiling = True
            needed = 1 << 60 if kind == "estimate above free" else 1 << 20
            # A tile fits, and what is decoded in tiles is asked for again.
            vae.memory_used_decode = lambda shape, dtype: needed if shape[-1] > 40 else 1 << 20
            model.comfy_decode_estimate_is_reliable = True
            model.preferred_decode_tile = lambda free_memory, dtype: 40
            decode = model.decode

            def decode_tiled(latent: torch.Tensor, tile_x: int, tile_y: int, overlap: int) -> torch.Tensor:
                # What was asked for is in the frames: tests look for it there.
                return torch.full_like(decode(latent), (tile_x + tile_y / 100 + overlap / 10_000) / 100)

            model.decode_tiled = decode_tiled
        return (vae,)


def _refuse_inside_of_memory_plan(vae: Any) -> None:
    """Let this core have a plan, for the next time that ``vae`` is loaded, and fail if that is not left out of it."""
    import comfy.model_prefetch

    paused = False

    @contextlib.contextmanager
    def pause() -> Iterator[None]:
        nonlocal paused
        paused = True
        yield
        paused = False

    def prepare(*shape: Any, **given: Any) -> Any:
        if not paused:
            raise RuntimeError("the VAE is loaded while allocations are recorded")
        vars(comfy.model_prefetch).pop("pause_malloc_graph", None)
        del vae.prepare_decode
        return vae.prepare_decode(*shape, **given)

    comfy.model_prefetch.pause_malloc_graph = pause
    vae.prepare_decode = prepare
