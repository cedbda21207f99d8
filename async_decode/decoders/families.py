"""Which decoders we know, and which of their blocks are replaced by what.

A decoder is known by the source of what is replaced in it. Another version of a class, or one that another pack has
patched, has another source and is left alone.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from . import hunyuan, ltx, seedvr
from .call import Carried, Keyed, Remembered
from .place import Place
from .verdicts import digest
from .wan import Duplication, LoneConv, LoneNorm, ResidualBlock, Upsampling, Variant
from .weights import why_not


@dataclass(frozen=True)
class Family:
    """A kind of decoder that we know.

    Attributes:
        module: the name of the Python module that its classes are in.
        decoder: the class whose call is a step of the decode.
        sources: the functions whose source was read when the blocks were written, ``Class.method`` or ``function``.
        known: short names of their sources, one for each version that was read (and another where Python 3.10 writes it
            otherwise), with what it does differently.
        places: makes the places of a decoder.
    """

    module: str
    decoder: str
    sources: tuple[str, ...]
    known: dict[str, Any]
    places: Callable[[torch.nn.Module, Any], Iterator[Place]]


class Unknown(Exception):
    """A decoder that is left alone; the message says why."""


def find(model: torch.nn.Module) -> tuple[torch.nn.Module, list[Place], list[str]]:
    """The part of ``model`` that is called step by step, the places in it, and the source of what they replace.

    Raises:
        Unknown: nothing in it is replaced.
    """
    decoder = getattr(model, "decoder", None)
    kind = type(decoder)
    family = next((one for one in FAMILIES if (one.module, one.decoder) == (kind.__module__, kind.__name__)), None)
    if family is None or not isinstance(decoder, torch.nn.Module):
        raise Unknown(f"there are no blocks for {type(model).__name__}")
    if family.module in DOUBTED:
        raise Unknown(DOUBTED[family.module])
    sources = sources_of(family)
    version = digest(sources)
    if version not in family.known:
        raise Unknown(f"this version of {type(model).__name__} is not one that the blocks were written for")
    places = list(family.places(decoder, family.known[version]))
    for module in (decoder, *(part for place in places for part in place.module.modules())):
        if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
            raise Unknown(f"something else has changed this {type(model).__name__}")
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise Unknown(f"this {type(model).__name__} is compiled")
    if decoder.training and any(isinstance(part, torch.nn.Dropout) and part.p for part in decoder.modules()):
        raise Unknown(f"this {type(model).__name__} is in training")
    return decoder, places, sources


def sources_of(family: Family) -> list[str]:
    """The source of what was read of a family, without comments and layout."""
    home = sys.modules[family.module]
    found = []
    for name in family.sources:
        try:
            found.append(_plain_source(operator.attrgetter(name)(home)))
        except (AttributeError, OSError, TypeError):
            continue
    return found


@functools.lru_cache(maxsize=256)
def _plain_source(function: Any) -> str:
    """The source of ``function``, read once, since every run asks: what another pack patches is another function."""
    return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(function))))


def unusable(places: list[Place], x: torch.Tensor) -> str:
    """Why the places cannot run on ``x`` as things are now; empty where they can."""
    if x.dtype not in (torch.bfloat16, torch.float16):
        return f"its type is {str(x.dtype).removeprefix('torch.')}, for which nothing is faster"
    if x.shape[0] != 1:
        return f"it decodes {x.shape[0]} clips at once"
    for place in places:
        for part in place.module.modules():
            reason = why_not(part, x)
            if reason:
                return reason
    return ""


def settings_of(decoder: torch.nn.Module, x: torch.Tensor) -> Any:
    """What else than ``x`` decides how a decoder's loop goes: what LTX and SeedVR2 cut their work by."""
    home = sys.modules[type(decoder).__module__]
    chunk_size, norm_limit = (getattr(home, name, None) for name in ("get_max_chunk_size", "get_norm_limit"))
    limits = {float(getattr(part, "memory_limit", 0)) for part in decoder.modules()}
    if norm_limit is not None:
        return [norm_limit(), *sorted(limits)]
    return None if chunk_size is None else chunk_size(x.device)


