"""What was proven is computed in both ways once more where its neighbours are replaced, too: in its first use."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.decoder_on_cpu import let_it_run

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

from async_decode.decoders import faster, place, step, verdicts, wan  # noqa: E402
from async_decode.decoders.audit import Auditor  # noqa: E402
from async_decode.decoders.call import Cached  # noqa: E402
from async_decode.decoders.place import difference  # noqa: E402
from async_decode.decoders.use import DecoderUse  # noqa: E402
from async_decode.decoders.verdicts import Verdicts, digest  # noqa: E402

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
#: Steps of a clip: the first ones differ from each other and from the last two, which are alike.
STEPS = 6


def made() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    return vae.eval().requires_grad_(False).to(torch.bfloat16)


@pytest.fixture(scope="module")
def vae() -> Any:
    return made()


def latent_of(height: int = 3, width: int = 4) -> Tensor:
    return torch.randn(1, 4, STEPS, height, width, generator=torch.Generator().manual_seed(1)).bfloat16()


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    let_it_run(importlib.import_module, monkeypatch.setattr)
    monkeypatch.setattr(Auditor, "choose", lambda _self, _times: None)
    with torch.inference_mode():
        yield


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The places that were computed in both ways."""
    names: list[str] = []
    audit = place.Place._audit

    def noted(self: Any, *call: Any) -> Tensor:
        names.append(self.name)
        return audit(self, *call)

    monkeypatch.setattr(place.Place, "_audit", noted)
    return names


def decoded(vae: Any, latent: Tensor, folder: Path) -> tuple[Tensor, DecoderUse]:
    with faster(vae, device=CPU, verdicts=folder) as use:
        frames = vae.decode(latent).sample
    return frames, use


def same(one: Tensor, other: Tensor) -> bool:
    return bool(one.isfinite().all()) and torch.equal(one.view(torch.int16), other.view(torch.int16))


def told(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.json")
    body: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["body"]
    return body


def of_neighbours(x: Tensor, _kept: list[Any]) -> bool:
    return x.stride(1) == 1


def of_its_own(_x: Tensor, kept: list[Any]) -> bool:
    return any(isinstance(one, Tensor) and one.stride(1) == 1 for one in kept)


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., bool]], None]:
    """Lets a bit of a block's result be wrong where what it gets lies as replaced blocks have it."""

    def begin(where: Callable[..., bool]) -> None:
        honest = wan.ResidualBlock.run

        def run(self: Any, x: Tensor, kept: list[Any], operations: Any) -> Any:
            flips = where(x, kept)
            out, keeps = honest(self, x, kept, operations)
            if flips:
                out.view(torch.int16)[0, 0, 0, 0, 0] ^= 1
            return out, keeps

        monkeypatch.setattr(wan.ResidualBlock, "run", run)

    return begin


@pytest.mark.parametrize("where", [of_neighbours, of_its_own])
@pytest.mark.parametrize("confirms", [True, False], ids=["confirmed", "never confirmed"])
def test_block_that_is_right_on_stocks_tensors_only_is_out_in_its_first_use(
    vae: Any, wrong: Any, where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, confirms: bool
) -> None:
    latent, other = latent_of(), latent_of(4, 5)
    expected, expected_of_other = vae.decode(latent).sample, vae.decode(other).sample
    wrong(where)
    if not confirms:
        monkeypatch.setattr(step.Step, "both_ways", lambda *_: False)

    frames, use = decoded(vae, latent, tmp_path)

    assert use._step is not None and use._step.tally.proven_steps == STEPS - 2
    assert same(frames, expected) is confirms
    if not confirms:
        # There is something to find.
        assert not use.warnings and not use._step.verdicts.out
        return
    (warning,) = use.warnings
    assert "resnets" in warning and "1 of its" in warning and "values differs" in warning
    # Not that block alone: of the others no more is known than was of it.
    for clip, right in ((latent, expected), (other, expected_of_other)):
        frames, use = decoded(vae, clip, tmp_path)
        assert same(frames, right)
        assert "the first use of" in use.summary and use._step is not None and not use._step.tally.places


def test_first_use_is_compared_once_and_other_processes_know(vae: Any, tmp_path: Path, compared: list[str]) -> None:
    expected, counts, summaries = vae.decode(latent_of()).sample, [], []
    for _ in range(3):
        compared.clear()
        frames, use = decoded(vae, latent_of(), tmp_path)
        assert same(frames, expected)
        counts.append(len(compared))
        summaries.append(use.summary)
    program = f"from tests.engine import {Path(__file__).stem} as me; me.another_process(me.Path({str(tmp_path)!r}))"

    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    # Of steps like the last two in the first clip, of the others in the next one.
    assert counts[0] > 0 and counts[1] > 0 and counts[2] == 0
    assert ["confirmed" in one for one in summaries] == [True, True, False]
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == {"compared": 0, "proven": 0, "equal": True}


def another_process(folder: Path) -> None:
    """Decodes the clip by what was proven and confirmed before; prints what was compared all the same."""
    let_it_run(importlib.import_module, setattr)
    names: list[str] = []
    audit = place.Place._audit
    Auditor.choose = lambda *_: None  # type: ignore[method-assign]
    place.Place._audit = lambda self, *call: (names.append(self.name), audit(self, *call))[1]  # type: ignore[method-assign]
    with torch.inference_mode():
        vae = made()
        expected = vae.decode(latent_of()).sample
        frames, use = decoded(vae, latent_of(), folder)
    assert use._step is not None
    found = {"compared": len(names), "proven": use._step.tally.proven_steps, "equal": same(frames, expected)}
    print(json.dumps(found))


