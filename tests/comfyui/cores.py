"""Finds the ComfyUI checkouts that tests run against: for the server tests here, and for the browser's tests.

``COMFYUI_PATH`` names them, separated as in ``PATH``. A ``.venv`` inside a checkout is its interpreter; without one it
is the interpreter that runs the tests.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "COMFYUI_PATH"
DEFAULT = ("~/comfy/ComfyUI", "~/comfy/ComfyUI-0.3.64")
#: Where a checkout may be whose environment has a newer front end: for the browser's tests alone.
FRONT_ENDS = ("~/comfy/ComfyUI-next",)


@dataclass(frozen=True)
class Core:
    """One checkout.

    Attributes:
        path: its folder.
        python: the interpreter that runs it.
        version: as its ``comfyui_version.py`` says.
        front_end: the version of the front end that its interpreter has; empty where that cannot be told.
    """

    path: Path
    python: Path
    version: str
    front_end: str = ""

    @property
    def id(self) -> str:
        """What tests that run on it are called by."""
        return f"{self.version}-{self.front_end}".rstrip("-")

    @property
    def main(self) -> Path:
        """The script that starts the server."""
        return self.path / "main.py"


def find_cores(front_ends: bool = False) -> tuple[list[Core], list[str]]:
    """The checkouts that are there, and a line on each one that is not; ``front_ends``: those for the browser, too."""
    named = os.environ.get(VARIABLE)
    places = named.split(os.pathsep) if named else (*DEFAULT, *(FRONT_ENDS if front_ends else ()))
    cores, missing = [], []
    for place in filter(None, places):
        path = Path(place).expanduser()
        if not (path / "main.py").is_file():
            missing.append(f"{place}: no ComfyUI checkout there; name yours in {VARIABLE}")
            continue
        python = _python_of(path)
        cores.append(
            Core(
                path=path,
                python=python,
                version=_version_of(path),
                front_end=_front_end_of(python) if front_ends else "",
            )
        )
    return cores, missing


def core_params(front_ends: bool = False) -> list[Any]:
    """The checkouts as parameters of a fixture; where there is none, one parameter that skips and says why."""
    # Not there where a benchmark looks for a checkout.
    import pytest

    cores, missing = find_cores(front_ends)
    if cores and importlib.util.find_spec("aiohttp") is None:
        cores, missing = [], ["aiohttp is not installed, which the tests talk to ComfyUI's websocket with"]
    if not cores:
        return [pytest.param(None, id="no ComfyUI", marks=pytest.mark.skip(reason="; ".join(missing)))]
    return [pytest.param(core, id=core.id) for core in cores]


def summary() -> list[str]:
    """A line on each checkout that is tested or missing."""
    cores, missing = find_cores()
    return [f"{core.version}: {core.path}, run by {core.python}" for core in cores] + [f"skipped {m}" for m in missing]


def _python_of(path: Path) -> Path:
    inside = path / (".venv/Scripts/python.exe" if os.name == "nt" else ".venv/bin/python")
    return inside if inside.is_file() else Path(sys.executable)


def _version_of(path: Path) -> str:
    file = path / "comfyui_version.py"
    found = re.search(r'__version__ = "([^"]+)"', file.read_text()) if file.is_file() else None
    return found[1] if found else path.name


def _front_end_of(python: Path) -> str:
    asked = "import importlib.metadata as m; print(m.version('comfyui_frontend_package'))"
    said = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=False)
    return said.stdout.strip()
