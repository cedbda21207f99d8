"""Tiles, windows and lack of memory in real VAEs: stock's tiled frames, flat memory, and no frame lost or doubled."""

from __future__ import annotations

from itertools import product

import pytest

from tests.comfyui.cores import Core
from tests.comfyui.family_runs import FamilyRuns, Row

#: Largest difference between frames in 0 to 1: blending sums in the same order, but not always on the same device.
ROUNDING = 1e-6
#: By the family: the tap that cuts it into tiles, windows, and both.
OWN = {"tiles": "OwnTiles", "windows": "StepHook", "both": "OwnTiles"}
WRITTEN_OUT = dict.fromkeys(("tiles", "windows", "both"), "ChunkedOutput")
BLENDED = dict.fromkeys(("tiles", "windows", "both"), "TemporalWindows")
STREAMED = {**BLENDED, "tiles": "StreamedTiles"}
TAPS = {
    "wan21": STREAMED,
    "wan22": STREAMED,
    "hunyuan": BLENDED,
    "mochi": BLENDED,
    "cosmos": BLENDED,
    "quiet_ltx": BLENDED,
    "noisy_ltx": BLENDED,
    "seedvr2": OWN,
    # It cuts its frames into tiles whatever it is asked.
    "minimax_h3": WRITTEN_OUT,
    "svd": {"tiles": "ImageTiles"},
    "stable_diffusion": {"tiles": "ImageTiles"},
}
CASES = [(name, cut_into, tap) for name, ways in TAPS.items() for cut_into, tap in ways.items()]


@pytest.mark.parametrize("name, cut_into, tap", CASES)
def test_frames_are_those_of_stocks_tiled_decode(
    core: Core, name: str, cut_into: str, tap: str, runs: FamilyRuns
) -> None:
    row = _present(runs.row(core, "tiling", "case", f"{name}, {cut_into}"))

    assert row["tap"] == tap
    assert isinstance(row["off"], float) and row["off"] <= ROUNDING
    # Tiles that change nothing would be right whatever is blended.
    assert row["differs_from_untiled"] is (tap not in ("ChunkedOutput", "StepHook"))
    assert row["exact"] is not row["differs_from_untiled"]
    spans_the_clip = tap == "TemporalWindows" and cut_into == "tiles"
    assert row["bounded"] is not (spans_the_clip or tap == "OwnTiles")
    if row["bounded"]:
        assert len(row["pieces"]) > 1


@pytest.mark.parametrize("name", ["mochi", "cosmos", "wan21", "wan22"])
def test_memory_of_windows_and_of_streamed_tiles_does_not_grow_with_the_clip(
    core: Core, name: str, runs: FamilyRuns
) -> None:
    row = runs.row(core, "tiling_memory", "family", name)
    frames, more_frames = row["frames"]
    assert row["bounded"] is True
    assert more_frames > 7.5 * frames
    assert row["growth_beside_latent"] < 0.05
    of_81_frames, of_1000_frames = row["asked"]
    assert of_1000_frames == of_81_frames > 0


@pytest.mark.parametrize("name", ["wan21", "quiet_ltx", "stable_diffusion"])
def test_inputs_mean_what_they_mean_to_vae_decode_tiled(core: Core, name: str, runs: FamilyRuns) -> None:
    row = runs.row(core, "numbers", "family", name)
    assert row["unequal"] == {}
    assert row["compared"] > 100


@pytest.mark.parametrize("step, way", list(product(("first", "middle", "last"), ("tiles", "windows"))))
def test_every_frame_arrives_once_when_memory_runs_out(core: Core, step: str, way: str, runs: FamilyRuns) -> None:
    row = runs.row(core, "out_of_memory", "case", f"{step}, {way}")
    assert row["error"] is None, row["error"]

    assert row["frames"] == row["files"] == 33
    assert row["in_order"] is True
    delivered = row["delivered"]
    assert delivered == 0 if step == "first" else 0 < delivered < 33
    assert row["equal_before"] is True
    assert row["off_after"] <= ROUNDING
    assert row["differs"] is True
    (warning,) = row["warnings"]
    assert f"memory ran out at frame {delivered} " in warning
    assert row["logged"] == [f"Async VAE Decode: {warning}"]
    assert (row["decoding"]["kind"], row["decoding"]["exact"], row["decoding"]["bounded"]) == (way, False, True)


def _present(row: Row) -> Row:
    assert row["error"] is None, row["error"]
    if row["missing"]:
        pytest.skip(f"not in this ComfyUI: {row['missing']}")
    return row
