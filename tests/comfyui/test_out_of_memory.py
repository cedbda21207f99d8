"""Memory runs out in the middle of a clip, in a running server: the files that are written stay, the rest follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import check_nothing_left, files_of, names_in, report_of
from tests.comfyui.server import Server

#: 33 frames.
LATENT = (1, 16, 9, 4, 6)


def test_frames_before_are_stocks_and_those_after_are_those_of_windows(
    client: Client, server: Server, models: Models
) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, *LATENT), models.load(prompt, "wan21")
    whole = prompt.add("VAEDecode", samples=samples, vae=vae)
    # The windows that are tried here, because these frames are smaller than the tiles that would come first.
    cut = prompt.add(
        "VAEDecodeTiled", samples=samples, vae=vae, tile_size=512, overlap=64, temporal_size=16, temporal_overlap=8
    )
    nodes = [
        prompt.add("SaveImage", images=images, filename_prefix=f"short/{name}")
        for name, images in (("whole", whole), ("cut", cut))
    ]
    stock = client.run(prompt)
    whole_files, cut_files = (files_of(server, stock, node) for node in nodes)
    prompt = Prompt()
    samples, vae = random_latent(prompt, *LATENT), models.load(prompt, "wan21")
    vae = prompt.add("TestDecoderStep", vae=vae, step=4, action="out of memory", gate="unused")
    saving = client.add(
        prompt,
        "AsyncVAEDecodeSaveFrames",
        samples=samples,
        vae=vae,
        chunk_size=1,
        filename_prefix="short/ours",
        # Not what stock's files have.
        compression=1,
    )

    result = client.run(prompt)

    ours = files_of(server, result, saving)
    assert [path.name for path in ours] == [f"ours_{number:05}_.png" for number in range(1, 34)]
    assert len(names_in(server.output / "short")) == 3 * 33
    report = report_of(result, saving)
    (warning,) = report["warnings"]
    delivered = int(warning.partition("memory ran out at frame ")[2].split(" ")[0])
    assert 0 < delivered < 33
    assert np.array_equal(_pixels(ours[:delivered]), _pixels(whole_files[:delivered]))
    after, wanted = _pixels(ours[delivered:]), _pixels(cut_files[delivered:])
    # Blended in another order, a value may fall on the other side of a step.
    assert np.abs(after.astype(int) - wanted).max() <= 1
    assert np.mean(after != wanted) < 1e-3
    assert not np.array_equal(wanted, _pixels(whole_files[delivered:]))
    assert (report["outcome"], report["frames"]) == ("completed", 33)
    assert (report["decoding"]["kind"], report["decoding"]["exact"]) == ("windows", False)
    check_nothing_left(server)


def _pixels(paths: list[Path]) -> np.ndarray:
    """``(T, H, W, C)`` uint8."""
    return np.stack([np.asarray(Image.open(path)) for path in paths])
