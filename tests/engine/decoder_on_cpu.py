"""The faster decoder without a card: the blocks with their proofs as they are, on a CPU.

Each kernel is its reference in plain torch, and a convolution rounds as cuDNN's does: before its bias is added too. So
a block meets stock's bits, and what can be tried is all that goes on around the kernels.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import types
from collections.abc import Callable
from typing import Any

import torch

DECODERS = "async_decode.decoders"


def let_it_run(module: Callable[[str], Any], put: Callable[[Any, str, Any], None]) -> None:
    """Let blocks run on a CPU in this process.

    Args:
        module: imports a module of the pack.
        put: sets an attribute of an object, such as ``setattr``, or pytest's, which puts it back.
    """
    if importlib.util.find_spec("triton") is None and "triton" not in sys.modules:
        sys.modules.update(_in_place_of_triton())
    norm, upsample, duplicate, residual, weights, conv, pad, space, shuffle, groups, moments, enlarge = (
        module(f"{DECODERS}.kernels.{name}")
        for name in (
            *("norm", "upsample", "duplicate", "residual", "weights_last"),
            *("conv", "pad", "depth_to_space", "pixel_shuffle"),
            *("group_norm", "moments", "enlarge"),
        )
    )
    use, operations, order = (module(f"{DECODERS}.{name}") for name in ("use", "operations", "kernels.order"))

    def norm_into(out: Any, x: Any, bias: Any, gamma: Any, formula: Any, order: Any, norms: Any) -> None:
        if order.kind != "given":
            # Torch adds.
            norms.fill_(torch.nan)
            return
        weights = None if gamma is None else gamma.flatten()
        made = norm.norm_reference(x, bias, weights, formula, norms.view(1, *x.shape[2:]))
        out.copy_(made) if out.shape == made.shape else pad_into(out, made, formula.reflects)

    def pad_into(out: Any, x: Any, reflects: bool = False) -> None:
        out.copy_(pad.padded_reference(x, out.shape[2] - x.shape[2], reflects))

    def add_residual(x: Any, *others: Any) -> Any:
        return x.copy_(residual.residual_reference(x, *others))

    def double(x: Any, bias: Any, frames: int) -> Any:
        return upsample.double_reference(x, bias, frames).contiguous(memory_format=torch.channels_last)

    def duplicated(*arguments: Any) -> Any:
        return duplicate.duplicate_reference(*arguments).contiguous(memory_format=torch.channels_last_3d)

    def depth_to_space(*arguments: Any) -> Any:
        return space.depth_to_space_reference(*arguments).contiguous(memory_format=torch.channels_last_3d)

    def pixel_shuffle(*arguments: Any) -> Any:
        return shuffle.pixel_shuffle_reference(*arguments).contiguous(memory_format=torch.channels_last_3d)

    def planes(x: Any, bias: Any, per_frame: bool) -> Any:
        x = x if bias is None else x + bias.view(1, -1, 1, 1, 1)
        return (x.transpose(1, 2).flatten(0, 1) if per_frame else x).flatten(2).contiguous()

    def group_norm_into(out: Any, x: Any, *arguments: Any) -> None:
        front = out.shape[2] - x.shape[2]
        out.copy_(groups.group_norm_reference(x, *arguments, front, out.shape != x.shape))

    def group_norm(x: Any, number: int, weight: Any, bias: Any, epsilon: float) -> Any:
        """Torch's of a CPU rounds in other places than a card's."""
        formula = order.GroupFormula(number, epsilon, silu=False, per_frame=True)
        mean, rstd = moments.moments_reference(x, number, float(torch.tensor(epsilon, dtype=x.dtype)))
        clip = x.reshape(1, *x.shape[:2], -1, 1).transpose(1, 2)
        made = groups.group_norm_reference(clip, None, (weight, bias), formula, mean, rstd, False, True)
        return made.transpose(1, 2).reshape(x.shape).contiguous()

    def enlarge_into(out: Any, x: Any, bias: Any, times: int, first: bool, *how: Any) -> None:
        front = out.shape[2] - (times * x.shape[2] - (times - 1 if first else 0))
        out.copy_(enlarge.enlarged_reference(x, bias, times, first, *how, front))

    put(norm, "norm_into", norm_into)
    put(groups, "group_norm_into", group_norm_into)
    put(moments, "moments", moments.moments_reference)
    put(moments, "planes", planes)
    put(enlarge, "enlarge_into", enlarge_into)
    put(operations, "moments_of_torch", moments.moments_reference)
    put(module(f"{DECODERS}.proof"), "moments_of_torch", moments.moments_reference)
    put(module(f"{DECODERS}.proof"), "rounds_moments", lambda _device, _dtype: False)
    put(operations, "fuses_summand", lambda _device, _dtype: True)
    put(torch.nn.functional, "group_norm", group_norm)
    put(pad, "pad_into", pad_into)
    put(space, "depth_to_space", depth_to_space)
    put(shuffle, "pixel_shuffle", pixel_shuffle)
    put(upsample, "double", double)
    put(duplicate, "duplicate", duplicated)
    put(residual, "add_residual", add_residual)
    put(weights, "weights_last", weights.weights_last_reference)
    put(conv, "fits", lambda _x, _weight: False)
    put(use, "why_not", lambda _device: "")
    for name in ("conv2d", "conv3d"):
        put(torch.nn.functional, name, _rounding(getattr(torch.nn.functional, name)))


def _rounding(convolve: Callable[..., Any]) -> Callable[..., Any]:
    """``convolve``, one of torch's functions, with its bias added to the rounded result.

    In float64, so that neither layout nor size decides how it is rounded.
    """

    def convolved(
        x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Any:
        axes = weight.ndim - 2
        steps, sides, gaps = (
            (one,) * axes if isinstance(one, int) else tuple(one) for one in (stride, padding, dilation)
        )
        if {*steps, *gaps, groups} == {1} and x.ndim == weight.ndim:
            out = _convolved(x.double(), weight.double(), sides).to(x.dtype)
        else:
            out = convolve(x.double(), weight.double(), None, stride, padding, dilation, groups).to(x.dtype)
        return out if bias is None else out + bias.view(-1, *(1,) * axes)

    return convolved


def _convolved(x: Any, weight: Any, sides: tuple[int, ...]) -> Any:
    """A convolution as a matrix product for each place of its kernel: in float64 torch's own takes many times as long.

    ``sides``: zeros on both sides of each axis.
    """
    x = torch.nn.functional.pad(x, [side for one in reversed(sides) for side in (one, one)])
    sizes = [size - kernel + 1 for size, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)]
    # Channels in front of the clips.
    x, out = x.transpose(0, 1), None
    for place in itertools.product(*map(range, weight.shape[2:])):
        seen = x[(..., *(slice(at, at + size) for at, size in zip(place, sizes, strict=True)))].reshape(len(x), -1)
        taps = weight[(..., *place)]
        out = taps @ seen if out is None else out.addmm_(taps, seen)
    return out.view(len(weight), -1, *sizes).transpose(0, 1).contiguous()


def _in_place_of_triton() -> dict[str, types.ModuleType]:
    """What the files of the kernels need to be imported."""
    names = ("triton", "triton.language", "triton.language.extra")
    triton, language, extra = (types.ModuleType(name) for name in names)
    vars(triton).update(jit=_jit, language=language, __version__="none")
    vars(extra).update(libdevice=None)
    return dict(zip(names, (triton, language, extra), strict=True))


def _jit(kernel: Any = None, **_options: Any) -> Any:
    """In place of Triton's decorator, with options or without: nothing of it is run."""
    return kernel if kernel is not None else lambda function: function
