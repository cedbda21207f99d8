"""Where a block gets a convolution's weights from, and when it may keep a copy of them in another layout."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

pytest.importorskip("triton.language.extra.libdevice", reason="Triton 3.0 or newer is not installed")

from async_decode.decoders import weights as weights_file
from async_decode.decoders.weights import Weights, why_not

X = torch.zeros(1, 4, 3, 2, 2)


class Core:
    """What a ComfyUI does to fetch weights: fresh ones each time, which are gone when they are given back."""

    def __init__(self, *, gives_back: bool) -> None:
        self.lent: list[Any] = []
        self.module: Any = types.ModuleType("custom.comfy.ops")
        self.module.cast_bias_weight = self._with_ticket if gives_back else self._fetch
        if gives_back:
            self.module.uncast_bias_weight = self._give_back

    def _fetch(self, module: Any, x: torch.Tensor) -> Any:
        assert x is X
        return module.weight.clone(), module.bias.clone()

    def _with_ticket(self, module: Any, x: torch.Tensor, offloadable: bool = False) -> Any:
        assert offloadable
        weight, bias = self._fetch(module, x)
        self.lent.append(weight)
        return weight, bias, (weight, bias)

    def _give_back(self, module: Any, weight: torch.Tensor, bias: torch.Tensor, ticket: Any) -> None:
        assert ticket[0] is weight and ticket[1] is bias
        self.lent.remove(weight)


def conv(**attributes: Any) -> Any:
    kind = type("Conv3d", (torch.nn.Conv3d,), {"__module__": "custom.comfy.ops"})
    made = kind(4, 6, 3).requires_grad_(False)
    vars(made).update(attributes)
    return made


def taken(weights: Weights, module: Any) -> torch.Tensor:
    """What is lent, its address noted, compared with what it has to be."""
    with weights.of(module, X) as (weight, _bias):
        assert torch.equal(weight, module.weight)
        assert weight.is_contiguous(memory_format=torch.channels_last_3d)
        return weight


def test_copy_is_kept_from_the_second_call_on_until_it_is_cleared() -> None:
    weights, module = Weights(), conv()

    first, second, third = (taken(weights, module) for _ in range(3))

    assert first is not second and second is third
    assert weights.nbytes == module.weight.nbytes
    weights.clear()
    assert weights.nbytes == 0
    assert taken(weights, module) is not third


def test_copy_of_a_weight_that_has_changed_is_not_used() -> None:
    weights, module = Weights(), conv()
    for _ in range(2):
        taken(weights, module)

    module.weight.mul_(2)
    for _ in range(2):
        taken(weights, module)
    module.weight = torch.nn.Parameter(module.weight * 2, requires_grad=False)
    for _ in range(2):
        taken(weights, module)
    module.weight.data = module.weight.data * 2
    for _ in range(2):
        taken(weights, module)

    assert weights.nbytes == module.weight.nbytes


def test_no_more_is_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = conv(), conv()
    monkeypatch.setattr(weights_file, "MAX_WEIGHT_BYTES", one.weight.nbytes)
    weights = Weights()
    for _ in range(3):
        taken(weights, one), taken(weights, other)
    assert weights.nbytes == one.weight.nbytes


@pytest.mark.parametrize("gives_back", [False, True])
def test_fetched_weights_are_asked_of_core_and_given_back_whatever_happens(
    gives_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, weights = Core(gives_back=gives_back), Weights()
    monkeypatch.setitem(sys.modules, "custom.comfy.ops", core.module)
    module = conv(comfy_cast_weights=True)

    for _ in range(3):
        taken(weights, module)
    with pytest.raises(ZeroDivisionError), weights.of(module, X, last=True) as (weight, bias):
        assert torch.equal(weight, module.weight[:, :, -1:])
        assert bias is not module.bias and torch.equal(bias, module.bias)
        assert len(core.lent) == int(gives_back)
        1 / 0  # noqa: B018

    assert core.lent == []
    # Core keeps none of them.
    assert weights.nbytes == 0


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, ""),
        ({"comfy_cast_weights": True, "weight_function": []}, ""),
        ({"weight_function": [abs]}, "patched on use"),
        ({"bias_lowvram_function": abs}, "patched on use"),
    ],
)
def test_what_is_patched_on_use_is_left_alone(
    attributes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "custom.comfy.ops", Core(gives_back=True).module)
    reason = why_not(conv(**attributes), X)
    assert words in reason and bool(words) == bool(reason)


def test_weights_elsewhere_are_for_core_to_fetch_and_of_the_frames_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "custom.comfy.ops", Core(gives_back=True).module)

    assert why_not(conv().to("meta"), X) == "its weights are on meta, its frames on cpu"
    assert why_not(conv(comfy_cast_weights=True).to("meta"), X) == ""
    assert why_not(conv(comfy_cast_weights=True).half(), X) == (
        "its weights are torch.float16 and converted on use, its frames torch.float32"
    )
    monkeypatch.delattr(sys.modules["custom.comfy.ops"], "cast_bias_weight")
    assert "not known" in why_not(conv(comfy_cast_weights=True), X)
