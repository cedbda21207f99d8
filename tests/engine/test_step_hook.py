"""What a step hook takes for frames must be what the model's own decode returns: its pieces, one behind the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from async_decode import DecodeError, FramePipeline, choose_tap
from tests.engine.toy import CollectSink, ToyVAE, stock_frames, toy_latent

AFTERWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "drops its first piece": lambda frames: frames[:, :, 1:],
    "drops its last frame": lambda frames: frames[:, :, :-1],
    "turns time round": lambda frames: frames.flip(2),
    "takes a piece twice": lambda frames: torch.cat([frames, frames[:, :, -1:]], 2),
    "moves the pieces on": lambda frames: frames.roll(1, 2),
    "scales them": lambda frames: frames * 0.5,
    "turns them left to right": lambda frames: frames.flip(4),
    "turns them upside down": lambda frames: frames.flip(3),
    "blends neighbours": lambda frames: torch.cat([frames[:, :, :1], (frames[:, :, 1:] + frames[:, :, :-1]) / 2], 2),
    "turns channels round": lambda frames: frames.flip(1),
    "returns other frames": torch.zeros_like,
}


class Afterwards(ToyVAE):
    """Works on its pieces once they are together."""

    def __init__(self, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.work = work

    def decode(self, z: Tensor) -> Tensor:
        return self.work(super().decode(z))


@pytest.mark.parametrize("what", AFTERWARDS)
def test_a_model_that_works_on_its_pieces_afterwards_is_an_error(what: str) -> None:
    vae, sink = Afterwards(AFTERWARDS[what]), CollectSink()

    with pytest.raises(DecodeError, match="tapping it cannot be exact"), FramePipeline([sink]) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), toy_latent(6))

    assert "close" not in sink.calls


def test_a_clamp_to_the_range_that_is_scaled_anyway_is_none() -> None:
    vae, sink = Afterwards(lambda frames: frames.clamp(-1, 1)), CollectSink()

    with FramePipeline([sink]) as pipeline:
        pipeline.decode(choose_tap(vae.video_decoder()), toy_latent(6))

    assert torch.equal(torch.from_numpy(sink.frames), stock_frames(vae, toy_latent(6)))


def test_more_pieces_than_a_stand_in_has_digits_for_are_told_apart() -> None:
    vae, latent = Afterwards(lambda frames: frames.roll(127, 2)), toy_latent(300, size=2)

    with pytest.raises(DecodeError, match="300 pieces"):
        choose_tap(vae.video_decoder()).run(latent, lambda piece: None)
