"""What the journal takes for whole, and for ours: never an older file, never somebody else's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from async_decode.cluster import Options, decode_many
from async_decode.cluster.journal import Journal
from async_decode.demo import load_latent
from async_decode.errors import SinkError


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


@pytest.mark.parametrize("to", ["{name}.mkv", "{name}/*.png"])
def test_a_place_that_is_written_otherwise_is_the_same(
    latents: Path, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(fps=8) if "mkv" in to else Options()

    def status(stand: Path, of: str, out: str) -> str:
        monkeypatch.chdir(stand)
        return str(decode_many(of, f"{out}/{to}", options=options, device="cpu").lines[0]["status"])

    assert status(tmp_path, "in", "out") == "done"
    assert status(tmp_path, "./in", "./out") == "skipped"
    assert status(tmp_path, str(latents), str(tmp_path / "out")) == "skipped"
    assert status(tmp_path / "out", "../in", "../out") == "skipped"
    assert status(tmp_path / "out", "../in", ".") == "skipped"
    # Everything is moved, the journal with it.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").rename(tmp_path / "elsewhere" / "clips")
    latents.rename(tmp_path / "elsewhere" / "latents")
    assert status(tmp_path / "elsewhere", "latents", "clips") == "skipped"


def test_another_latent_of_the_same_size_and_time_is_another(latents: Path) -> None:
    assert _status(latents, "clip.mkv", fps=8) == "done"
    (latents / "a.pt").rename(latents.parent / "kept.pt")
    torch.save(torch.load(latents.parent / "kept.pt") + 1, latents / "b.pt")
    facts = (latents.parent / "kept.pt").stat()
    os.utime(latents / "b.pt", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (latents / "b.pt").stat().st_size == facts.st_size

    assert _status(latents, "clip.mkv", fps=8) == "done"


def test_frames_of_which_some_are_gone_are_made_again(latents: Path) -> None:
    assert _status(latents, "*.png") == "done"
    (latents.parent / "out" / "00003.png").unlink()

    assert _status(latents, "*.png") == "done"
    assert (latents.parent / "out" / "00003.png").exists()
    assert _status(latents, "*.png") == "skipped"


@pytest.mark.parametrize("to", ["{name}.mkv", "*.png"])
def test_an_empty_file_is_made_again(latents: Path, to: str) -> None:
    options = {"fps": 8} if "mkv" in to else {}
    assert _status(latents, to, **options) == "done"
    made = sorted((latents.parent / "out").glob("*.[mp]*"))[-1]
    size = made.stat().st_size
    # As a power cut leaves it: the name was on the disk, and the line in the report.
    made.write_bytes(b"")

    assert _status(latents, to, **options) == "done"
    assert made.stat().st_size == size
    assert _status(latents, to, **options) == "skipped"


def test_an_empty_file_is_not_what_a_run_that_was_cut_off_has_made(latents: Path) -> None:
    _die_in(latents, "{name}.mkv", fps=8)
    (latents.parent / "out" / "a.mkv").touch()

    assert _status(latents, "{name}.mkv", fps=8) == "done"


def test_a_file_that_got_shorter_is_neither_whole_nor_replaced_unasked(latents: Path) -> None:
    assert _status(latents, "{name}.mkv", fps=8) == "done"
    made = latents.parent / "out" / "a.mkv"
    whole = made.read_bytes()
    made.write_bytes(whole[:-100])

    for _ in range(2):
        to = str(made.parent / "{name}.mkv")
        (line,) = decode_many(latents, to, options=Options(fps=8), device="cpu").lines
        assert line["status"] == "failed" and f"has {len(whole) - 100} bytes, of the {len(whole)}" in line["error"]
        assert made.read_bytes() == whole[:-100]

    made.unlink()
    assert _status(latents, "{name}.mkv", fps=8) == "done"
    made.write_bytes(made.read_bytes() + b"a remark of mine")
    assert _status(latents, "{name}.mkv", fps=8) == "skipped"


def test_what_a_power_cut_left_in_the_middle_of_a_report_is_passed_over(latents: Path) -> None:
    assert _status(latents, "{name}.mkv", fps=8) == "done"
    report = latents.parent / "out" / "async-decode.jsonl"
    report.write_bytes(b"\0" * 99 + b"\n" + b"\xff\0half a line\n" + report.read_bytes() + b"\0" * 300)

    assert _status(latents, "{name}.mkv", fps=8) == "skipped"
    assert _status(latents, "{name}.mkv", fps=9) == "done"
    assert _status(latents, "{name}.mkv", fps=9) == "skipped"


@pytest.mark.parametrize(
    "content", ['{"latent": "in/a.pt"}\n', "in/a.pt\n", "[1, 2]\n", "7\n", '{"file": "in/a.pt"}\n']
)
def test_a_file_of_lines_that_is_no_report_is_left_as_it_is(latents: Path, content: str) -> None:
    list_of_latents = latents.parent / "list.jsonl"
    list_of_latents.write_text(content)

    with pytest.raises(SinkError, match="line 1: this is no report of ours; name another"):
        decode_many(latents, str(latents.parent / "{name}.mkv"), options=Options(fps=8), report=list_of_latents)

    assert list_of_latents.read_text() == content


@pytest.mark.skipif(os.name == "nt", reason="locks are POSIX's here")
def test_a_second_run_with_the_same_report_is_refused_while_the_first_one_writes_it(latents: Path) -> None:
    to = str(latents.parent / "out" / "{name}.mkv")
    refused = []

    def meanwhile(line: dict[str, Any]) -> None:
        if line["status"] == "running" and not refused:
            with pytest.raises(SinkError, match=r"another run is writing .*async-decode\.jsonl; wait") as told:
                decode_many(latents, to, options=Options(fps=8), device="cpu")
            refused.append(told)

    outcome = decode_many(latents, to, options=Options(fps=8), device="cpu", on_line=meanwhile)

    assert refused and [line["status"] for line in outcome.lines] == ["done"]
    assert _status(latents, "{name}.mkv", fps=8) == "skipped"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_does_not_keep_the_report(tmp_path: Path) -> None:
    clip = tmp_path / "report.jsonl"
    clip.touch()
    ends, end = os.pipe()
    with Journal(clip):
        child = os.fork()
        if not child:
            os.close(end)
            os.read(ends, 1)
            os._exit(0)
    try:
        with Journal(clip) as journal:
            assert journal.path == clip
    finally:
        os.close(end)
        os.waitpid(child, 0)


def test_a_report_is_written_through_what_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an SMB mount nothing else may touch a file that is locked."""
    report = tmp_path / "report.jsonl"
    report.touch()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with Journal(report) as journal, monkeypatch.context() as locked:
        locked.setattr("builtins.open", refused)
        facts = {"clip": "a", "latent": "a.pt", "file": str(tmp_path / "a.mp4"), "inputs": "", "stamp": ""}
        journal.write({**facts, "status": "failed"})

    assert '"status": "failed"' in report.read_text()
