"""Small instances of every VAE family that ComfyUI's core knows, each inside a real ``comfy.sd.VAE``.

Runs inside a checkout's interpreter, after ``comfy`` can be imported. A family is core's own class, made narrow, with
random weights; its state dict goes through ``comfy.sd.VAE``, so that core recognises it by its keys as it does a
checkpoint's, and sets the ratios, the scaling and the memory estimates. Where core's code fixes the widths, the class
is swapped for the time of the loading for one that returns the narrow instance.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

#: Widths that keep every family's structure: multiples of 32, because many normalise 32 groups.
NARROW = [32, 32, 32, 32]


HOOK, CHUNKED, WHOLE, BATCHES = "StepHook", "ChunkedOutput", "Whole", "ImageBatches"


@dataclass(frozen=True)
class Family:
    """One kind of VAE.

    Attributes:
        name: as people know it.
        make: builds the narrow model from core's class; raises ``ImportError`` or ``AttributeError`` where this core
            does not have it.
        swap: the name through which ``comfy.sd`` reaches the class, ``None`` where core reads the widths itself.
        tap: the tap that must be chosen.
        old_tap: the same for core 0.3.64, where that is another; ``None``: that core does not have the family.
        bounded: what is tapped does not grow with the clip; what is decoded whole always does.
        video: the latent has a time axis.
        noisy: its decode draws noise.
        size: latent height and width that it is tried with: not square, so that swapped axes show.
        extra: keys that only the checkpoint has.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    tap: str
    old_tap: str | None
    swap: str | None = None
    bounded: bool = True
    video: bool = True
    noisy: bool = False
    size: tuple[int, int] = (2, 3)
    extra: tuple[str, ...] = ()