def _typed(module: Any, names: tuple[str, ...]) -> Any:
    """``module``, if its class has one of these names."""
    if type(module).__name__ not in names:
        raise Unknown(f"a part of the decoder is a {type(module).__name__}")
    return module


_CORE_CONVS, _CORE_NORMS = ("CausalConv3d", "Conv3d", "Conv2d"), ("RMS_norm",)


def _core_wan(decoder: Any, variant: Variant) -> Iterator[Place]:
    def conv(module: Any) -> Any:
        return _typed(module, _CORE_CONVS)

    for name, module in decoder.named_modules():
        kind = type(module).__name__
        if kind == "ResidualBlock":
            parts = module.residual
            norms = [_typed(parts[index], _CORE_NORMS) for index in (0, 3)]
            _typed(parts[1], ("SiLU",)), _typed(parts[4], ("SiLU",))
            shortcut = None if isinstance(module.shortcut, torch.nn.Identity) else conv(module.shortcut)
            block = ResidualBlock(norms, [conv(parts[2]), conv(parts[6])], shortcut, variant)
            yield Place(name, module, block, 2)
        elif kind == "Resample" and module.mode in ("upsample2d", "upsample3d"):
            time_conv = conv(module.time_conv) if module.mode == "upsample3d" else None
            _typed(module.resample[0], ("Upsample",))
            yield Place(
                name, module, Upsampling(conv(module.resample[1]), time_conv, variant), int(time_conv is not None)
            )
        elif kind == "DupUp3D":
            yield Place(name, module, Duplication(module), 0)
        elif kind == "AttentionBlock":
            yield Place(name, module, None, 0)
    yield Place("head.0", decoder.head[0], LoneNorm(_typed(decoder.head[0], _CORE_NORMS), variant), 0, leaf=True)
    yield Place("head.2", decoder.head[2], LoneConv(conv(decoder.head[2]), variant), 1, leaf=True)


def _diffusers_wan(prefix: str) -> Callable[[torch.nn.Module, Variant], Iterator[Place]]:
    convs, norms = (f"{prefix}CausalConv3d", "Conv2d"), (f"{prefix}RMS_norm",)

    def places(decoder: Any, variant: Variant) -> Iterator[Place]:
        def conv(module: Any) -> Any:
            return _typed(module, convs)

        for name, module in decoder.named_modules():
            kind = type(module).__name__
            if kind == f"{prefix}ResidualBlock":
                _typed(module.nonlinearity, ("SiLU",))
                shortcut = None if isinstance(module.conv_shortcut, torch.nn.Identity) else conv(module.conv_shortcut)
                block = ResidualBlock(
                    [_typed(module.norm1, norms), _typed(module.norm2, norms)],
                    [conv(module.conv1), conv(module.conv2)],
                    shortcut,
                    variant,
                )
                yield Place(name, module, block, 2)
            elif kind == f"{prefix}Resample" and module.mode in ("upsample2d", "upsample3d"):
                time_conv = conv(module.time_conv) if module.mode == "upsample3d" else None
                _typed(module.resample[0], (f"{prefix}Upsample",))
                block_2 = Upsampling(conv(module.resample[1]), time_conv, variant)
                yield Place(name, module, block_2, int(time_conv is not None))
            elif kind == "DupUp3D":
                yield Place(name, module, Duplication(module), 0)
            elif kind == f"{prefix}AttentionBlock":
                yield Place(name, module, None, 0)
        yield Place("norm_out", decoder.norm_out, LoneNorm(_typed(decoder.norm_out, norms), variant), 0, leaf=True)
        yield Place("conv_out", decoder.conv_out, LoneConv(conv(decoder.conv_out), variant), 1, leaf=True)

    return places


