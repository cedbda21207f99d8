"""``decode --comfyui``: core's own class decodes, without a server, and the frames are those of its ``vae.decode``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from async_decode.demo import WEIGHTS_PATH, load_latent
from tests.comfyui.cores import Core

safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

HERE = Path(__file__).parent


def test_frames_are_those_of_core(core: Core, tmp_path: Path) -> None:
    if tuple(map(int, core.version.split(".")[:2])) < (0, 33):
        pytest.skip("this core does not read a narrow VAE's width from its file")
    latent = tmp_path / "a.latent"
    part = load_latent()[:, :, :4, :6, :8].contiguous()
    safetensors.save_file({"latent_tensor": part, "latent_format_version_0": torch.tensor([])}, str(latent))
    shim, program = HERE / "core_shim" / "bootstrap.py", HERE / "decode_in_core.py"

    done = subprocess.run(
        [core.python, shim, program, core.path, latent, WEIGHTS_PATH, tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=core.path,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == 0
    assert (told["line"]["frames"], told["line"]["decoding"], told["line"]["exact"]) == (13, "tapped", True)
    assert told["line"]["hash"] == told["stock"]
    # The nodes' code met the engine that ran already.
    assert told["doubled"] == []
