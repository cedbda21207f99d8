"""A replacement that is wrong in ways that are easily overlooked: proof or audit finds out, the frames are stock's.

In a core's interpreter (``sabotage_in_core.py``), for its decoders whose frames leave within a call; on the GPU with
``COMFYUI_TEST_GPU=1``. Diffusers' Wan is tried by ``tests/engine/test_decoders_sabotage.py``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest

from tests.comfyui.cores import Core
from tests.comfyui.families_in_core import ROOT
from tests.comfyui.server import BOOTSTRAP, ENVIRONMENT, GPU_VARIABLE

PROGRAM = ROOT / "tests" / "comfyui" / "sabotage_in_core.py"
#: Minutes that it may take on a busy machine.
LIMIT = 15
FAMILIES = ("hunyuan15", "hunyuan", "seedvr2", "causal_ltx", "reflecting_ltx")
#: Those whose norms are over groups of channels.
GROUPS = ("hunyuan", "seedvr2")

Row = dict[str, Any]
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def rows(core: Core) -> dict[tuple[str, bool], Row]:
    """What was found in this core, by its name, and whether anybody compared."""
    if core.version == "0.3.64":
        pytest.skip("there are no blocks for the decoders of this core")
    ran = subprocess.run(
        [core.python, BOOTSTRAP, PROGRAM, *FAMILIES],
        cwd=core.path,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60 * LIMIT,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    found = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith('{"case": ')]
    return {(row["case"], row["compared"]): row for row in found}


def both(rows: dict[tuple[str, bool], Row], case: str) -> tuple[Row, Row]:
    """The row of this case, and that where nobody compares; without errors."""
    if case.endswith("seedvr2") and os.environ.get(GPU_VARIABLE):
        pytest.skip("SeedVR2's blocks are not used on a GPU yet")
    found = rows[case, True], rows[case, False]
    assert [row["error"] for row in found] == [None, None]
    assert all(sum(row["calls"].values()) > 0 for row in found)
    return found


@EVERY_FAMILY
def test_whole_decoder_is_replaced_when_nothing_is_wrong(family: str, rows: dict[tuple[str, bool], Row]) -> None:
    row, _ = both(rows, f"honest {family}")

    assert all(row["equal"])
    assert row["proven"] and set(row["reasons"]) <= {"left as it is", "too few frames at once"}
    assert row["calls"]["add_residual"] and row["calls"]["moments" if family in GROUPS else "norm_into"]


@EVERY_FAMILY
def test_norm_that_adds_in_another_order(family: str, rows: dict[tuple[str, bool], Row]) -> None:
    row, unseen = both(rows, f"order {family}")

    assert all(row["equal"])
    # Of LTX the squares are rounded first: the sum of a few is mostly exact, in any order.
    refused = "given" in row["orders"] if "ltx" in family else set(row["orders"]) <= {"given"}
    assert refused, "the wrong order was taken for stock's"
    assert unseen["orders"] and "given" not in unseen["orders"]


@EVERY_FAMILY
def test_sum_that_is_rounded_once(family: str, rows: dict[tuple[str, bool], Row]) -> None:
    row, unseen = both(rows, f"once {family}")

    assert all(row["equal"])
    assert any(re.search(r" of its [\d,]+ values differ", reason) for reason in row["reasons"])
    assert unseen["equal"] == [True, False]


@EVERY_FAMILY
def test_cache_that_is_stale(family: str, rows: dict[tuple[str, bool], Row]) -> None:
    row, unseen = both(rows, f"stale {family}")

    assert all(row["equal"])
    assert any("values that it keeps differ" in reason for reason in row["reasons"])
    assert not unseen["equal"][-1]


@EVERY_FAMILY
def test_block_that_is_wrong_behind_a_replaced_one_is_found_in_its_first_use_and_out_for_good(
    family: str, rows: dict[tuple[str, bool], Row]
) -> None:
    row, unseen = both(rows, f"neighbours {family}")

    assert all(row["equal"])
    (warning,) = row["warnings"]
    assert "Stock's result was used" in warning and "the first use of" in row["summary"]
    assert not unseen["equal"][-1]


@EVERY_FAMILY
def test_kernel_that_goes_wrong_after_its_proof_is_found_by_an_audit_and_out_for_good(
    family: str, rows: dict[tuple[str, bool], Row]
) -> None:
    row, unseen = both(rows, f"later {family}")

    assert row["equal"] == [True, True, True, True]
    (warning,) = row["warnings"]
    assert "Stock's result was used" in warning and "an audit of" in row["summary"]
    assert unseen["equal"] == [True, True, False, False] and not unseen["warnings"]
