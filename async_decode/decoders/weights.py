"""The weights of a convolution, as stock's own forward would have them at this very call; and channels last.

ComfyUI may keep a module's weights elsewhere and fetch them when they are used: its low and its dynamic VRAM. Then they
are asked of ComfyUI's own function, once a convolution as stock's forward asks it, and given back right after it, so
that the numbers, the traffic and the times at which memory is free again are stock's. Nothing of ComfyUI is imported:
its function is found beside the class that a module is of.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Bytes of weights in channels last that are kept beside the model's own during a run; others are made at each call.
MAX_WEIGHT_BYTES = 64 * 1024**2

#: What ComfyUI does to weights each time that they are used.
_PATCHES = ("weight_function", "bias_function", "weight_lowvram_function", "bias_lowvram_function")


def why_not(part: torch.nn.Module, x: Tensor) -> str:
    """Why blocks cannot use the weights of ``part`` on ``x`` as things are now; empty where they can."""
    if any(getattr(part, name, None) for name in _PATCHES):
        return "its weights are patched on use"
    fetched = _is_fetched(part)
    if fetched and not hasattr(home_of(type(part)), "cast_bias_weight"):
        return "its weights are fetched on use in a way that is not known"
    for weight in part._parameters.values():
        if weight is None:
            continue
        if type(weight) not in (torch.nn.Parameter, Tensor):
            return f"its weights are of the kind {type(weight).__name__}"
        if weight.dtype != x.dtype:
            converted = " and converted on use" if fetched else ""
            return f"its weights are {weight.dtype}{converted}, its frames {x.dtype}"
        if weight.device != x.device and not fetched:
            return f"its weights are on {weight.device}, its frames on {x.device}"
    return ""


@contextmanager
def lent(module: Any, x: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The weight and the bias of ``module``, a convolution, for ``x``: to be used within the ``with`` block only."""
    if not _is_fetched(module):
        yield module.weight, module.bias
        return
    home: Any = home_of(type(module))
    give_back = getattr(home, "uncast_bias_weight", None)
    if give_back is None:
        # Older ones leave it to the caller to let them go.
        weight, bias = home.cast_bias_weight(module, x)
        yield weight, bias
        return
    weight, bias, ticket = home.cast_bias_weight(module, x, offloadable=True)
    try:
        yield weight, bias
    finally:
        give_back(module, weight, bias, ticket)


def home_of(kind: type) -> Any:
    """The Python module that has ComfyUI's operations, if ``kind`` is derived from one; else that of ``kind``."""
    homes = [base.__module__ for base in kind.__mro__]
    return sys.modules.get(next((home for home in homes if home.endswith("comfy.ops")), homes[0]))


def _is_fetched(module: torch.nn.Module) -> bool:
    return bool(getattr(module, "comfy_cast_weights", False))


@dataclass
class _Copy:
    """Which weight was seen last, and, from the second time on, that weight in channels last."""

    source: weakref.ref[Tensor]
    state: tuple[int, int]
    made: Tensor | None = None

    def is_of(self, weight: Tensor) -> bool:
        """Whether it is of this very tensor, unchanged."""
        return self.source() is weight and self.state == _state_of(weight)


class Weights:
    """Weights in channels last, for the time of a run.

    A copy is kept of a tensor that is there at the second call still: that one is the model's own, or stays where
    ComfyUI has fetched it to. Of another one, as of one that has changed, a copy is made at each call.
    """

    def __init__(self) -> None:
        self._copies: dict[int, _Copy] = {}
        #: Bytes of the copies that are kept.
        self.nbytes = 0

    @contextmanager
    def of(self, module: Any, x: Tensor, last: bool = False) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The weight of ``module``, ``(N, C, …)``, channels last, and its bias; see ``lent``.

        Args:
            module: a convolution.
            x: what is convolved.
            last: only the last slice in time.
        """
        with lent(module, x) as (weight, bias):
            wanted = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
            if last:
                yield _last(weight, wanted, last), bias
            elif weight.is_contiguous(memory_format=wanted):
                yield weight, bias
            else:
                yield self._copy(module, weight, wanted), bias

    def clear(self) -> None:
        """Give back what is kept."""
        self._copies.clear()
        self.nbytes = 0

    def _copy(self, module: Any, weight: Tensor, wanted: torch.memory_format) -> Tensor:
        known = self._copies.get(id(module))
        if known is None or not known.is_of(weight):
            if known is not None and known.made is not None:
                self.nbytes -= known.made.nbytes
            self._copies[id(module)] = _Copy(weakref.ref(weight), _state_of(weight))
            return _last(weight, wanted)
        if known.made is not None:
            return known.made
        made = _last(weight, wanted)
        if self.nbytes + made.nbytes <= MAX_WEIGHT_BYTES:
            known.made = made
            self.nbytes += made.nbytes
        return made


def _last(weight: Tensor, wanted: torch.memory_format, last: bool = False) -> Tensor:
    """``weight``, or its last slice in time, in the memory format ``wanted``."""
    if not weight.is_contiguous():
        return (weight[:, :, -1:] if last else weight).contiguous(memory_format=wanted)
    from .kernels.weights_last import weights_last

    return weights_last(weight, last)


def _state_of(weight: Tensor) -> tuple[int, int]:
    """What changes with a tensor's place or numbers; those of an inference tensor have no count of changes."""
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version
