"""Encoders in hardware are offered only once they have encoded a frame, and nobody waits for that."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from async_decode.sinks import H264_MP4, VIDEO_FORMATS, HardwareFormats
from async_decode.sinks.ffmpeg import ask, find_ffmpeg
from async_decode.sinks.video import hardware as video_hardware
from async_decode.sinks.video.hardware import hardware_formats
from tests.engine.sink_tools import PATIENCE, nothing_survives

#: One that works wherever x264 does, one whose hardware no machine has, one that ffmpeg does not even know.
CANDIDATES = {
    "works": H264_MP4,
    "broken": replace(H264_MP4, encoder="libx264", options=("-profile:v", "nonsense")),
    "unknown": replace(H264_MP4, encoder="h264_nobody"),
}


def test_only_what_has_encoded_a_frame_is_offered(tmp_path: Path) -> None:
    with nothing_survives(tmp_path):
        hardware = HardwareFormats(candidates=CANDIDATES)
        assert hardware.wait(PATIENCE) == {"works": H264_MP4}


def test_what_was_found_is_kept_for_the_same_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "encoders.json"
    HardwareFormats(cache, machine="a", candidates=CANDIDATES).wait(PATIENCE)
    assert json.loads(cache.read_text())["formats"] == ["works"]

    asked: list[str] = []
    monkeypatch.setattr(video_hardware, "works", lambda video, executable: asked.append(video.encoder))
    assert HardwareFormats(cache, machine="a", candidates=CANDIDATES).known() == {"works": H264_MP4}
    assert not asked
    # Another graphics card, or a file that is none.
    assert HardwareFormats(cache, machine="b", candidates=CANDIDATES).wait(PATIENCE) == {}
    assert asked
    cache.write_text("[")
    assert HardwareFormats(cache, machine="a", candidates=CANDIDATES).wait(PATIENCE) == {}


@pytest.mark.skipif(os.name == "nt", reason="needs a shell script")
def test_nobody_waits_for_a_driver_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text('#!/bin/sh\ncase "$*" in *-encoders*) echo " V..... libx264 H.264";; *) exec sleep 600;; esac\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", os.fspath(fake))
    monkeypatch.setattr(video_hardware, "PROBE_SECONDS", 0.2)
    with nothing_survives(tmp_path):
        hardware = HardwareFormats(candidates=CANDIDATES)
        assert hardware.known() == {}
        assert hardware.wait(PATIENCE) == {}


def test_no_ffmpeg_means_no_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")

    assert HardwareFormats(candidates=CANDIDATES).wait(PATIENCE) == {}


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