def test_verdict_that_tells_nothing_of_its_use_is_as_none(vae: Any, tmp_path: Path) -> None:
    decoded(vae, latent_of(), tmp_path)
    (file,) = tmp_path.glob("*.json")
    body = told(tmp_path)
    assert Verdicts(tmp_path, body["environment"]).steps
    for one in body["verdicts"].values():
        del one["confirmed"]
    file.write_text(json.dumps({"form": 1, "sum": digest(body), "body": body}), encoding="utf-8")

    assert not Verdicts(tmp_path, body["environment"]).steps


def test_first_use_without_room_for_both_goes_on_and_is_tried_again_in_the_next_run(
    vae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: list[str]
) -> None:
    expected = vae.decode(latent_of()).sample
    decoded(vae, latent_of(), tmp_path)
    compared.clear()
    with monkeypatch.context() as patch:
        patch.setattr(place, "Fingerprint", no_room)
        frames, use = decoded(vae, latent_of(), tmp_path)
    tried = list(compared)
    compared.clear()
    again, confirmed = decoded(vae, latent_of(), tmp_path)

    assert same(frames, expected) and same(again, expected)
    assert "no memory for computing them in both ways" in use.summary and not use.warnings
    assert tried and sorted(compared) == sorted(tried)
    assert "no memory" not in confirmed.summary


def no_room(*_: Any) -> None:
    raise torch.cuda.OutOfMemoryError("no room")


@pytest.mark.parametrize("anew", [True, False], ids=["made anew", "frames have left"])
@pytest.mark.parametrize("times", [1, 2], ids=["until ours has gone", "not at all"])
def test_difference_is_noted_though_there_is_no_room_for_stocks_result_again(
    vae: Any, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool, times: int
) -> None:
    expected = vae.decode(latent_of()).sample
    wrong(of_neighbours)
    if not anew:
        # As where the cache was parked in host memory in between.
        monkeypatch.setattr(step, "note", lambda *_: None)
    in_stock, rule_out, run, left = Cached.in_stock, Verdicts.rule_out, wan.ResidualBlock.run, {"times": 0}
    ours: list[weakref.ref[Tensor]] = []

    def ruled_out(self: Verdicts, reason: str) -> None:
        if not self.out:
            left["times"] = times
        rule_out(self, reason)

    def cramped(self: Cached, x: Tensor, kept: list[Any]) -> Any:
        if left["times"]:
            left["times"] -= 1
            held.append(ours[-1]() is not None)
            no_room()
        return in_stock(self, x, kept)

    def noted(*call: Any) -> Any:
        out, keeps = run(*call)
        ours.append(weakref.ref(out))
        return out, keeps

    held: list[bool] = []
    monkeypatch.setattr(wan.ResidualBlock, "run", noted)
    monkeypatch.setattr(Verdicts, "rule_out", ruled_out)
    monkeypatch.setattr(Cached, "in_stock", cramped)

    if times == 2 and not anew:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            decoded(vae, latent_of(), tmp_path)
    else:
        frames, use = decoded(vae, latent_of(), tmp_path)
        assert same(frames, expected)
        assert len(use.warnings) == 1 and "its result differs" in use.warnings[0]
    assert "the first use of" in told(tmp_path)["out"]
    # In the second attempt, which steps that are made anew do not need, ours is not in memory.
    assert held == [True, False][: 2 if times == 2 and not anew else 1]


def test_difference_is_noted_before_anything_else_can_go_wrong(
    vae: Any, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong(of_neighbours)
    in_stock, rule_out = Cached.in_stock, Verdicts.rule_out
    found: list[str] = []
    monkeypatch.setattr(Verdicts, "rule_out", lambda self, reason: (found.append(reason), rule_out(self, reason))[1])

    def interrupted(self: Cached, x: Tensor, kept: list[Any]) -> Any:
        if found:
            # What follows in this process is not to be counted on.
            monkeypatch.setattr(Verdicts, "save", lambda _self: None)
            raise KeyboardInterrupt
        return in_stock(self, x, kept)

    monkeypatch.setattr(Cached, "in_stock", interrupted)

    with pytest.raises(KeyboardInterrupt):
        decoded(vae, latent_of(), tmp_path)
    assert told(tmp_path)["out"] == found[0] != ""


def test_difference_is_remembered_where_the_disk_takes_nothing(
    vae: Any, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = vae.decode(latent_of()).sample
    for _ in range(2):
        decoded(vae, latent_of(), tmp_path)
    wrong(of_neighbours)
    monkeypatch.setattr(Auditor, "choose", lambda _self, _times: "up_blocks.0.resnets.1#0")

    def full(**_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(verdicts.tempfile, "mkstemp", full)

    frames, use = decoded(vae, latent_of(), tmp_path)
    again, after = decoded(vae, latent_of(), tmp_path)

    assert same(again, expected) and len(use.warnings) == 1
    assert told(tmp_path)["out"] == "" and "an audit of" in after.summary
    assert frames.shape == expected.shape


@pytest.mark.parametrize(
    ("of_result", "of_kept", "words"),
    [
        (1, 0, "1 of its 2,400 values differs"),
        (2, 0, "2 of its 2,400 values differ"),
        (0, 1, "1 of 2,400 values that it keeps differs"),
        (0, 0, ""),
    ],
)
def test_difference_is_told_in_numbers(of_result: int, of_kept: int, words: str) -> None:
    stock = torch.ones(1, 2, 3, 20, 20, dtype=torch.bfloat16)
    ours, kept = stock.clone(), stock.clone()
    ours.view(torch.int16).flatten()[:of_result] ^= 1
    kept.view(torch.int16).flatten()[:of_kept] ^= 1

    assert difference(stock, ours, [stock], [kept]) == words
    assert difference(stock, ours[:, :, :2], [], []) == "its result has another shape or type"