def _core_hunyuan(decoder: Any, _variant: None) -> Iterator[Place]:
    if not decoder.refiner_vae:
        raise Unknown("there are no blocks for a decoder that carries nothing on")

    def conv(module: Any) -> Any:
        return _typed(_typed(module, ("CarriedConv3d",)).conv, ("Conv3d",))

    # What comes before them, at the latent's resolution, runs once for the whole clip: stock's.
    for name, module in decoder.up.named_modules(prefix="up"):
        kind = type(module).__name__
        if kind == "ResnetBlock":
            if module.use_conv_shortcut:
                raise Unknown("a part of the decoder has a shortcut that is carried on")
            norms = [_typed(norm, ("RMS_norm",)) for norm in (module.norm1, module.norm2)]
            _typed(module.swish, ("SiLU",))
            shortcut = conv(module.nin_shortcut) if module.in_channels != module.out_channels else None
            block = hunyuan.ResidualBlock(norms, [conv(module.conv1), conv(module.conv2)], shortcut)
            yield Place(name, module, block, 2, calls=Carried, begins=name == "up.0.block.0")
        elif kind == "UpSmpl":
            yield Place(name, module, hunyuan.Upsampling(conv(module.conv), 2 if module.tus else 1), 1, calls=Carried)
    norm = _typed(decoder.norm_out, ("RMS_norm",))
    yield Place("norm_out", norm, hunyuan.LastNorm(norm), 0, leaf=True)
    # Stock's, in stock's layout.
    yield Place("conv_out", decoder.conv_out, None, 0)


def _core_first_hunyuan(decoder: Any, _variant: None) -> Iterator[Place]:
    if not decoder.carried:
        raise Unknown("there are no blocks for a decoder of images, or one that carries nothing on")

    def conv(module: Any) -> Any:
        return _typed(_typed(module, ("CarriedConv3d",)).conv, ("Conv3d",))

    # What comes before them, at the latent's resolution, runs once for the whole clip: stock's.
    last = len(decoder.up) - 1
    for name, module in decoder.up.named_modules(prefix="up"):
        kind = type(module).__name__
        if kind == "ResnetBlock":
            if module.use_conv_shortcut or hasattr(module, "temb_proj"):
                raise Unknown("a part of the decoder has a shortcut that is carried on, or is told a time step")
            norms = [_typed(norm, ("GroupNorm",)) for norm in (module.norm1, module.norm2)]
            _typed(module.swish, ("SiLU",))
            shortcut = conv(module.nin_shortcut) if module.in_channels != module.out_channels else None
            block = hunyuan.ResidualBlock(norms, [conv(module.conv1), conv(module.conv2)], shortcut)
            yield Place(name, module, block, 2, calls=Carried, begins=name == f"up.{last}.block.0")
        elif kind == "Upsample":
            if not module.with_conv or module.scale_factor not in (2.0, (1.0, 2.0, 2.0)):
                raise Unknown(f"a part of the decoder scales by {module.scale_factor}")
            times = 2 if module.scale_factor == 2.0 else 1
            yield Place(name, module, hunyuan.Doubling(conv(module.conv), times), 1, calls=Carried)
    norm = _typed(decoder.norm_out, ("GroupNorm",))
    yield Place("norm_out", norm, hunyuan.LastNorm(norm), 0, leaf=True)
    # Stock's, in stock's layout.
    yield Place("conv_out", decoder.conv_out, None, 0)


def _core_seedvr2(decoder: Any, _variant: None) -> Iterator[Place]:
    def conv(module: Any) -> Any:
        if _typed(module, ("InflatedCausalConv3d",)).stride != (1, 1, 1):
            raise Unknown(f"a convolution of the decoder has a stride of {module.stride}")
        return module

    for name, module in decoder.named_modules():
        kind = type(module).__name__
        if kind == "ResnetBlock3D":
            if module.time_emb_proj is not None or module.output_scale_factor != 1.0:
                raise Unknown("a part of the decoder is told a time step, or scales its result")
            for norm in (module.norm1, module.norm2):
                _typed(norm, ("GroupNorm",))
            _typed(module.nonlinearity, ("SiLU",))
            conv(module.conv1), conv(module.conv2)
            if module.conv_shortcut is not None:
                conv(module.conv_shortcut)
            yield Place(name, module, seedvr.ResidualBlock(module), 2, calls=Keyed)
        elif kind == "Upsample3D":
            if not module.spatial_up:
                raise Unknown("a part of the decoder does not upsample")
            _typed(module.upscale_conv, ("Conv3d",)), conv(module.conv)
            yield Place(name, module, seedvr.Upsampling(module), 1, calls=Keyed)
        elif kind == "Attention":
            yield Place(name, module, None, 0)


