"""An audit that finds a difference: the step is made anew by stock's code, with all that was kept before it."""

from __future__ import annotations

import gc
import importlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.decoder_on_cpu import let_it_run

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from async_decode.decoders import faster, step, wan  # noqa: E402
from async_decode.decoders.audit import Auditor  # noqa: E402
from async_decode.decoders.call import Cached  # noqa: E402
from async_decode.decoders.history import History, note  # noqa: E402
from async_decode.decoders.place import Place  # noqa: E402

CPU = torch.device("cpu")
#: Steps of a clip: the first three differ from each other and from the others.
STEPS = 6
#: All of them are wrong once one is; the audited one is the last but one of what the step calls.
BAD = 4
AUDITED = "up_blocks.2.upsamplers.0#0"


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    made = diffusers.AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    return made.eval().requires_grad_(False).to(torch.bfloat16)


@pytest.fixture
def latent() -> Tensor:
    return torch.randn(1, 4, STEPS, 3, 4, generator=torch.Generator().manual_seed(1)).bfloat16()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    let_it_run(importlib.import_module, monkeypatch.setattr)
    with torch.inference_mode():
        yield


@pytest.fixture
def goes_wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[type, int], bool]], None]:
    """Lets replaced blocks flip a bit from a step on, in which one of them is audited."""

    def begin(of: Callable[[type, int], bool]) -> None:
        began = {"step": 0}

        def choose(_self: Auditor, times: dict[str, float]) -> str | None:
            began["step"] += 1
            assert AUDITED in times
            return AUDITED if began["step"] == BAD else None

        monkeypatch.setattr(Auditor, "choose", choose)
        for kind in (wan.Upsampling, wan.ResidualBlock):
            honest = kind.run

            def wrong(self: Any, x: Tensor, kept: Any, operations: Any, kind: type = kind, honest: Any = honest) -> Any:
                out, keeps = honest(self, x, kept, operations)
                if began["step"] >= BAD and of(kind, x.shape[-1]):
                    out.view(torch.int16)[0, 0, 0, 0, 0] ^= 1
                return out, keeps

            monkeypatch.setattr(kind, "run", wrong)

    return begin


def same(one: Tensor, other: Tensor) -> bool:
    return bool(one.isfinite().all()) and torch.equal(one.view(torch.int16), other.view(torch.int16))


def test_step_is_made_anew_though_other_blocks_were_wrong_too(
    vae: Any, latent: Tensor, runs: None, goes_wrong: Any, tmp_path: Any
) -> None:
    expected = vae.decode(latent).sample
    with faster(vae, device=CPU, verdicts=tmp_path):
        vae.decode(latent)
    goes_wrong(lambda _kind, _width: True)

    with faster(vae, device=CPU, verdicts=tmp_path) as use:
        frames = vae.decode(latent).sample

    assert same(frames, expected)
    assert len(use.warnings) == 1 and "made anew" in use.warnings[0]
    assert "an audit of" in use._step.verdicts.out  # type: ignore[union-attr]


