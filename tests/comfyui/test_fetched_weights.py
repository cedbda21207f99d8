"""The faster decoder where ComfyUI fetches weights when they are used: its low and its dynamic VRAM.

Core's own VAE classes, patchers and functions inside a core's interpreter (``fetched_weights_in_core.py``); a stand-in
for the card's memory, which takes away what is not in use (``card_stand_in.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.comfyui.cores import Core
from tests.comfyui.families_in_core import ROOT
from tests.comfyui.server import BOOTSTRAP, ENVIRONMENT

PROGRAM = ROOT / "tests" / "comfyui" / "fetched_weights_in_core.py"
#: Minutes that it may take on a busy machine.
LIMIT = 15
#: What is replaced in each decoder: residual blocks, upsamplings, the last norm and, of Wan's, the last convolution.
PLACES = {"wan21": 19, "wan22": 22, "hunyuan15": 15}

#: ``own``: loaded, so that nothing is fetched. ``low``: low VRAM. Dynamic VRAM in which weights stay where they were
#: fetched to, go when they are not in use, or find no room.
CASES = (
    ("wan21", "own"),
    ("wan21", "low"),
    ("wan22", "low"),
    ("wan21", "stays"),
    ("wan22", "stays"),
    ("wan21", "goes"),
    ("wan22", "goes"),
    ("wan21", "full"),
)
#: Whose frames and fetches are looked at, too.
MORE = (("hunyuan15", "low"), ("hunyuan15", "stays"), ("hunyuan15", "goes"))
REFUSALS = ("low", "stays")

Row = dict[str, Any]
EVERY_CASE = pytest.mark.parametrize(("family", "how"), (*CASES, *MORE))


@pytest.fixture(scope="module")
def rows(core: Core) -> dict[str, Row]:
    """What was found in this core, by its name."""
    asked = [f"{part} {family} {how}" for family, how in CASES for part in ("decodes", "changes")]
    asked += [f"decodes {family} {how}" for family, how in MORE]
    ran = subprocess.run(
        [core.python, BOOTSTRAP, PROGRAM, *asked, *(f"refusals wan21 {how}" for how in REFUSALS)],
        cwd=core.path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60 * LIMIT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"case": ')]
    return {row["case"]: row for row in found}


def present(rows: dict[str, Row], core: Core, case: str) -> Row:
    """The row of this case, without an error."""
    row = rows[case]
    if row["missing"] and core.version == "0.3.64":
        pytest.skip("this core has no dynamic VRAM")
    if core.version == "0.3.64" and "hunyuan15" in case:
        pytest.skip("there are no blocks for this decoder of this core")
    assert row["error"] is None, row["error"]
    return row


@EVERY_CASE
def test_frames_are_stocks_while_it_proves_itself_and_after_and_nothing_is_left(
    core: Core, family: str, how: str, rows: dict[str, Row]
) -> None:
    row = present(rows, core, f"decodes {family} {how}")

    # The last one is stock's again.
    assert row["equal"] == [True, True, True, True]
    assert set(row["left"]) == {"left as it is"} and f"{PLACES[family]} places" in row["summary"], row["summary"]
    assert row["replaced"] == []
    assert row["kept"][-1] == 0


@EVERY_CASE
def test_weights_are_asked_for_as_often_as_by_stock_and_given_back(
    core: Core, family: str, how: str, rows: dict[str, Row]
) -> None:
    row = present(rows, core, f"decodes {family} {how}")

    if how == "own":
        assert row["elsewhere"] == 0
        return
    assert row["elsewhere"] > 20 and row["fetches"] > 80
    assert row["fetched_otherwise"] == []
    assert row["pinned"] == 0
    if how == "stays":
        # Each module's once: nothing of ours has had core fetch them again.
        assert row["copied"] == row["elsewhere"]


@EVERY_CASE
def test_copies_in_another_layout_are_kept_of_what_core_keeps_only(
    core: Core, family: str, how: str, rows: dict[str, Row]
) -> None:
    _, kept, _ = present(rows, core, f"decodes {family} {how}")["kept"]

    # Under dynamic VRAM small weights are loaded, and stay.
    small = 100_000
    assert kept == 0 if how == "low" else kept < small if how in ("goes", "full") else kept > 10 * small


@pytest.mark.parametrize(("family", "how"), CASES)
def test_weights_that_change_within_a_run_are_used_as_they_are_now(
    core: Core, family: str, how: str, rows: dict[str, Row]
) -> None:
    row = present(rows, core, f"changes {family} {how}")

    assert row["equal"] == [True, True, True]
    # There was a copy that could have been used.
    assert row["kept"][0] > 0 or how == "low"


@pytest.mark.parametrize("how", REFUSALS)
def test_weights_that_core_computes_at_each_use_are_left_alone(core: Core, how: str, rows: dict[str, Row]) -> None:
    reasons = present(rows, core, f"refusals wan21 {how}")["reasons"]

    assert reasons.pop("as it is") == ""
    # Without dynamic VRAM core converts them when it loads them.
    converted = reasons.pop("stored as float32")
    assert bool(converted) == (how == "stays") and ("float32 and converted on use" in converted or not converted)
    assert set(reasons.values()) == {"its weights are patched on use"}
