"""Who imports whom: the contracts of pyproject.toml hold, each one is seen to break, and nothing goes round them."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter", reason="import-linter is not installed")

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINE = REPOSITORY / "async_decode" / "__init__.py"

#: Where a module is named by a string, so that no contract sees it, and why.
IMPORTED_BY_NAME = {
    "async_decode/__main__.py",  # its commands need the extra cli
    "async_decode/cluster/comfyui.py",  # the plug of decode --comfyui
}

#: What each rule must refuse: a file, and the line that is added to it.
BREACHES = {
    "upwards": ("async_decode/taps/base.py", "from ..pipeline import slots"),
    "upwards for types only": (
        "async_decode/sinks/base.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..api import decode",
    ),
    "upwards in a function": ("async_decode/frames.py", "def f():\n    from .pipeline import slots"),
    "a neighbour": ("async_decode/device/clock.py", "from ..report import report"),
    "a circle in a room": ("async_decode/taps/base.py", "from . import whole"),
    "a circle of nodes": ("nodes/vae.py", "from . import tiling"),
    "ComfyUI": ("async_decode/cluster/vaes.py", "import comfy.sd"),
    "ComfyUI's folders": ("async_decode/sinks/files.py", "import folder_paths"),
    "ComfyUI's server": ("async_decode/api.py", "def f():\n    from server import PromptServer"),
    "the nodes": ("async_decode/cluster/vaes.py", "from nodes import vae"),
    "the tests": ("async_decode/api.py", "from tests.engine import toy"),
    "the tests, by a node": ("nodes/decode.py", "from tests.engine import toy"),
    "a new room that no floor names": ("async_decode/utils.py", "A = 1"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of the pack in ``folder``."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    # What is checked is in the folder, wherever else it can be imported from.
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": ""}
    return subprocess.run(
        [*command, "--no-cache"], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of what the contracts are about."""
    shutil.copyfile(REPOSITORY / "pyproject.toml", tmp_path / "pyproject.toml")
    for folder in ("async_decode", "nodes"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "demo.*"))
    return tmp_path


def test_contracts_hold() -> None:
    checked = lint(REPOSITORY)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", BREACHES)
def test_contracts_break(pack: Path, name: str) -> None:
    file, line = BREACHES[name]
    with open(pack / file, "a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")

    checked = lint(pack)

    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert re.search(r"[1-9] broken", checked.stdout), checked.stdout + checked.stderr


def test_nothing_goes_round_the_contracts() -> None:
    # They do not see who leaves the package by dots, and what is imported by a string.
    climbing, by_name = [], set()
    for folder in ("async_decode", "nodes"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            file = path.relative_to(REPOSITORY)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level >= len(file.parts):
                    # Nodes reach the engine so, wherever ComfyUI has put the pack, and nothing else.
                    to_engine = re.match(r"async_decode(\.|$)", node.module or "") is not None
                    if folder == "async_decode" or not to_engine:
                        climbing.append(f"{file}:{node.lineno}")
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                if called.split(".")[-1] in ("import_module", "__import__", "spec_from_file_location", "run_path"):
                    by_name.add(file.as_posix())
    assert climbing == []
    assert by_name == IMPORTED_BY_NAME


def test_the_way_of_a_frame_leads_through_eight_files() -> None:
    way = re.findall(r"^\d\. ``(\S+)``", ast.get_docstring(ast.parse(ENGINE.read_text(encoding="utf-8"))) or "", re.M)
    assert len(way) == 8
    assert [file for file in way if not (REPOSITORY / file).is_file()] == []
    # None of them leads back: not by any chain of imports, of which the nodes' lead through dots.
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("async_decode", "nodes", cache_dir=None)
    modules = [file.removesuffix(".py").replace("/", ".") for file in way]
    for place, module in enumerate(modules):
        for before in modules[:place]:
            assert not graph.chain_exists(importer=module, imported=before), f"{module} leads back to {before}"


def test_readme_names_every_room() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    develop = readme[readme.index("## Develop") :]
    folders = [path for top in (ENGINE.parent, REPOSITORY / "tests") for path in top.iterdir()]
    rooms = {path.name for path in folders if path.is_dir() and not path.name.startswith(("_", "."))}
    ignored = (REPOSITORY / ".gitignore").read_text(encoding="utf-8")
    assert {room for room in rooms if f"{room}/" not in develop and room not in ignored} == set()
