"""Windows of time: ComfyUI's frames for the same numbers, each as soon as it is final."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from async_decode import DecodeError
from async_decode.taps import Scale, TemporalWindows, Tiling
from tests.engine.tiling_reference import tiled
from tests.engine.toy import ToyVAE, toy_latent

#: ToyVAE's: 4 frames a latent but one for the first, 2 pixels a latent.
SCALE = Scale(size=(lambda latents: 4 * latents - 3, 2, 2), place=(4, 2, 2))
SIZE = (lambda latents: 4 * latents - 3, lambda latents: 2 * latents, lambda latents: 2 * latents)
PLACE = (lambda latent: 4 * latent, lambda latent: 2 * latent, lambda latent: 2 * latent)


def run(tiling: Tiling, latent: Tensor, skip: int = 0) -> tuple[list[Tensor], list[int], ToyVAE]:
    """The pieces, how many steps the model had made at each, and the model."""
    vae = ToyVAE()
    pieces: list[Tensor] = []
    steps: list[int] = []

    def submit(piece: Tensor) -> None:
        pieces.append(piece.clone())
        steps.append(vae.steps)

    TemporalWindows(vae.video_decoder(), scale=SCALE, tiling=tiling).run_from(latent, submit, skip)
    return pieces, steps, vae


def expected(tiling: Tiling, latent: Tensor) -> Tensor:
    """All frames ``(T, C, H, W)`` of all clips."""
    _, _, frames, height, width = latent.shape
    with torch.inference_mode():
        pixels = tiled(
            latent,
            ToyVAE().decode,
            (tiling.window or frames, tiling.tile or height, tiling.tile or width),
            (tiling.window_overlap, tiling.overlap, tiling.overlap),
            SIZE,
            PLACE,
        )
    return pixels.movedim(1, 2).flatten(0, 1)


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("latents", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("window, shared", [(2, 1), (4, 1), (4, 2), (5, 2), (6, 3)])
@pytest.mark.parametrize("tile, overlap", [(None, 0), (5, 1)])
def test_frames_are_those_of_the_whole_sum(
    clips: int, latents: int, window: int, shared: int, tile: int | None, overlap: int
) -> None:
    tiling = Tiling(tile=tile, overlap=overlap, window=window, window_overlap=shared)
    latent = toy_latent(latents, clips=clips)

    pieces, _, _ = run(tiling, latent)

    torch.testing.assert_close(torch.cat(pieces), expected(tiling, latent), rtol=0, atol=0)


def test_frames_leave_as_soon_as_no_later_window_reaches_them() -> None:
    # Windows begin at latents 0, 2, 4 and 6, hence at frames 0, 8, 16 and 24.
    pieces, steps, _ = run(Tiling(window=4, window_overlap=2), toy_latent(9))

    assert [piece.shape[0] for piece in pieces] == [8, 8, 8, 9]
    assert steps == [4, 8, 12, 15]


def test_sums_are_no_longer_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    zeros = torch.zeros

    def measured(size: tuple[int, ...], **options: object) -> Tensor:
        lengths.append(size[2])
        return zeros(size, **options)

    monkeypatch.setattr("async_decode.taps.tiles.tiling.torch.zeros", measured)

    run(Tiling(window=4, window_overlap=2), toy_latent(40))

    assert max(lengths) == 13


@pytest.mark.parametrize("skip", [1, 8, 9, 16, 17, 24, 32])
def test_windows_before_the_wanted_frames_are_not_decoded(skip: int) -> None:
    tiling = Tiling(window=4, window_overlap=2)
    latent = toy_latent(9)

    pieces, _, vae = run(tiling, latent, skip)

    assert torch.equal(torch.cat(pieces), expected(tiling, latent)[skip:])
    # Of the four windows, those that end, as the one behind them, before the wanted frames.
    windows_left_out = {24: 1, 32: 2}.get(skip, 1 if skip > 20 else 0)
    assert vae.steps == 15 - 4 * windows_left_out


def test_announces_frames_and_memory_of_a_window() -> None:
    tap = TemporalWindows(
        ToyVAE().video_decoder(), scale=SCALE, tiling=Tiling(tile=5, overlap=1, window=4, window_overlap=2)
    )
    latent = toy_latent(9, clips=2)

    assert tap.frames(latent) == 2 * 33
    assert tap.live_shape(latent) == (1, 4, 4, 5, 5)
    assert (tap.decoding.kind, tap.decoding.exact, tap.decoding.bounded) == ("windows", False, True)


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"window": 4, "window_overlap": 3}, "window_overlap must be from 1"),
        ({"window": 4, "window_overlap": 0}, "window_overlap must be from 1"),
        ({"window": 1}, "window_overlap must be from 1"),
        ({"tile": 8, "overlap": 4}, "overlap must be from 0"),
        ({"tile": 8, "overlap": -1}, "overlap must be from 0"),
        ({"tile": 0}, "tile must be at least 1"),
    ],
)
def test_refuses_numbers_that_lead_nowhere(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(**numbers)


def test_refuses_windows_that_would_leave_holes() -> None:
    # As the VAE whose 5k + 2 latents give 17k + 5 frames: a window of 5 of them gives no more than 5 frames.
    uneven = Scale(size=(lambda latents: max(1, (latents - 2) // 5 * 17 + 5), 2, 2), place=(4, 2, 2))
    vae = ToyVAE()
    tap = TemporalWindows(vae.video_decoder(), scale=uneven, tiling=Tiling(window=5, window_overlap=2))

    with pytest.raises(DecodeError, match="would leave holes in 12 latent frames"):
        tap.run(toy_latent(12), lambda _piece: None)

    assert vae.steps == 0
    assert not TemporalWindows(
        vae.video_decoder(), scale=SCALE, tiling=Tiling(window=5, window_overlap=2)
    ).leaves_holes(toy_latent(12))
