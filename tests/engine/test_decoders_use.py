"""Where the faster decoder cannot run, stock's does, and the report says why; nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from async_decode import FramePipeline, VideoDecoder, choose_tap
from async_decode.decoders import faster, use
from async_decode.decoders.audit import BUDGET, Auditor
from async_decode.decoders.layout import Layout, channels_last
from tests.engine.toy import CollectSink

CPU = torch.device("cpu")


class Toy(torch.nn.Module):
    """A VAE that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = torch.nn.Conv3d(3, 3, 1)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return self.decoder(latent)


@pytest.mark.parametrize(("mode", "words"), [("auto", "it runs on cpu"), ("stock", "as asked for")])
def test_report_says_why_it_was_stocks(mode: Any, words: str) -> None:
    model = Toy().eval().requires_grad_(False)
    decoder = VideoDecoder(model=model, decode=model.decode, device=CPU, dtype=torch.float32)

    with FramePipeline([CollectSink()]) as pipeline:
        pipeline.decode(choose_tap(decoder), torch.rand(1, 3, 2, 4, 4), decoder=mode)

    assert pipeline.report.decoder.startswith("stock's: ") and words in pipeline.report.decoder
    assert words in str(pipeline.report)
    assert pipeline.report.to_json()["decoder"] == pipeline.report.decoder


def test_unknown_decoder_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "why_not", lambda device: "")
    model = Toy()
    with faster(model, device=CPU) as used:
        assert not any("forward" in vars(module) for module in model.modules())
    assert "no blocks for Toy" in used.summary


def test_decoder_that_somebody_patched_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
    monkeypatch.setattr(use, "why_not", lambda device: "")
    vae = diffusers.AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    block = vae.decoder.mid_block.resnets[0]
    theirs = block.forward = lambda *arguments, **named: None

    with faster(vae, device=CPU) as used:
        assert block.forward is theirs

    assert "changed" in used.summary
    assert block.forward is theirs


@pytest.mark.parametrize("transposed", [False, True])
def test_layout_is_made_again(transposed: bool) -> None:
    whole = torch.rand(1, 6, 5, 4, 3)
    there = whole[:, :, 1:3]
    there = there.transpose(3, 4) if transposed else there
    here = there.contiguous(memory_format=torch.channels_last_3d)

    dressed = Layout.of(there).applied_to(here)

    assert torch.equal(dressed, there)
    assert (dressed.stride(), dressed.shape) == (there.stride(), there.shape)
    assert dressed.data_ptr() % 16 == there.data_ptr() % 16
    assert Layout.from_json(Layout.of(there).to_json()) == Layout.of(there)


@pytest.mark.parametrize("frames", [1, 2])
def test_channels_last_has_the_strides_of_a_new_tensor_where_an_axis_is_one(frames: int) -> None:
    """As behind SeedVR2's attention, and behind an upsampling of Wan's: torch takes another kernel for such strides."""
    clip = torch.rand(frames, 15, 8).transpose(1, 2).reshape(frames, 8, 3, 5)
    new = torch.empty(1, 8, frames, 3, 5, memory_format=torch.channels_last_3d)
    attended, upsampled = clip.reshape(1, frames, 8, 3, 5).transpose(1, 2), clip.permute(1, 0, 2, 3).unsqueeze(0)
    assert upsampled.stride() != new.stride() and (attended.stride() != new.stride()) is (frames == 1)

    for one in (attended, upsampled, new):
        made = channels_last(one)

        assert made.stride() == new.stride() and torch.equal(made, one)
        assert made.data_ptr() == one.data_ptr()


def test_audits_stay_within_their_budget_and_choose_other_places() -> None:
    times = {f"place {number}": 1.0 + number for number in range(12)}
    chosen: set[str] = set()
    for seed in range(40):
        auditor, spent = Auditor(seed), 0.0
        for _ in range(50):
            name = auditor.choose(times)
            spent += 0.0 if name is None else times[name]
            chosen |= {name} - {None} if name else set()
        assert auditor.audited > 0
        assert spent <= BUDGET * 50 * sum(times.values())
    assert len(chosen) == len(times)


def test_model_that_cannot_be_read_is_decoded_by_stocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_model: torch.nn.Module) -> None:
        raise AttributeError("no head")

    monkeypatch.setattr(use, "why_not", lambda device: "")
    monkeypatch.setattr(use, "find", broken)
    with faster(Toy(), device=CPU) as used:
        pass
    assert "could not be made ready" in used.summary and "no head" in used.summary
