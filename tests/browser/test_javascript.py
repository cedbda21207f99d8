"""The browser modules' JSDoc types, by tsc, and their style, by ESLint; both come through npx, in fixed versions."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.comfyui.server import REPOSITORY

CHECKS = Path(__file__).parent / "javascript"
TYPESCRIPT, ESLINT = "typescript@5.9.3", "eslint@9.39.0"


def npx(package: str, *command: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """Run a command of an npm package; skips where npx cannot have it."""
    program = shutil.which("npx")
    if program is None:
        pytest.skip("npx is not installed (it comes with Node.js), which the checks of the browser modules run with")
    base = [program, "--yes", f"--package={package}"]
    tool = str(command[0])
    there = subprocess.run([*base, tool, "--version"], capture_output=True, text=True, check=False, timeout=300)
    if there.returncode != 0:
        pytest.skip(f"npx cannot run {package}: {there.stderr.strip()[-300:]}")
    return subprocess.run(
        [*base, *map(str, command)], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


def test_types() -> None:
    checked = npx(TYPESCRIPT, "tsc", "-p", CHECKS / "tsconfig.json")

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_style() -> None:
    checked = npx(ESLINT, "eslint", "--config", CHECKS / "eslint.config.cjs", "web/js")

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("wrong", "tool"), [("const node = 1; node.id;\n", "tsc"), ("var unused = 1;\n", "eslint")], ids=["types", "style"]
)
def test_the_checks_find_what_is_wrong(tmp_path: Path, wrong: str, tool: str) -> None:
    (tmp_path / "wrong.js").write_text(wrong)
    if tool == "tsc":
        config = f'{{"extends": "{(CHECKS / "tsconfig.json").as_posix()}", "include": ["wrong.js"]}}'
        (tmp_path / "tsconfig.json").write_text(config)
        checked = npx(TYPESCRIPT, "tsc", "-p", tmp_path / "tsconfig.json")
    else:
        shutil.copy(CHECKS / "eslint.config.cjs", tmp_path)
        checked = npx(ESLINT, "eslint", "--config", "eslint.config.cjs", "wrong.js", cwd=tmp_path)

    assert checked.returncode != 0
    assert "wrong.js" in checked.stdout
