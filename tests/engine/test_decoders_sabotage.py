"""A replacement that is wrong in ways that are easily overlooked: proof or audit finds out, the frames are stock's.

On a GPU, where cuDNN's bits are what is to be met.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from async_decode.decoders import faster, wan  # noqa: E402
from async_decode.decoders.audit import Auditor  # noqa: E402
from async_decode.decoders.kernels import norm, residual  # noqa: E402
from async_decode.decoders.kernels.order import Order  # noqa: E402
from async_decode.decoders.use import DecoderUse  # noqa: E402

DEVICE = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    made = diffusers.AutoencoderKLWan(base_dim=32, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    return made.eval().requires_grad_(False).to(DEVICE, torch.bfloat16)


@pytest.fixture
def latent() -> Tensor:
    return torch.randn(1, 4, 5, 16, 24, generator=torch.Generator().manual_seed(1)).to(DEVICE, torch.bfloat16)


@pytest.fixture
def decoded(vae: Any, latent: Tensor) -> Iterator[Callable[[Path | None], tuple[bool, DecoderUse]]]:
    """Decodes; says whether the frames are stock's, and what was used."""
    with torch.inference_mode():
        expected = vae.decode(latent).sample

        def decode(verdicts: Path | None) -> tuple[bool, DecoderUse]:
            with faster(vae, device=DEVICE, verdicts=verdicts) as use:
                frames = vae.decode(latent).sample
            return torch.equal(frames.view(torch.int16), expected.view(torch.int16)), use

        yield decode


def told(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.json")
    body: dict[str, Any] = json.loads(file.read_text())["body"]
    return body


def test_whole_decoder_is_replaced_when_nothing_is_wrong(decoded: Any, tmp_path: Path) -> None:
    equal, first = decoded(tmp_path)
    assert equal, first.summary
    equal, use = decoded(tmp_path)
    assert equal, use.summary
    assert "steps were" in first.summary and "steps were" not in use.summary
    assert all(one["proven"] or one["reason"] == "left as it is" for one in told(tmp_path)["verdicts"].values())


def test_norm_that_adds_in_another_order(decoded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = norm.norm_into

    def other_order(out: Tensor, x: Tensor, bias: Any, gamma: Any, formula: Any, order: Order, norms: Tensor) -> None:
        wrong = {4: 16, 8: 1, 16: 4, 1: 8}.get(order.width, 0) if order.kind == "strided" else 0
        honest(out, x, bias, gamma, formula, Order("strided", wrong) if wrong else order, norms)

    monkeypatch.setattr(norm, "norm_into", other_order)
    # Nobody finds the right order under a wrong name.
    monkeypatch.setattr("async_decode.decoders.proof.ORDERS", (Order("strided", 4),))

    for _ in range(2):
        equal, use = decoded(tmp_path)
        assert equal, use.summary
    strided = [o for one in told(tmp_path)["verdicts"].values() for o in one["orders"] if o[0] == "strided"]
    assert not strided, "the wrong order was taken for stock's"


def test_sum_that_is_rounded_once(decoded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def once(x: Tensor, bias: Tensor | None, y: Tensor | None = None, y_bias: Tensor | None = None) -> Tensor:
        wide = x.float()
        for one in (bias, y_bias):
            wide = wide if one is None else wide + one.float().view(1, -1, *(1,) * (x.ndim - 2))
        return (wide if y is None else wide + y.float()).to(x.dtype)

    monkeypatch.setattr(residual, "add_residual", once)

    for _ in range(2):
        equal, use = decoded(tmp_path)
        assert equal, use.summary
    reasons = [one["reason"] for one in told(tmp_path)["verdicts"].values()]
    assert any(" values differ" in reason for reason in reasons)


def test_cache_that_is_stale(decoded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last: dict[tuple[int, ...], Tensor] = {}
    honest = wan._end_of

    def stale(x: Tensor, count: int) -> Tensor:
        new = honest(x, count)
        return last.setdefault(tuple(new.shape), new.clone(memory_format=torch.channels_last_3d))

    monkeypatch.setattr(wan, "_end_of", stale)

    for _ in range(2):
        equal, use = decoded(tmp_path)
        assert equal, use.summary
    assert any("keep" in one["reason"] for one in told(tmp_path)["verdicts"].values())


def test_kernel_that_goes_wrong_after_its_proof_is_found_by_an_audit_and_out_for_good(
    decoded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        decoded(tmp_path)
    with monkeypatch.context() as patch:
        honest = wan.Upsampling.run

        def flips_one(self: Any, x: Tensor, kept: Any, operations: Any) -> Any:
            out, keeps = honest(self, x, kept, operations)
            out.view(torch.int16)[0, 0, 0, 0, 0] ^= 1
            return out, keeps

        patch.setattr(wan.Upsampling, "run", flips_one)
        patch.setattr(
            Auditor, "choose", lambda _self, times: next(name for name in sorted(times) if "upsampler" in name)
        )
        # Only the place that is audited is wrong: an audit says nothing of the others.
        patch.setattr(wan.Upsampling, "__init__", _honest_but_first(wan.Upsampling.__init__, honest), raising=True)
        equal, use = decoded(tmp_path)
    assert equal, use.summary
    assert len(use.warnings) == 1 and "out on this machine" in use.warnings[0]
    equal, use = decoded(tmp_path)
    assert equal and "an audit of" in use.summary


def _honest_but_first(make: Any, honest: Any) -> Any:
    """The constructor of upsampling blocks, of which only the first one made is wrong."""
    made = []

    def constructor(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        if made:
            self.run = honest.__get__(self)
        made.append(self)

    return constructor


@pytest.mark.parametrize("damage", ["", "{", '{"form": 1, "sum": "x", "body": {}}'])
def test_damaged_verdicts_are_as_none(decoded: Any, tmp_path: Path, damage: str) -> None:
    decoded(tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_text(damage)

    equal, use = decoded(tmp_path)

    assert equal
    assert "to prove them" in use.summary


def test_verdict_that_somebody_changed_is_not_believed(decoded: Any, tmp_path: Path) -> None:
    decoded(tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_text(file.read_text().replace('"proven": false', '"proven": true'))

    equal, use = decoded(tmp_path)

    assert equal
    assert "to prove them" in use.summary


def test_everything_is_put_back(vae: Any, decoded: Any, tmp_path: Path) -> None:
    decoded(tmp_path)
    assert not any("forward" in vars(module) for module in vae.modules())
