"""What the journal takes for whole, and for ours: never an older file, never somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from async_decode.cluster import Options, decode_many
from async_decode.demo import load_latent


@pytest.fixture
def latents(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    torch.save(load_latent()[:, :, :2, :6, :8].clone(), folder / "a.pt")
    return folder


def _status(latents: Path, to: str, **options: Any) -> str:
    outcome = decode_many(latents, str(latents.parent / "out" / to), options=Options(**options), device="cpu")
    return str(outcome.lines[0]["status"])


def _die(line: dict[str, Any]) -> None:
    if line["status"] == "running":
        raise KeyboardInterrupt


def _die_in(latents: Path, to: str, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        decode_many(latents, str(latents.parent / "out" / to), options=Options(**options), device="cpu", on_line=_die)


@pytest.mark.parametrize(("to", "name"), [("{name}.mkv", "a.mkv"), ("*.png", "00001.png")])
def test_a_file_of_somebody_else_is_left_alone_in_every_further_run(latents: Path, to: str, name: str) -> None:
    own = latents.parent / "out" / name
    own.parent.mkdir()
    own.write_bytes(b"mine")
    options = {"fps": 8} if "mkv" in to else {}

    for _ in range(3):
        assert _status(latents, to, **options) == "failed"
        assert own.read_bytes() == b"mine"

    assert _status(latents, to, **options, overwrite=True) == "done"
    assert own.read_bytes() != b"mine"


def test_a_file_that_came_after_a_failed_try_is_somebody_elses(latents: Path) -> None:
    whole = (latents / "a.pt").read_bytes()
    (latents / "a.pt").write_bytes(whole[:500])
    assert _status(latents, "{name}.mkv", fps=8) == "failed"
    (latents.parent / "out" / "a.mkv").write_bytes(b"mine")
    (latents / "a.pt").write_bytes(whole)

    assert _status(latents, "{name}.mkv", fps=8) == "failed"
    assert (latents.parent / "out" / "a.mkv").read_bytes() == b"mine"


def test_an_older_file_is_not_taken_for_that_of_a_run_that_was_cut_off(latents: Path) -> None:
    assert _status(latents, "{name}.mkv", fps=8) == "done"
    older = (latents.parent / "out" / "a.mkv").read_bytes()
    _die_in(latents, "{name}.mkv", fps=16)
    assert (latents.parent / "out" / "a.mkv").read_bytes() == older

    assert _status(latents, "{name}.mkv", fps=16) == "done"
    assert _status(latents, "{name}.mkv", fps=16) == "skipped"


def test_somebody_elses_file_that_was_to_be_replaced_is_not_taken_for_the_new_one(latents: Path) -> None:
    own = latents.parent / "out" / "a.mkv"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    _die_in(latents, "{name}.mkv", fps=8, overwrite=True)

    assert _status(latents, "{name}.mkv", fps=8) == "failed"
    assert own.read_bytes() == b"mine"


def test_frames_that_a_cut_off_run_has_left_are_ours(latents: Path) -> None:
    _die_in(latents, "*.png")
    (latents.parent / "out" / "00001.png").touch()

    assert _status(latents, "*.png") == "done"