def _core_ltx(decoder: Any, _variant: None) -> Iterator[Place]:
    def conv(module: Any) -> Any:
        if _typed(module, ("CausalConv3d",)).conv.padding_mode not in ("zeros", "reflect"):
            raise Unknown(f"a convolution of the decoder pads in the mode {module.conv.padding_mode}")
        return module

    def norm(module: Any) -> Any:
        if _typed(module, ("PixelNorm",)).dim != 1:
            raise Unknown("a norm of the decoder is not over its channels")
        return module

    for name, module in decoder.up_blocks.named_modules(prefix="up_blocks"):
        kind = type(module).__name__
        if kind == "ResnetBlock3D":
            if module.inject_noise:
                raise Unknown("there are no blocks for a decoder that draws noise")
            block = None
            if module.in_channels == module.out_channels:
                norm(module.norm1), norm(module.norm2), conv(module.conv1), conv(module.conv2)
                block = ltx.ResidualBlock(module, decoder.causal)
            yield Place(name, module, block, 0, calls=Remembered)
        elif kind == "DepthToSpaceUpsample":
            _, height, width = module.stride
            up = ltx.Upsampling(module, decoder.causal) if height == width and conv(module.conv) else None
            yield Place(name, module, up, 0, calls=Remembered)
    yield Place("conv_norm_out", decoder.conv_norm_out, ltx.LastNorm(norm(decoder.conv_norm_out)), 0, leaf=True)
    last = ltx.LastConv(conv(decoder.conv_out), decoder.causal)
    yield Place("conv_out", decoder.conv_out, last, 0, calls=Remembered)


def _wan_sources(prefix: str = "", decoder: str = "Decoder3d", more: tuple[str, ...] = ()) -> tuple[str, ...]:
    classes = ("CausalConv3d", "RMS_norm", "Resample", "ResidualBlock", "AttentionBlock")
    return (
        *(f"{prefix}{name}.forward" for name in classes),
        f"{prefix}CausalConv3d.__init__",
        f"{decoder}.forward",
        *more,
    )


#: ComfyUI from 0.18.1 on; ComfyUI before; Diffusers.
_NEW, _OLD = Variant(trims=True, joins=False, wide=False), Variant(trims=False, joins=True, wide=False)
_DIFFUSERS = Variant(trims=False, joins=True, wide=True)

#: Families whose blocks are not used yet, by their module, and why. Tests and measurements empty it. (Of SeedVR2 the
#: cause may have been the strides of a single frame, see ``layout.channels_last``; no GPU has seen it since.)
DOUBTED = {
    "comfy.ldm.seedvr.vae": "SeedVR2's blocks are not used yet: on a GPU they gave other frames where both the height "
    "and the width of the latent are odd"
}

