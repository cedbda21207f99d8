"""Decoders of core's with replaced blocks, beside stock's: frames, pieces, layouts and audits; without a card.

In a core's interpreter (``blocks_in_core.py``); Wan 2.1's decoder is tried by ``test_fetched_weights.py``.
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

PROGRAM = ROOT / "tests" / "comfyui" / "blocks_in_core.py"
#: Minutes that it may take on a busy machine.
LIMIT = 15
#: For each family, how many places of it are replaced.
FAMILIES = {
    "wan22": 22,
    "hunyuan15": 15,
    "hunyuan": 12,
    "seedvr2": 17,
    "reflecting_ltx": 9,
    "causal_ltx": 10,
    "told_ltx": 9,
}
#: What keeps a call from being replaced: of LTX's first frames a block makes none at times.
LEFT = {"left as it is", "too few frames at once"}

Row = dict[str, Any]
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def rows(core: Core) -> dict[str, Row]:
    """What was found in this core, by its name."""
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
    return {row["case"]: row for row in found}


def present(rows: dict[str, Row], core: Core, case: str) -> Row:
    """The row of this case, without an error."""
    row = rows[case]
    if core.version == "0.3.64" and not case.endswith("wan22"):
        # Its decoders have another source, or it does not have them at all.
        reports = row.get("reports", ["stock's: "])
        assert row["error"] is not None or row.get("unknown") or all("stock's: " in one for one in reports)
        pytest.skip("there are no blocks for the decoder of this core")
    assert row["error"] is None, row["error"]
    return row


@EVERY_FAMILY
def test_blocks_are_used_as_the_pack_comes_but_those_of_seedvr2(core: Core, family: str, rows: dict[str, Row]) -> None:
    row = present(rows, core, f"doubted {family}")

    assert ("not used yet" in row["reason"]) is (family == "seedvr2"), row["reason"]


@EVERY_FAMILY
def test_frames_of_all_sizes_are_stocks_while_blocks_are_proven_and_after(
    core: Core, family: str, rows: dict[str, Row]
) -> None:
    row = present(rows, core, f"decodes {family}")

    assert all(row["equal"]) and len(row["equal"]) >= 10
    assert set(row["left"]) <= LEFT
    for proving, after in zip(row["steps"][::2], row["steps"][1::2], strict=True):
        assert proving[0] > 0 == after[0] and proving[1] == after[1]
    assert all(f"{FAMILIES[family]} places" in summary for summary in row["summaries"][1::2])
    assert row["replaced"] == []


@EVERY_FAMILY
def test_what_is_convolved_lies_as_a_new_tensor_while_blocks_are_proven_and_after(
    core: Core, family: str, rows: dict[str, Row]
) -> None:
    """Torch asks the strides of axes of one, too, when it takes a kernel: a proof would say nothing of a run."""
    assert present(rows, core, f"decodes {family}")["odd_strides"] == []


@pytest.mark.parametrize("family", ["wan22", "hunyuan15"])
def test_pieces_of_a_long_clip_are_replaced_once_one_like_them_was_proven(
    core: Core, family: str, rows: dict[str, Row]
) -> None:
    row = present(rows, core, f"decodes {family}")

    proven, steps = row["steps"][-2]
    assert 0 < proven < steps
    assert "proven kernels" in row["summaries"][-2]


@EVERY_FAMILY
def test_tap_takes_the_same_pieces(core: Core, family: str, rows: dict[str, Row]) -> None:
    row = present(rows, core, f"taps {family}")

    assert row["equal"] == [True, True]
    assert row["pieces"][0] == row["pieces"][1] and len(row["pieces"][0]) > 1
    assert "steps were stock's" in row["reports"][0] and "steps were stock's" not in row["reports"][1]


@EVERY_FAMILY
def test_audit_that_fails_where_pieces_have_left_goes_on_with_stocks_result(
    core: Core, family: str, rows: dict[str, Row]
) -> None:
    row = present(rows, core, f"audits {family}")

    assert row["equal"] and row["equal_after"]
    assert len(row["warnings"]) == 1 and f"{row['audited']} was computed in both ways" in row["warnings"][0]
    assert f"an audit of {row['audited']}" in row["after"]
