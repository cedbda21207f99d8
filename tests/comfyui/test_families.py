"""Every VAE family that ComfyUI's core knows: how the pack decodes it, and that its frames are those of stock.

The families are core's own classes with random weights, each in a real ``comfy.sd.VAE``, inside a core's interpreter
(``families_in_core.py``). What is seen there is compared with what ``families.py`` expects and with the table in
``web/docs/vae-families.md``, which this test prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.comfyui.cores import Core
from tests.comfyui.families import FAMILIES, Family
from tests.comfyui.family_runs import FamilyRuns, Row

PAGE = Path(__file__).parents[2] / "web" / "docs" / "vae-families.md"
#: The versions whose taps are known; what another one has is decoded all the same, maybe by other taps.
NEW, OLD = "0.33.0", "0.3.64"
#: The words of the table.
HOW = {"tapped": "pieces", "batches": "batches", "whole": "whole"}
#: How much of its peak a bounded decode may grow by, beside its latent, when the clip gets eight times as long; and
#: how much of the bytes of the further frames.
GROWTH = 0.05
#: More bytes than any card has.
NO_CARD = 200e9

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@EVERY_FAMILY
def test_tap_is_the_one_that_streams_it_best(core: Core, family: Family, runs: FamilyRuns) -> None:
    row = _present(runs, core, "exactness", family)
    if core.version not in (NEW, OLD):
        pytest.skip(f"which tap fits in ComfyUI {core.version} is not written down")
    assert row["tap"] == (family.tap if core.version == NEW else family.old_tap)
    streams = row["kind"] != "whole"
    assert row["bounded"] is (streams and family.bounded)
    # A clip that leaves in one piece would be streamed in name only.
    assert not family.video or (len(row["pieces"]["12"]) > 1) is streams


@EVERY_FAMILY
def test_frames_are_those_of_stock_to_the_bit(core: Core, family: Family, runs: FamilyRuns) -> None:
    row = _present(runs, core, "exactness", family)

    assert row["exact"] is True
    assert row["unequal"] == {}
    assert set(row["pieces"]) == {"1", "2", "3", "6", "7", "12"}
    # Frames that are all the same, or not numbers, would be equal whatever the tap does.
    assert row["spread"] is not None and row["spread"] > 0.05
    assert row["seed_matters"] is family.noisy


@EVERY_FAMILY
def test_memory_of_a_bounded_family_does_not_grow_with_the_clip(core: Core, family: Family, runs: FamilyRuns) -> None:
    if not family.video or _present(runs, core, "exactness", family)["kind"] != "tapped":
        pytest.skip("not streamed")
    row = runs.row(core, "memory", "family", family.name)
    frames, more_frames = row["frames"]
    assert more_frames > 7.5 * frames
    if row["bounded"]:
        assert row["growth_beside_latent"] < GROWTH
        assert row["clips"] < GROWTH


@EVERY_FAMILY
def test_long_clip_asks_for_no_more_memory_than_one_of_81_frames(core: Core, family: Family, runs: FamilyRuns) -> None:
    if not family.video or _present(runs, core, "exactness", family)["kind"] != "tapped":
        pytest.skip("not streamed")
    of_81_frames, of_1000_frames = runs.row(core, "memory", "family", family.name)["asked"]
    # What an estimate of core's drives out for the short clip need not stay for the long one.
    assert 0 < of_1000_frames <= of_81_frames or of_81_frames > NO_CARD


@pytest.mark.parametrize(
    "case, shape, tap",
    [
        ("nested", [9, 16, 24, 3], "StepHook"),
        ("video_latent_for_images", [2, 16, 24, 3], "ImageBatches"),
        ("image_latent_for_video", [1, 16, 24, 3], "StepHook"),
        ("collapsed_latent", [9, 16, 24, 3], "StepHook"),
        ("one_channel", [9, 16, 24, 1], "StepHook"),
        ("four_channels", [9, 16, 24, 4], "StepHook"),
        ("unknown_model", [12, 16, 24, 3], "Whole"),
        ("unknown_frames", [12, 16, 24, 3], "Whole"),
    ],
)
def test_latent_of_this_form_is_decoded_as_stock_decodes_it(
    core: Core, case: str, shape: list[int], tap: str, runs: FamilyRuns
) -> None:
    row = runs.row(core, "shapes", "case", case)

    assert row["error"] is None, row["error"]
    if row["missing"]:
        assert core.version != NEW, row["missing"]
        pytest.skip(row["missing"])
    assert (row["equal"], row["exact"]) == (True, True)
    assert row["shape"] == shape
    assert row["tap"] == tap


@pytest.mark.parametrize(
    "case, words",
    [("foreign_vae", ["OtherVideoVAE", "Other Video Decode"]), ("sound", ["2 channels", "VAE Decode Audio"])],
)
def test_what_is_no_picture_vae_is_refused_with_the_right_node(
    core: Core, case: str, words: list[str], runs: FamilyRuns
) -> None:
    message = runs.row(core, "shapes", "case", case)["message"]

    assert message is not None
    assert all(word in message for word in words), message


def test_page_has_this_table(core: Core, runs: FamilyRuns, tell: Callable[[str], None]) -> None:
    seen = {family.name: runs.row(core, "exactness", "family", family.name) for family in FAMILIES}
    tell(f"VAE families of ComfyUI {core.version}")
    for name, row in seen.items():
        tell(f"| {name} | {_cell(row)} | {_reason(row)} |")
    if core.version not in (NEW, OLD):
        pytest.skip(f"the table is not about ComfyUI {core.version}")

    header, rows = _table(PAGE.read_text(encoding="utf-8"))

    column = header.index(f"ComfyUI {core.version}")
    assert {row[0]: row[column] for row in rows} == {name: _cell(row) for name, row in seen.items()}
    if core.version == NEW:
        assert {row[0]: row[-1] for row in rows} == {name: _reason(row) for name, row in seen.items()}


def _present(runs: FamilyRuns, core: Core, part: str, family: Family) -> Row:
    """What was seen of ``family``; skips where this core does not have it, and must not have it."""
    row = runs.row(core, part, "family", family.name)
    if row.get("missing"):
        assert core.version != NEW and (core.version != OLD or family.old_tap is None), row["missing"]
        pytest.skip(f"not in this ComfyUI: {row['missing']}")
    assert row["error"] is None, row["error"]
    return row


def _cell(row: Row) -> str:
    """How a family is decoded, as the table has it."""
    if row.get("missing"):
        return "\N{EN DASH}"
    words = [HOW[row["kind"]], *(word for word in ("exact", "bounded") if row[word])]
    return ", ".join(words)


def _reason(row: Row) -> str:
    """Why a family is not bounded, as the report says it."""
    if row.get("missing") or row["bounded"]:
        return ""
    if row["kind"] == "tapped":
        return str(row["detail"].partition("; ")[2])
    return re.sub(r"^(this VAE|\w+) ", "", row["detail"].partition(";")[0])


def _table(text: str) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the page's first table."""
    section = text.split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]