def test_rest_of_a_step_that_cannot_be_made_anew_is_stocks(
    vae: Any, latent: Tensor, runs: None, goes_wrong: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vae.decode(latent).sample
    with faster(vae, device=CPU, verdicts=tmp_path):
        vae.decode(latent)
    # The audited one and those behind it.
    goes_wrong(lambda kind, width: width >= (4 if kind is wan.Upsampling else 8) * latent.shape[-1])
    # As where the cache was parked in host memory in between.
    monkeypatch.setattr(step, "note", lambda *_: None)

    with faster(vae, device=CPU, verdicts=tmp_path) as use:
        frames = vae.decode(latent).sample

    assert len(use.warnings) == 1 and "from there on" in use.warnings[0]
    assert same(frames, expected)


@pytest.mark.parametrize("room", [True, False], ids=["room", "no room for both"])
def test_audit_holds_one_result_at_a_time(
    vae: Any, latent: Tensor, runs: None, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    expected = vae.decode(latent).sample
    for _ in range(2):
        # What is not confirmed yet is compared as well.
        with faster(vae, device=CPU, verdicts=tmp_path):
            vae.decode(latent)
    monkeypatch.setattr(Auditor, "choose", lambda _self, times: AUDITED if AUDITED in times else None)
    of_stock: list[Any] = []
    audits: list[int] = []
    audit, in_stock, run = Place._audit, Cached.in_stock, wan.Upsampling.run

    def audited(*call: Any) -> Any:
        audits.append(0)
        out = audit(*call)
        of_stock.clear()
        return out

    def noted(call: Cached, x: Tensor, kept: list[Any]) -> Any:
        out, after = in_stock(call, x, kept)
        of_stock[:] = [weakref.ref(one) for one in (out, *after) if isinstance(one, Tensor) and one is not x]
        return out, after

    def looks(block: Any, x: Tensor, kept: list[Any], operations: Any) -> Any:
        if of_stock and audits and not audits[-1]:
            gc.collect()
            assert [one() for one in of_stock] == [None] * len(of_stock)
            audits[-1] = 1
            if not room:
                raise torch.cuda.OutOfMemoryError("no room")
        return run(block, x, kept, operations)

    monkeypatch.setattr(Place, "_audit", audited)
    monkeypatch.setattr(Cached, "in_stock", noted)
    monkeypatch.setattr(wan.Upsampling, "run", looks)
    with faster(vae, device=CPU, verdicts=tmp_path) as use:
        frames = vae.decode(latent).sample

    assert audits == [1] * STEPS
    assert same(frames, expected) and not use.warnings


def test_nothing_of_a_clip_is_held_after_it(vae: Any, latent: Tensor, runs: None) -> None:
    inputs: list[Any] = []
    with faster(vae, device=CPU) as use:
        decode = use._step.stock  # type: ignore[union-attr]

        def noted(x: Tensor, *arguments: Any, **named: Any) -> Any:
            inputs.append(weakref.ref(x))
            return decode(x, *arguments, **named)

        use._step.stock = noted  # type: ignore[union-attr]
        vae.decode(latent)
    gc.collect()
    assert len(inputs) == STEPS and all(one() is None for one in inputs)


def decoder(x: int, feat_cache: list[Any], feat_idx: list[int]) -> int:
    """Keeps the sum of what it was given, and how often it was called."""
    before = feat_cache[0]
    feat_cache[0] = torch.tensor(x) if before is None else before + x
    feat_cache[1] = "second" if feat_cache[1] == "first" else "first"
    feat_idx[0] += 2
    return int(feat_cache[0])


def stepped(cache: list[Any], *inputs: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for x in inputs:
        told = {"x": x, "feat_cache": cache, "feat_idx": [0]}
        steps = History.of(told)
        decoder(**told)
        note(steps, cache)
    return told


def test_clips_in_turn_have_their_own_history() -> None:
    one, other = [None, None], [None, None]
    stepped(one, 1), stepped(other, 10), stepped(one, 2), stepped(other, 20)
    told = {"x": 3, "feat_cache": one, "feat_idx": [0]}
    steps = History.of(told)
    assert steps is not None
    one[:] = [torch.tensor(-1), "broken"]
    told["feat_idx"] = [7]
    polled: list[int] = []

    assert steps.again(decoder, told, lambda: polled.append(1)) == 6

    assert int(one[0]) == 6 and one[1] == "first"
    assert told["feat_idx"] == [2] and len(polled) == 3
    assert int(other[0]) == 30


def test_cache_of_which_nobody_knows_the_steps_has_no_history() -> None:
    cache: list[Any] = [torch.tensor(1), "first"]
    assert History.of({"x": 1, "feat_cache": cache, "feat_idx": [0]}) is None
    stepped(cache, 1, 2)
    assert History.of({"x": 1, "feat_cache": cache, "feat_idx": [0]}) is None
    assert History.of({"x": 1}) is not None
