"""The command line: one line for bad values before anything runs, and a demo whose runs do not mix."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import async_decode
from async_decode.__main__ import main
from async_decode.cli import demo
from async_decode.cli.options import a_folder

REPOSITORY = Path(async_decode.__file__).parents[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--chunk-size", "0"], "--chunk-size: expected a whole number from 1 to 4096, got 0"),
        (["--chunk-size", "2.5"], "--chunk-size: expected a whole number from 1 to 4096, got 2.5"),
        (["--buffer-depth", "0"], "--buffer-depth: expected a whole number from 1 to 64, got 0"),
        (["--writers", "0"], "--writers: expected a whole number from 1 to 64, got 0"),
        (["--writers", "many"], "--writers: expected a whole number from 1 to 64, got many"),
        (["--device", "foo"], "--device: torch has no device 'foo' here; there is cpu"),
        (["--device", "meta"], "--device: torch has no device 'meta' here; there is cpu"),
        (["--device", "cuda:99"], "--device: torch has no device 'cuda:99' here; there is cpu"),
        (["--out", ""], "--out: expected a folder with a name, got ''"),
        (["--out", Path.cwd().anchor], f"--out: expected a folder with a name, got {Path.cwd().anchor!r}"),
    ],
)
def test_bad_values_are_one_line_before_anything_runs(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "load_vae", lambda device: pytest.fail("the demo has begun"))

    with pytest.raises(SystemExit) as left:
        main(["demo", "--out", str(tmp_path / "out"), *arguments])

    assert left.value.code == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])

    assert left.value.code == 0
    assert capsys.readouterr().out == f"async-vae-decode {async_decode.__version__}\n"


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "demo_output"
    assert demo._fresh(folder) == folder
    folder.mkdir()
    assert demo._fresh(folder) == folder
    (folder / "frame_00001_.png").touch()
    assert demo._fresh(folder) == tmp_path / "demo_output-2"
    (tmp_path / "demo_output-2").mkdir()
    (tmp_path / "demo_output-2" / "trace.json").touch()
    (tmp_path / "demo_output-3").touch()
    assert demo._fresh(folder) == tmp_path / "demo_output-4"


@pytest.mark.parametrize(("named", "fresh"), [(".", "above/here-2"), ("..", "above-2"), ("sub/..", "above/here-2")])
def test_a_folder_named_by_dots_gets_its_number_behind_its_own_name(
    named: str, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "above" / "here"
    (here / "sub").mkdir(parents=True)
    monkeypatch.chdir(here)

    assert demo._fresh(a_folder(named)) == (tmp_path / fresh).resolve()


def test_a_piped_demo_tells_plain_lines_and_leaves_everything(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")

    run = subprocess.run(
        [sys.executable, "-m", "async_decode", "demo", "--out", "out", "--device", "cpu"],
        cwd=tmp_path,
        # As a pipe on Windows has it.
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii", "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=True,
    )

    lines = run.stdout.splitlines()
    assert lines[0] == f"out holds files already: these go to {Path('out-2')}"
    assert "same frames: yes" in lines
    for title in ("sequential", "asynchronous"):
        assert f"{title}: decoding 49 frames on cpu" in lines
        (facts,) = [line for line in lines if line.startswith(f"{title}: took ")]
        assert "decoding " in facts and "saving " in facts
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    out = tmp_path / "out-2"
    assert {path.name for path in out.iterdir()} == {
        "asynchronous",
        "sequential",
        "report.json",
        "timeline.png",
        "trace.json",
    }
    hashes = [
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((out / title).glob("*.png"))]
        for title in ("sequential", "asynchronous")
    ]
    assert len(hashes[0]) == 49 and hashes[0] == hashes[1]
    reports = json.loads((out / "report.json").read_text())
    assert {report["outcome"] for report in reports.values()} == {"completed"}


def test_frames_that_differ_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = iter("ab")
    monkeypatch.setattr(demo, "_digest", lambda files: next(digests))
    monkeypatch.setattr(demo, "load_latent", lambda: torch.zeros(1, 16, 2, 4, 4))

    assert main(["demo", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert "same frames: NO, please report this" in capsys.readouterr().out
