"""Latents and clips in an object store, over HTTP: whole or not at all, whatever fails."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from async_decode.__main__ import main
from async_decode.demo import load_latent

for module in ("rich", "s3fs", "boto3", "moto.server"):
    pytest.importorskip(module, reason=f"{module.partition('.')[0]} is not installed")

from PIL import Image  # noqa: E402
from s3fs import S3FileSystem  # noqa: E402

from tests.engine.object_store import KEYS, ObjectStore  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # Nobody else's, and no waiting for what fails on purpose.
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    found = ObjectStore()
    for name, value in found.environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield found
    found.close()
    S3FileSystem.clear_instance_cache()


def latent(seed: int = 0, latents: int = 2) -> bytes:
    """A file with a latent that decodes in a moment."""
    part = load_latent()[:, :, :latents, :6, :8]
    file = io.BytesIO()
    torch.save(part + 0.1 * torch.randn(part.shape, generator=torch.Generator().manual_seed(seed)), file)
    return file.getvalue()


def decode(folder: Path, *arguments: str, out: str) -> int:
    arguments = ("decode", *arguments, "--out", out, "--device", "cpu", "--report", str(folder / "report.jsonl"))
    return main([*arguments, *(() if "*" in out or "%" in out else ("--fps", "8"))])


def lines(folder: Path, *statuses: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "report.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in found if line["status"] in (statuses or ("done",))]


def test_clips_go_from_store_to_store_with_one_upload_each(store: ObjectStore, tmp_path: Path) -> None:
    # Brackets are no pattern in a name.
    for number, name in enumerate(("a", "b [final]")):
        store.put(f"latents/{name}.pt", latent(number))
        (tmp_path / f"{name}.pt").write_bytes(latent(number))
    store.asked.clear()

    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 0

    assert store.names("clips/") == ["clips/a.mkv", "clips/b [final].mkv"]
    # Nothing is copied, and nothing has to be removed.
    written = [asked for asked in store.asked if not asked.startswith(("GET", "HEAD"))]
    assert written == ["PUT /bucket/clips/a.mkv", "PUT /bucket/clips/b [final].mkv"]
    told = lines(tmp_path)
    assert [line["bytes"] for line in told] == [len(store.get(name)) for name in store.names("clips/")]
    assert decode(tmp_path, str(tmp_path), out=str(tmp_path / "{name}.mkv")) == 0
    here = lines(tmp_path)[len(told) :]
    assert [line["hash"] for line in told] == [line["hash"] for line in here]
    assert [line["bytes"] for line in told] == [line["bytes"] for line in here]


def test_a_run_that_has_nothing_to_do_lists_each_folder_once(store: ObjectStore, tmp_path: Path) -> None:
    for number in range(3):
        store.put(f"latents/{number}.pt", latent(number))
    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 0
    store.asked.clear()

    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 0

    assert [asked.partition("?")[0] for asked in store.asked] == ["GET /bucket", "GET /bucket"]
    assert len(lines(tmp_path)) == 3
    # Another process may have written meanwhile: what was listed is not taken for what is there.
    store.client.delete_object(Bucket="bucket", Key="clips/1.mkv")
    store.put("latents/2.pt", latent(7))
    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 0
    assert [line["clip"] for line in lines(tmp_path)[3:]] == ["s3://bucket/clips/1.mkv", "s3://bucket/clips/2.mkv"]


@pytest.mark.parametrize("pattern", ["*", "%04d"])
def test_frames_are_those_of_a_local_run_and_no_older_one_stays(
    store: ObjectStore, tmp_path: Path, pattern: str
) -> None:
    store.put("latents/a.pt", latent())
    (tmp_path / "a.pt").write_bytes(latent())
    out = f"s3://bucket/frames/{{name}}/{pattern}.png"

    assert decode(tmp_path, "s3://bucket/latents/a.pt", out=out) == 0

    assert decode(tmp_path, str(tmp_path / "a.pt"), out=str(tmp_path / "here" / f"{pattern}.png")) == 0
    files = sorted((tmp_path / "here").iterdir())
    assert len(files) == 5
    assert store.names("frames/") == [f"frames/a/{path.name}" for path in files]
    assert [store.get(name) for name in store.names("frames/")] == [path.read_bytes() for path in files]
    assert decode(tmp_path, "s3://bucket/latents/a.pt", out=out) == 0
    assert len(lines(tmp_path)) == 2
    # A shorter clip; what is no frame of it is left alone.
    store.put("latents/a.pt", latent(latents=1))
    store.put("frames/a/notes.png", b"mine")
    assert decode(tmp_path, "s3://bucket/latents/a.pt", out=out) == 0
    assert store.names("frames/") == [f"frames/a/{files[0].name}", "frames/a/notes.png"]


def test_what_somebody_else_has_put_there_is_left_alone(store: ObjectStore, tmp_path: Path) -> None:
    store.put("latents/a.pt", latent())
    store.put("clips/a.mkv", b"mine")

    for _ in range(2):
        assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 3

    assert store.get("clips/a.mkv") == b"mine"


@pytest.mark.parametrize(("out", "bad"), [("{name}.mkv", "b.mkv"), ("{name}/*.png", "b/00003.png")])
def test_an_upload_that_fails_fails_its_clip_alone(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, bad: str
) -> None:
    for number, name in enumerate("abc"):
        store.put(f"latents/{name}.pt", latent(number))
    store.fault = lambda method, path: 500 if method == "PUT" and path.endswith(bad) else None

    assert decode(tmp_path, "s3://bucket/latents", out=f"s3://bucket/clips/{out}") == 3

    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert f"s3://bucket/clips/{bad} cannot be written: We are broken" in said
    there = store.names("clips/")
    assert f"clips/{bad}" not in there and not any("part" in name for name in there)
    assert [line["status"] for line in lines(tmp_path, "done", "failed")].count("failed") == 1
    store.fault = lambda _method, _path: None
    assert decode(tmp_path, "s3://bucket/latents", out=f"s3://bucket/clips/{out}") == 0
    assert len(lines(tmp_path)) == 3
    assert f"clips/{bad}" in store.names("clips/")


@pytest.mark.parametrize(
    ("latents", "out", "words"),
    [
        ("s3://bukcet/latents", "s3://bucket/{name}.mkv", "s3://bukcet/latents cannot be listed: The specified bucket"),
        ("s3://bucket/latents", "s3://bukcet/c/{name}.mkv", "s3://bukcet/c/ cannot be listed: The specified bucket"),
        ("s3://bucket/latents", "s3://bukcet/{name}/*.png", "s3://bukcet/a/ cannot be listed: The specified bucket"),
        ("s3://bucket/other", "s3://bucket/{name}.mkv", "s3://bucket/other: there are no latents"),
    ],
)
def test_a_bucket_that_is_not_there_is_named_and_not_made(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], latents: str, out: str, words: str
) -> None:
    for name in "ab":
        store.put(f"latents/{name}.pt", latent())

    assert decode(tmp_path, latents, out=out) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert [bucket["Name"] for bucket in store.client.list_buckets()["Buckets"]] == ["bucket"]
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_reached_is_one_line(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/{name}.mkv") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: s3://bucket/latents cannot be listed: Unable to locate credentials"

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    # No other port of this machine is known to be free of servers.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    S3FileSystem.clear_instance_cache()
    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/{name}.mkv") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: s3://bucket/latents cannot be listed: Could not connect to the endpoint")


def test_a_store_that_goes_away_ends_the_run_with_one_line_and_the_next_one_goes_on(
    store: ObjectStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate("abc"):
        store.put(f"latents/{name}.pt", latent(number))
    # From the second clip on.
    store.fault = lambda _method, _path: 503 if any(asked.endswith("clips/b.mkv") for asked in store.asked) else None

    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 2

    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("failed", "error"))]
    assert said.startswith("error: s3://bucket/clips/b.mkv cannot be read: ")
    store.fault = lambda _method, _path: None
    store.asked.clear()
    assert store.names("clips/") == ["clips/a.mkv"]
    assert decode(tmp_path, "s3://bucket/latents", out="s3://bucket/clips/{name}.mkv") == 0
    assert [line["clip"][-5:] for line in lines(tmp_path)] == ["a.mkv", "b.mkv", "c.mkv"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's here")
def test_a_kill_in_the_middle_leaves_only_whole_objects(store: ObjectStore, tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        store.put(f"latents/{name}.pt", latent(number))
    reached, go_on = threading.Event(), threading.Event()

    def hang(method: str, path: str) -> int | None:
        if method == "PUT" and path.endswith("b/00003.png"):
            reached.set()
            go_on.wait(60)
            return 500
        return None

    store.fault = hang
    out = "s3://bucket/frames/{name}/*.png"
    arguments = ["decode", "s3://bucket/latents", "--out", out, "--report", str(tmp_path / "report.jsonl")]
    command = [sys.executable, "-m", "async_decode", *arguments, "--device", "cpu"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ}, stderr=subprocess.PIPE)
    try:
        assert reached.wait(120)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
        go_on.set()
    store.fault = lambda _method, _path: None

    there = store.names("frames/")
    assert there == [*(f"frames/a/{n:05}.png" for n in range(1, 6)), "frames/b/00001.png", "frames/b/00002.png"]
    for name in there:
        Image.open(io.BytesIO(store.get(name))).load()
    assert [line["clip"] for line in lines(tmp_path)] == ["s3://bucket/frames/a"]
    assert decode(tmp_path, "s3://bucket/latents", out=out) == 0
    assert [line["clip"] for line in lines(tmp_path)] == ["s3://bucket/frames/a", "s3://bucket/frames/b"]
    assert len(store.names("frames/b/")) == 5
