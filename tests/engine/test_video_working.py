"""Only encoders that have encoded a frame are offered, and nobody waits for that."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from async_decode.sinks import H264_MP4, VIDEO_FORMATS, WorkingFormats
from async_decode.sinks.ffmpeg import ask, find_ffmpeg
from async_decode.sinks.video import working
from async_decode.sinks.video.hardware import hardware_formats
from tests.engine.sink_tools import PATIENCE, nothing_survives

#: One that works wherever x264 does, one whose hardware no machine has, one that ffmpeg does not even know.
CANDIDATES = {
    "works": H264_MP4,
    "broken": replace(H264_MP4, encoder="libx264", options=("-profile:v", "nonsense")),
    "unknown": replace(H264_MP4, encoder="h264_nobody"),
}


def formats(cache: Path | None = None, *, machine: str = "") -> WorkingFormats:
    """The candidates as hardware, and H.264 as software that is there anyway."""
    return WorkingFormats(cache, machine=machine, software={"software": H264_MP4}, hardware=CANDIDATES)


FOUND = {"software": H264_MP4, "works": H264_MP4}


def test_only_hardware_that_has_encoded_a_frame_is_offered(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        assert formats().wait(PATIENCE) == FOUND


def test_software_that_this_ffmpeg_has_not_or_that_fails_is_not_offered(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        found = WorkingFormats(software=CANDIDATES, hardware={})
        # Until that is known, it is.
        assert list(found.known()) in (list(CANDIDATES), ["works"])
        assert found.wait(PATIENCE) == {"works": H264_MP4}


def test_every_format_of_the_catalogue_works_with_a_current_ffmpeg() -> None:
    assert WorkingFormats(hardware={}).wait(PATIENCE) == VIDEO_FORMATS


def test_what_was_found_is_kept_for_the_same_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "encoders.json"
    formats(cache, machine="a").wait(PATIENCE)
    assert json.loads(cache.read_text())["formats"] == list(FOUND)

    asked: list[str] = []
    monkeypatch.setattr(working, "works", lambda video, executable: asked.append(video.encoder) or True)
    assert formats(cache, machine="a").known() == FOUND
    assert not asked
    # Another graphics card, another version of this package, or a file that is none.
    for other in (
        formats(cache, machine="b"),
        WorkingFormats(cache, machine="a", software={"new": H264_MP4}, hardware=CANDIDATES),
    ):
        asked.clear()
        other.wait(PATIENCE)
        assert asked
    cache.write_text("[")
    asked.clear()
    formats(cache, machine="a").wait(PATIENCE)
    assert asked


@pytest.mark.skipif(os.name == "nt", reason="needs a shell script")
def test_nobody_waits_for_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text('#!/bin/sh\ncase "$*" in *-encoders*) echo " V..... libx264 H.264";; *) exec sleep 600;; esac\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", os.fspath(fake))
    monkeypatch.setattr(working, "PROBE_SECONDS", 0.2)
    with nothing_survives(tmp_path):
        found = formats()
        assert found.known() == {"software": H264_MP4}
        # What has no driver was only slow.
        assert found.wait(PATIENCE) == {"software": H264_MP4}


def test_no_ffmpeg_means_no_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")

    assert formats().wait(PATIENCE) == {"software": H264_MP4}


@pytest.mark.parametrize("name", hardware_formats())
def test_every_option_is_one_of_the_encoders(name: str) -> None:
    """Where the hardware is missing nothing else could tell a misspelt option from that."""
    video = hardware_formats()[name]
    assert name not in VIDEO_FORMATS and set(video.presets) == set(H264_MP4.presets)
    told = ask(find_ffmpeg(), "-h", f"encoder={video.encoder}")
    if "AVOptions" not in told:
        pytest.skip(f"this ffmpeg was built without {video.encoder}")
    for preset in video.presets:
        given = [*video.speeds[preset], *video.quality(23), *video.options]
        for option, value in zip(given[::2], given[1::2], strict=True):
            # Those that ffmpeg itself has for every encoder.
            if option in ("-b:v", "-q:v", "-global_quality", "-tag:v"):
                continue
            found = re.search(rf"^  {option} +<(\w+)>.*\n((?:     \S.*\n)*)", told, re.MULTILINE)
            assert found is not None, f"{option} is none of {video.encoder}"
            assert value.isdigit() or re.search(rf"^     {value} ", found[2], re.MULTILINE), (option, value)
    assert video.pixel_format in told or video.upload
