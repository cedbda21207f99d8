"""The keyword ``decoder`` from every door to the place where blocks are replaced, and where the proofs are kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import async_decode
from async_decode import DecodeError
from async_decode.cluster import DecodeActor, Options, VAEPlace, decode_many
from async_decode.decoders import DecoderUse, cache_folder
from async_decode.decoders.verdicts import StepPlan, Verdicts
from async_decode.demo import load_latent
from async_decode.pipeline import frame_pipeline
from tests.engine.toy import ToyVAE, toy_latent

Seen = list[tuple[str, Path | None]]


@pytest.fixture
def latent(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "a.pt"
    path.parent.mkdir()
    torch.save(load_latent()[:, :, :1, :6, :8].clone(), path)
    return path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the place was told that replaces blocks."""
    told: Seen = []

    @contextmanager
    def recorded(_model: Any, *, mode: str, verdicts: Path | None, **_options: Any) -> Iterator[DecoderUse]:
        told.append((mode, verdicts))
        yield DecoderUse()

    monkeypatch.setattr(frame_pipeline, "faster", recorded)
    return told


def _decode(_latent: Path, out: Path, **options: Any) -> None:
    async_decode.decode(ToyVAE().video_decoder(), toy_latent(1), out / "*.png", **options)


def _stream(_latent: Path, _out: Path, **options: Any) -> None:
    list(async_decode.stream(ToyVAE().video_decoder(), toy_latent(1), **options))


def _many(latent: Path, out: Path, **options: Any) -> None:
    decode_many(latent, str(out / "{name}.*.png"), device="cpu", **options)


def _actor(latent: Path, out: Path, **options: Any) -> None:
    actor = DecodeActor(VAEPlace(), to=str(out / "{name}.*.png"), options=Options(), device="cpu", **options)
    actor({"latent": [str(latent)]})


def _command(latent: Path, out: Path, **options: Any) -> None:
    pytest.importorskip("rich", reason="the extra 'cli' is not installed")
    from async_decode.__main__ import main

    told = [part for name, value in options.items() for part in (f"--{name}", value)]
    main(["decode", str(latent), "--out", str(out / "{name}.*.png"), "--device", "cpu", *told])


DOORS = [_decode, _stream, _many, _actor, _command]


@pytest.mark.parametrize("options", [{}, {"decoder": "auto"}, {"decoder": "stock"}])
@pytest.mark.parametrize("door", DOORS)
def test_the_keyword_and_the_users_cache_folder_arrive(
    door: Callable[..., None], options: dict[str, str], latent: Path, seen: Seen, tmp_path: Path
) -> None:
    door(latent, tmp_path / "out", **options)

    assert seen == [(options.get("decoder", "auto"), cache_folder())]


@pytest.mark.parametrize("door", [_decode, _stream, _many, _actor])
def test_another_word_is_refused(door: Callable[..., None], latent: Path, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="decoder: expected auto or stock, got 'fast'"):
        door(latent, tmp_path / "out", decoder="fast")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("decoder", "words"), [("auto", "it runs on cpu"), ("stock", "as asked for")])
def test_report_and_journal_say_why_it_was_stocks(decoder: Any, words: str, latent: Path, tmp_path: Path) -> None:
    vae, toy = ToyVAE().video_decoder(), toy_latent(1)
    stream = async_decode.stream(vae, toy, decoder=decoder)
    list(stream)
    outcome = decode_many(latent, str(tmp_path / "{name}.*.png"), device="cpu", decoder=decoder)
    line = json.loads(outcome.report.read_text(encoding="utf-8").splitlines()[-1])

    said = [async_decode.decode(vae, toy, decoder=decoder).report.decoder, stream.report.decoder, line["decoder"]]

    assert all(one.startswith("stock's: ") and words in one for one in said), said


def test_a_clip_is_whole_whichever_decoder_made_it(latent: Path, tmp_path: Path) -> None:
    def statuses(decoder: Any) -> list[str]:
        outcome = decode_many(latent, str(tmp_path / "{name}.*.png"), device="cpu", decoder=decoder)
        return [line["status"] for line in outcome.lines]

    assert statuses("auto") == ["done"]
    assert statuses("stock") == ["skipped"]


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "{here}/cache"}, "cache"),
        ("linux", {"XDG_CACHE_HOME": "not/absolute"}, "home/.cache"),
        ("darwin", {"XDG_CACHE_HOME": "{here}/cache"}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "{here}/local"}, "local"),
        ("win32", {}, "home/AppData/Local"),
    ],
)
def test_cache_folder_is_where_the_platform_has_it(
    platform: str, variables: dict[str, str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(here=tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")

    assert cache_folder() == tmp_path / folder / "async-vae-decode" / "decoders"
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_saves_later_does_not_undo_anothers_failed_audit(tmp_path: Path) -> None:
    first, second = (Verdicts(tmp_path, {"card": "any"}) for _ in range(2))
    first.out, first.changed = "an audit failed", True
    first.save()
    second.steps["a shape"], second.changed = StepPlan(), True
    second.save()

    third = Verdicts(tmp_path, {"card": "any"})
    assert third.out == "an audit failed"
    assert set(third.steps) == {"a shape"}


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)

    assert cache_folder() is None
