"""Host memory does not grow with the clip, as long as only files are asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = r"""
import re, sys
from pathlib import Path
from async_decode import FramePipeline, choose_tap
from async_decode.sinks.files import OutputNames
from async_decode.sinks import ImageFilesSink, PngEncoder, TensorSink, VideoSink
from tests.engine.toy import ToyVAE, toy_latent

folder, latents, images = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "images"
sinks = [
    ImageFilesSink(OutputNames(folder, "frame"), PngEncoder(compress_level=1), writers=2),
    VideoSink(OutputNames(folder, "clip"), fps=24, preset="ultrafast"),
]
if images:
    sinks.append(TensorSink())
with FramePipeline(sinks) as pipeline:
    pipeline.decode(choose_tap(ToyVAE().video_decoder()), toy_latent(latents, size=96))
# Not ru_maxrss, which a process inherits from the one that started it.
print(pipeline.report.frames, int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


def _peak(folder: Path, latents: int, *, images: bool = False) -> tuple[int, float]:
    """Frames, and the peak of resident memory in MiB, of a run in a process of its own."""
    command = [sys.executable, "-c", _PROGRAM, str(folder), str(latents), "images" if images else "files"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(printed[0]), float(printed[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ten_times_the_frames_take_less_than_50_mib_more(tmp_path: Path) -> None:
    short_frames, short = _peak(tmp_path / "short", 11)
    long_frames, long = _peak(tmp_path / "long", 101)
    assert (short_frames, long_frames) == (41, 401)
    # A float32 clip of the longer one would take 169 MiB more; the images prove that the measurement sees it.
    _, with_images = _peak(tmp_path / "images", 101, images=True)
    assert with_images - short > 120
    assert long - short < 50
