"""Results on disk: one JSON file that is rewritten after every step, so that a killed run keeps what it had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .arms import DECODE

#: Number of the JSON form.
SCHEMA = 1


class Results:
    """What a benchmark has found so far.

    Args:
        path: the JSON file.
        command: what was asked for.
        environment: what it ran on.

    Attributes:
        data: everything, as plain types; ``save`` after a change.
    """

    def __init__(self, path: Path, *, command: str, environment: dict[str, Any]) -> None:
        self._path = path
        self.data: dict[str, Any] = {
            "schema": SCHEMA,
            "command": command,
            "environment": environment,
            "cases": [],
            "profiles": [],
            "memory": [],
            "variants": [],
            "host": [],
            "failures": [],
        }
        self.save()

    def save(self) -> None:
        """Rewrite the file; at any time it is either the old one or the new one."""
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self._path)

    def add(self, section: str, entry: dict[str, Any]) -> None:
        """Append to a section and save."""
        self.data[section].append(entry)
        self.save()

    @property
    def sound(self) -> bool:
        """Whether every case was loaded, its arms made the same frames and PNG files, and so did the host's pairs.

        Files of video are not compared: stock's come from another encoder where a ComfyUI saves them.
        """
        cases = self.data["cases"]
        frames = all(same for case in cases for same in case.get("frames_equal", {}).values())
        files = all(
            same for case in cases for name, same in case.get("files_equal", {}).items() if name.startswith("png")
        )
        return not self.data["failures"] and frames and files and all(entry["equal"] for entry in self.data["host"])


def slim(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """A report without the times of every single span."""
    if report is None:
        return None
    stages = {
        name: {key: value for key, value in totals.items() if key != "intervals"}
        for name, totals in report["stages"].items()
    }
    return {**report, "stages": stages}


def over_decode_only(case: dict[str, Any], arm: dict[str, Any]) -> float | None:
    """How many times as long as decoding alone an arm took, by the means; ``None`` where one of them was not run."""
    alone = next((entry for entry in case["arms"] if entry["kind"] == DECODE), None)
    if alone is None or not alone["runs"] or not arm["runs"]:
        return None
    return float(arm["mean"] / alone["mean"])
