"""The benchmark of prompts in a queue, small: that it runs in a real ComfyUI, and what it writes. No times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.comfyui.cores import VARIABLE, Core, core_params

SCRIPT = Path(__file__).parent / "background.py"


@pytest.mark.parametrize("core", core_params()[:1])
def test_both_ways_save_the_same_frames(core: Core, tmp_path: Path) -> None:
    out = tmp_path / "background.json"
    options = ["--case", "narrow:16x24:5", "--cpu", "--blocks", "1", "--prompts", "2", "--spool-gb", "1"]
    options += ["--memory", "0", "--out", str(out)]

    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *options],
        env={**os.environ, VARIABLE: str(core.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert ran.returncode == 0, ran.stderr
    found = json.loads(out.read_text())
    assert found["files"] == {
        "whole": 6,
        "frames": 17,
        "same_frames": True,
        "megabytes": found["files"]["megabytes"],
        "left_behind": [],
    }
    with_the_node, in_the_background, _ = found["ways"]
    assert [way["way"] for way in found["ways"]] == [
        "with the node",
        "in the background",
        "in the background, with a spool",
    ]
    for way in found["ways"]:
        assert way["prompts"] == 2 and way["decoding_seconds"] > 0 and 0 < way["decoder_busy_share"] <= 1
        assert way["idle_between_prompts_ms"]["mean"] > 0
    # The file keeps the next prompt waiting in one of them only.
    assert with_the_node["of_which_for_files_ms"]["mean"] > 0
    assert in_the_background["of_which_for_files_ms"]["mean"] == 0
