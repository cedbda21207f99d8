"""kill -9 in the middle of an MP4: what has come to ffmpeg plays, under a name that says that it is not whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.comfyui.client import Client, Prompt
from tests.comfyui.outputs import names_in, wait_until
from tests.comfyui.server import Server
from tests.engine.sink_tools import psnr, run_ffmpeg

FRAMES, HEIGHT, WIDTH = 240, 96, 128
#: A second, which is a fragment.
FPS = 10.0


@pytest.mark.skipif(os.name == "nt", reason="needs SIGSTOP")
def test_mp4_of_a_killed_server_plays(start_server: Callable[..., Server], connect: Callable[..., Client]) -> None:
    doomed = start_server()
    client = connect(doomed)
    folder = doomed.output / "killed"
    prompt = Prompt()
    images = prompt.add(
        "TestImages", shape=f"{FRAMES},{HEIGHT},{WIDTH},3", seed=1, dtype="float32", layout="contiguous"
    )
    # Far more work than is done when the first fragments are seen.
    client.add(
        prompt,
        "AsyncSaveVideo",
        images=images,
        filename_prefix=f"{folder.name}/a",
        format="mp4 (H.264)",
        fps=FPS,
        quality=4,
        preset="veryslow",
    )
    client.queue(prompt)
    part = folder / "a_00001_.mp4.part"
    wait_until(lambda: part.is_file() and part.stat().st_size > 1_000_000, "fragments")
    (encoder,) = (pid for pid, name in doomed.children().items() if "ffmpeg" in name)

    # Stopped first: what sees the end of its input would still finish the file.
    os.kill(encoder, signal.SIGSTOP)
    doomed.kill()
    os.kill(encoder, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{encoder}/stat").exists() or _is_zombie(encoder), "the end of ffmpeg")

    assert names_in(folder) == [part.name]
    raw = run_ffmpeg("-v", "error", "-xerror", "-i", part, "-f", "rawvideo", "-pix_fmt", "gray", "-").stdout
    got = np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH)
    assert FPS <= len(got) < FRAMES
    # The last fragment may lack some of its frames.
    for index in (0, len(got) // 2):
        wanted = (_source()[index].clamp(0, 1) * 255).numpy() @ np.array([0.2126, 0.7152, 0.0722])
        assert psnr(got[index], wanted) > 25, index


def _is_zombie(pid: int) -> bool:
    """Whether nobody has asked for its status yet, as its new parent may not do for a while."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _source() -> torch.Tensor:
    """What ``TestImages`` draws."""
    return torch.rand(FRAMES, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1)) * 1.1 - 0.05