FAMILIES = (
    Family(
        "comfy.ldm.wan.vae",
        "Decoder3d",
        _wan_sources(more=("Decoder3d.run_up",)),
        {
            **dict.fromkeys(("aeec69012ba8556f28bbc32d", "a882f0aeb23e2d70ad5422d7"), _NEW),
            **dict.fromkeys(("669cec834039abc149a713f9", "0bcc73abfa7bae63bc8cf5ce"), _OLD),
        },
        _core_wan,
    ),
    Family(
        "comfy.ldm.wan.vae2_2",
        "Decoder3d",
        _wan_sources(more=("Up_ResidualBlock.forward", "DupUp3D.forward")),
        {
            **dict.fromkeys(
                ("39dc596508d64e417e3328bd", "839ffb23ec1aee096108deaa"), Variant(trims=True, joins=True, wide=False)
            ),
            **dict.fromkeys(("aa0a703dcd2e16762b229c65", "c238f65056f3b09d2e3f0608"), _OLD),
        },
        _core_wan,
    ),
    Family(
        "diffusers.models.autoencoders.autoencoder_kl_wan",
        "WanDecoder3d",
        _wan_sources(
            "Wan",
            "WanDecoder3d",
            ("WanMidBlock.forward", "WanUpBlock.forward", "WanResidualUpBlock.forward", "DupUp3D.forward"),
        ),
        dict.fromkeys(("a443186efb3ccdc63cf93d2a", "cc8352537411787b36a12bf8"), _DIFFUSERS),
        _diffusers_wan("Wan"),
    ),
    Family(
        "diffusers.models.autoencoders.autoencoder_kl_qwenimage",
        "QwenImageDecoder3d",
        _wan_sources("QwenImage", "QwenImageDecoder3d", ("QwenImageMidBlock.forward", "QwenImageUpBlock.forward")),
        dict.fromkeys(("6be6a7ee1a4e29980a66e4a7", "57599e6a5f45d80f295bb3ec"), _DIFFUSERS),
        _diffusers_wan("QwenImage"),
    ),
    Family(
        "comfy.ldm.hunyuan_video.vae_refiner",
        "Decoder",
        (
            *(f"{name}.forward" for name in ("RMS_norm", "ResnetBlock", "CarriedConv3d", "UpSmpl", "Decoder")),
            *(f"{name}.__init__" for name in ("RMS_norm", "CarriedConv3d", "UpSmpl")),
            "conv_carry_causal_3d",
            "torch_cat_if_needed",
        ),
        dict.fromkeys(("4ac6cba64fdc6939ff4bc570", "94e78c4e9077ffc1694fb1d5")),
        _core_hunyuan,
    ),
    Family(
        "comfy.ldm.modules.diffusionmodules.model",
        "Decoder",
        (
            *(f"{name}.forward" for name in ("ResnetBlock", "CarriedConv3d", "Upsample", "Decoder")),
            *(f"{name}.__init__" for name in ("ResnetBlock", "CarriedConv3d", "Upsample")),
            *("conv_carry_causal_3d", "interpolate_up", "nonlinearity", "torch_cat_if_needed"),
        ),
        dict.fromkeys(("b26ff562ce88cfdbc0935de7", "8ac90b08e63f00f2db16f412")),
        _core_first_hunyuan,
    ),
    Family(
        "comfy.ldm.seedvr.vae",
        "Decoder3D",
        (
            *(f"{name}.forward" for name in ("ResnetBlock3D", "Upsample3D", "UpDecoderBlock3D", "UNetMidBlock3D")),
            *("Decoder3D.forward", "Attention.forward", "causal_norm_wrapper", "ignore_padding"),
            *(f"InflatedCausalConv3d.{name}" for name in ("__init__", "forward", "basic_forward", "slicing_forward")),
            *(f"InflatedCausalConv3d.{name}" for name in ("_conv_forward", "memory_limit_conv")),
            *("get_cache_size", "cache_send_recv", "extend_head", "remove_head"),
        ),
        dict.fromkeys(("ecc16d8ac35a333df523e7bc", "e62b95029926fd02b0cb7492")),
        _core_seedvr2,
    ),
    Family(
        "comfy.ldm.lightricks.vae.causal_video_autoencoder",
        "Decoder",
        (
            *(f"Decoder.{name}" for name in ("forward", "forward_orig", "run_up")),
            *(f"{name}.forward" for name in ("UNetMidBlock3D", "ResnetBlock3D", "DepthToSpaceUpsample", "PixelNorm")),
            "DepthToSpaceUpsample.__init__",
            *(f"CausalConv3d.{name}" for name in ("__init__", "forward", "_empty_output")),
            *("add_exchange_cache", "split2", "mark_conv3d_ended", "torch_cat_if_needed"),
        ),
        dict.fromkeys(("016db6a4c09b59d02ce22af4", "ac9b40ec1a3ca81ae6865118")),
        _core_ltx,
    ),
)