def class_named(path: str) -> Any:
    """A class of core, by its full name."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def wan21(channels: int = 3) -> torch.nn.Module:
    wan = class_named("comfy.ldm.wan.vae.WanVAE")
    more = {} if channels == 3 else {"image_channels": channels, "conv_out_channels": channels}
    if not set(more) <= set(inspect.signature(wan).parameters):
        raise AttributeError("this core knows Wan's VAE with 3 channels only")
    return wan(
        dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True], **more
    )


def wan22() -> torch.nn.Module:
    return class_named("comfy.ldm.wan.vae2_2.WanVAE")(
        dim=16, dec_dim=16, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
    )


def seedvr2() -> torch.nn.Module:
    module = importlib.import_module("comfy.ldm.seedvr.vae")
    with mock.patch.object(module, "BYTEDANCE_BLOCK_OUT_CHANNELS", tuple(NARROW)):
        return module.VideoAutoencoderKLWrapper()


def minimax_h3() -> torch.nn.Module:
    module = importlib.import_module("comfy.ldm.minimax.vae")
    decoder = module.ViT3DDecoder

    def narrow(**options: Any) -> torch.nn.Module:
        return decoder(**options, num_layers=2, heads=2)

    with mock.patch.object(module, "ViT3DDecoder", narrow):
        return module.MiniMaxH3VideoVAE(ch=32, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1)


def ltx_config(*, noisy: bool) -> dict[str, Any]:
    """LTX 0.9.5 and later, at an eighth of its width; with ``noisy`` as the checkpoints that draw noise."""
    up = ["compress_all", {"residual": True, "multiplier": 2}]
    return {
        "dims": 3,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 128,
        "encoder_blocks": [
            ["res_x", {"num_layers": 1}],
            ["compress_all", {}],
            ["compress_all", {}],
            ["compress_all", {}],
        ],
        "decoder_blocks": [
            ["res_x", {"num_layers": 1, "inject_noise": noisy}],
            up,
            ["res_x", {"num_layers": 1, "inject_noise": noisy}],
            up,
            ["res_x", {"num_layers": 1, "inject_noise": False}],
            up,
            ["res_x", {"num_layers": 1, "inject_noise": False}],
        ],
        "norm_layer": "pixel_norm",
        "patch_size": 4,
        "latent_log_var": "uniform",
        "causal_decoder": False,
        "timestep_conditioning": noisy,
    }


def ltx(*, noisy: bool) -> torch.nn.Module:
    module = importlib.import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
    encoder, decoder = module.Encoder, module.Decoder
    # Older cores take no widths from the configuration.
    with (
        mock.patch.object(module, "Encoder", lambda **options: encoder(**{**options, "base_channels": 16})),
        mock.patch.object(module, "Decoder", lambda **options: decoder(**{**options, "base_channels": 16})),
    ):
        return module.VideoVAE(config=ltx_config(noisy=noisy))


def quiet_ltx() -> torch.nn.Module:
    return ltx(noisy=False)


def noisy_ltx() -> torch.nn.Module:
    return ltx(noisy=True)


def ltx24() -> torch.nn.Module:
    module = importlib.import_module("comfy.ldm.lightricks.vae.na_diffusion_decoder")
    options = module.LTX_24_VAE_CONFIG
    encoder = {
        **options["encoder"],
        "base_channels": 16,
        "blocks": [[name, {**more, "num_layers": 1}] for name, more in options["encoder"]["blocks"]],
    }
    decoder = {
        **options["decoder"],
        "head_dim": 16,
        "stage_channels": [128, 64, 32, 32, 16],
        "stage_depths": [1, 1, 1, 1, 1],
        "stage_kernels": [[3, 3, 3]] * 5,
        "stage5_kernel": [3, 3, 3],
    }
    return module.CausalDiffusionVAE(config={**options, "encoder": encoder, "decoder": decoder})


def kl_options(**more: Any) -> dict[str, Any]:
    return {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
        **more,
    }


def hunyuan() -> torch.nn.Module:
    return class_named("comfy.ldm.models.autoencoder.AutoencoderKL")(
        ddconfig=kl_options(z_channels=16, conv3d=True, time_compress=4), embed_dim=16
    )


def engine(part: str, options: dict[str, Any], regularizer: str, decoder: str = "Decoder", **more: Any) -> Any:
    return class_named("comfy.ldm.models.autoencoder.AutoencodingEngine")(
        regularizer_config={"target": f"comfy.ldm.models.autoencoder.{regularizer}"},
        encoder_config={"target": "comfy.ldm.modules.diffusionmodules.model.Encoder", "params": options}
        if part.endswith("temporal_ae")
        else {"target": f"{part}.Encoder", "params": options},
        decoder_config={"target": f"{part}.{decoder}", "params": {**options, **more}},
    )


def hunyuan15() -> torch.nn.Module:
    return refiner({})


def refiner(more: dict[str, Any]) -> Any:
    options = {
        "block_out_channels": [32, 32, 32, 32, 32],
        "in_channels": 3,
        "out_channels": 3,
        "num_res_blocks": 1,
        "ffactor_spatial": 16,
        "ffactor_temporal": 4,
        "downsample_match_channel": True,
        "upsample_match_channel": True,
        "z_channels": 32,
        **more,
    }
    return engine("comfy.ldm.hunyuan_video.vae_refiner", options, "EmptyRegularizer")


def hunyuan_image3() -> torch.nn.Module:
    return refiner({"refiner_vae": False})


def cogvideox() -> torch.nn.Module:
    return class_named("comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX")(
        latent_channels=16, block_out_channels=tuple(NARROW), layers_per_block=1
    )


def mochi() -> torch.nn.Module:
    module = importlib.import_module("comfy.ldm.genmo.vae.model")
    make_encoder, make_decoder = module.Encoder, module.Decoder
    with (
        mock.patch.object(module, "Encoder", lambda **options: make_encoder(**{**options, "base_channels": 32})),
        mock.patch.object(module, "Decoder", lambda **options: make_decoder(**{**options, "base_channels": 32})),
    ):
        return module.VideoVAE()


def cosmos() -> torch.nn.Module:
    return class_named("comfy.ldm.cosmos.vae.CausalContinuousVideoTokenizer")(
        z_channels=16,
        latent_channels=16,
        z_factor=1,
        resolution=1024,
        in_channels=3,
        out_channels=3,
        channels=32,
        channels_mult=[1, 1, 1],
        num_res_blocks=1,
        attn_resolutions=[32],
        dropout=0.0,
        patch_size=4,
        num_groups=1,
        temporal_compression=8,
        spacial_compression=8,
    )


def svd() -> torch.nn.Module:
    return engine(
        "comfy.ldm.modules.temporal_ae",
        kl_options(),
        "DiagonalGaussianRegularizer",
        "VideoDecoder",
        video_kernel_size=[3, 1, 1],
        alpha=0.0,
    )


def stable_diffusion() -> torch.nn.Module:
    return class_named("comfy.ldm.models.autoencoder.AutoencoderKL")(ddconfig=kl_options(), embed_dim=4)


def taehv(channels: int) -> Callable[[], torch.nn.Module]:
    return lambda: class_named("comfy.taesd.taehv.TAEHV")(latent_channels=channels)


_WAN = "comfy.ldm.wan.vae.WanVAE"
_LTX = "comfy.ldm.lightricks.vae.causal_video_autoencoder.VideoVAE"
_ENGINE = "comfy.sd.AutoencodingEngine"

#: Of decoders this small, what their stand-ins take shows beside frames as small as the others'.
_TINY = (4, 5)

FAMILIES = [
    Family("Wan 2.1, Qwen-Image", wan21, HOOK, HOOK, swap=_WAN),
    Family("Wan 2.2", wan22, HOOK, HOOK, swap="comfy.ldm.wan.vae2_2.WanVAE"),
    Family("SeedVR2", seedvr2, HOOK, None, swap="comfy.ldm.seedvr.vae.VideoAutoencoderKLWrapper"),
    Family("MiniMax H3", minimax_h3, CHUNKED, None, swap="comfy.ldm.minimax.vae.MiniMaxH3VideoVAE"),
    Family("LTX, LTX-2", quiet_ltx, CHUNKED, WHOLE, swap=_LTX, bounded=False),
    Family("LTX that draws noise", noisy_ltx, CHUNKED, WHOLE, swap=_LTX, bounded=False, noisy=True),
    Family("LTX 2.4", ltx24, WHOLE, None, swap="comfy.ldm.lightricks.vae.na_diffusion_decoder.CausalDiffusionVAE"),
    Family("HunyuanVideo, Kandinsky 5", hunyuan, HOOK, WHOLE, swap="comfy.sd.AutoencoderKL", bounded=False),
    Family("HunyuanVideo 1.5", hunyuan15, HOOK, WHOLE, swap=_ENGINE, bounded=False, size=(1, 2)),
    Family("HunyuanImage 3", hunyuan_image3, WHOLE, WHOLE, swap=_ENGINE, size=(1, 2)),
    Family("CogVideoX", cogvideox, HOOK, None, swap="comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX", bounded=False),
    Family("Mochi", mochi, WHOLE, WHOLE, swap="comfy.ldm.genmo.vae.model.VideoVAE"),
    Family(
        "Cosmos",
        cosmos,
        WHOLE,
        WHOLE,
        swap="comfy.ldm.cosmos.vae.CausalContinuousVideoTokenizer",
        extra=("decoder.unpatcher3d.wavelets",),
    ),
    Family("Stable Video Diffusion", svd, WHOLE, WHOLE, swap=_ENGINE, video=False),
    Family("TAEHV, TAEW 2.1", taehv(16), HOOK, None, size=_TINY),
    Family("TAEW 2.2", taehv(48), HOOK, None, size=_TINY),
    Family("TAEHV for LTX-2", taehv(128), HOOK, None, size=_TINY),
    Family("TAEHV for MiniMax H3", taehv(24), HOOK, None, size=_TINY),
    Family("TAEHV for HunyuanVideo 1.5", taehv(32), HOOK, None, size=_TINY),
    Family("SD, SDXL, Flux", stable_diffusion, BATCHES, BATCHES, swap="comfy.sd.AutoencoderKL", video=False),
]

#: The same class with other numbers of picture channels.
ONE_CHANNEL = Family("Wan 2.1, 1 channel", lambda: wan21(1), HOOK, None, swap=_WAN)
FOUR_CHANNELS = Family("Qwen-Image-Layered", lambda: wan21(4), HOOK, None, swap=_WAN)


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights with variance 1 / fan-in, norms at one, small biases: finite frames of some contrast."""
    generator = torch.Generator().manual_seed(seed)
    norms = {
        id(parameter)
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
        if parameter.ndim <= 1
    }
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith(("gamma", "std-of-means", "latent_std", "latents_std")) or (
            id(tensor) in norms and name.endswith("weight")
        ):
            value = 1 + 0.1 * noise
        elif tensor.ndim >= 2 and not name.endswith(("pixel_mean", "pixel_std", "mask_token")):
            value = noise * max(1, tensor[0].numel()) ** -0.5
        elif name.endswith(("pixel_mean", "pixel_std", "wavelets")) or "wavelet" in name or "sin" in name:
            continue
        else:
            value = 0.1 * noise
        with torch.no_grad():
            tensor.copy_(value)


@contextlib.contextmanager
def swapped(path: str | None, model: torch.nn.Module) -> Iterator[None]:
    """While this lasts, the class at ``path`` makes ``model``."""
    if path is None:
        yield
        return
    module, _, name = path.rpartition(".")
    with mock.patch.object(importlib.import_module(module), name, lambda *_args, **_options: model):
        yield


def load(family: Family) -> Any:
    """``family`` as a ``comfy.sd.VAE``, made as core makes it from a checkpoint.

    Raises:
        ImportError, AttributeError: this core does not have the family.
    """
    import comfy.sd

    model = family.make()
    randomise(model)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    for key in family.extra:
        weights.setdefault(key, torch.zeros(1))
    with swapped(family.swap, model):
        vae = comfy.sd.VAE(sd=weights, dtype=torch.float32)
    if type(vae.first_stage_model) is not type(model):
        raise AttributeError(f"this core takes {family.name} for {type(vae.first_stage_model).__name__}")
    return vae
