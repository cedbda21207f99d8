"""Every format of image files, as the nodes write it in a real server: pixels and metadata, read by other programs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import report_of
from tests.comfyui.server import Server
from tests.engine.sink_tools import psnr, run_ffmpeg

FRAMES, HEIGHT, WIDTH = 25, 33, 47
WORKFLOW = {"nodes": [{"id": 1, "title": "é 漢"}], "version": 0.4}
OPTIONS: dict[str, Any] = {
    "chunk_size": 4,
    "buffer_depth": 3,
    "compression": 4,
    "quality": 95,
    "input_color_space": "sRGB",
    "writers": 2,
}
#: By format: extension, codec and pixel format as ffmpeg names them, and the type to read the pixels as.
EXPECTED = {
    "png": (".png", "png", "rgb24", "u1"),
    "png 16-bit": (".png", "png", "rgb48be", ">u2"),
    "jpeg": (".jpg", "mjpeg", "yuvj444p", None),
    "webp": (".webp", "webp", "yuv420p", None),
    "webp lossless": (".webp", "webp", "argb", None),
    "avif": (".avif", "av1", "yuv444p", None),
    "avif 10-bit": (".avif", "av1", "yuv444p10le", None),
    "tiff": (".tif", "tiff", "rgb48le", "<u2"),
    "exr half": (".exr", "exr", "gbrpf16le", "<f2"),
    "exr float": (".exr", "exr", "gbrpf32le", "<f4"),
}


def save(prompt: Prompt, source: Output, format: str, **options: Any) -> Output:
    prefix = f"formats/{format.replace(' ', '-')}"
    return prompt.add("AsyncSaveFrames", images=source, filename_prefix=prefix, format=format, **{**OPTIONS, **options})


def files(server: Server, result: Result, node: Output) -> list[Path]:
    return [server.output / entry["subfolder"] / entry["filename"] for entry in result.ui(node)["images"]]


def read(paths: list[Path], dtype: str | None, pixels: str) -> np.ndarray:
    """All frames, ``(T, H, W, 3)``: by ffmpeg in their own pixel format, or by Pillow in 8 bits."""
    if dtype is None:
        return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    first = paths[0]
    pattern = first.with_name(first.name.replace("_00001_", "_%05d_"))
    raw = run_ffmpeg("-v", "error", "-i", pattern, "-pix_fmt", pixels, "-f", "rawvideo", "-").stdout
    frames = np.frombuffer(raw, dtype)
    if not pixels.startswith("gbr"):
        return frames.reshape(-1, HEIGHT, WIDTH, 3)
    return frames.reshape(-1, 3, HEIGHT, WIDTH)[:, [2, 0, 1]].transpose(0, 2, 3, 1)


def texts(path: Path) -> dict[str, Any]:
    """The texts in a file, by their names."""
    if path.suffix == ".exr":
        found, content, at = {}, path.read_bytes(), 8
        while content[at]:
            name, kind, _ = content[at : at + 600].split(b"\0", 2)
            at += len(name) + len(kind) + 2
            (size,) = struct.unpack_from("<i", content, at)
            if kind == b"string":
                found[name.decode()] = content[at + 4 : at + 4 + size].decode()
            at += 4 + size
    else:
        with Image.open(path) as image:
            if path.suffix == ".png":
                found = dict(image.text)  # type: ignore[attr-defined]
            else:
                parts = [image.getexif().get(tag, "").partition(":") for tag in (0x0110, 0x010F)]
                found = {name: text for name, _, text in parts if name}
    return {name: json.loads(text) for name, text in found.items()}


@pytest.mark.parametrize("format", EXPECTED)
def test_every_format_holds_the_frames_and_the_workflow(server: Server, client: Client, format: str) -> None:
    extension, codec, pixels, dtype = EXPECTED[format]
    prompt = Prompt()
    source = prompt.add(
        "TestImages", shape=f"{FRAMES},{HEIGHT},{WIDTH},3", seed=1, dtype="float32", layout="contiguous"
    )
    node = save(prompt, source, format)
    kept = prompt.add("TestSaveTensor", images=source)

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    paths = files(server, result, node)
    stem = format.replace(" ", "-")
    assert [path.name for path in paths] == [f"{stem}_{number:05}_{extension}" for number in range(1, FRAMES + 1)]
    told = run_ffmpeg("-i", paths[0], check=False).stderr.decode()
    assert f"Video: {codec}" in told and f"{pixels}" in told and f"{WIDTH}x{HEIGHT}" in told, told
    frames = client.tensor(result, kept)
    got = read(paths, dtype, pixels)
    if dtype in (">u2", "<u2"):
        assert np.array_equal(got, (frames.clamp(0, 1) * 65535).round().numpy().astype(np.uint16))
    elif dtype in ("<f2", "<f4"):
        exact = frames.double()
        light = torch.where(exact <= 0.04045, exact / 12.92, ((exact.clamp(min=0) + 0.055) / 1.055) ** 2.4).numpy()
        assert np.allclose(got, light, rtol=1e-3 if dtype == "<f2" else 2e-6, atol=1e-7)
    else:
        wanted = np.clip(255.0 * frames.numpy(), 0, 255).astype(np.uint8)
        if "png" in format or "lossless" in format:
            assert np.array_equal(got, wanted)
        else:
            # Noise is hard on both; any other frame is far away.
            assert psnr(got, wanted) > psnr(got, np.roll(wanted, 1, axis=0)) + 3
    assert {json.dumps(texts(path), sort_keys=True) for path in paths} == {
        json.dumps({"prompt": prompt.nodes, "workflow": WORKFLOW}, sort_keys=True)
    }


@pytest.mark.parametrize("format", ["webp lossless", "tiff"])
def test_the_decode_node_writes_the_same_files(server: Server, client: Client, models: Models, format: str) -> None:
    prompt = Prompt()
    latent, vae = random_latent(prompt, 1, 16, 3, 4, 6), models.load(prompt, "wan21")
    ours = prompt.add(
        "AsyncVAEDecodeSaveFrames",
        samples=latent,
        vae=vae,
        filename_prefix="formats/decoded",
        format=format,
        output_images=False,
        **OPTIONS,
    )
    beside = save(prompt, prompt.add("VAEDecode", samples=latent, vae=vae), format)

    result = client.run(prompt)

    saved, wanted = files(server, result, ours), files(server, result, beside)
    assert len(saved) == 9
    assert [path.read_bytes() for path in saved] == [path.read_bytes() for path in wanted]


def test_frames_with_alpha_as_jpeg_lose_it_and_say_so(server: Server, client: Client) -> None:
    prompt = Prompt()
    source = prompt.add("TestImages", shape="2,8,8,4", seed=1, dtype="float32", layout="contiguous")
    node = save(prompt, source, "jpeg")

    result = client.run(prompt)

    assert len(files(server, result, node)) == 2
    assert report_of(result, node)["warnings"] == ["jpeg has no alpha: it was left out; png and webp files keep it"]


def test_what_does_not_fit_into_the_files_is_said(server: Server, client: Client) -> None:
    prompt = Prompt()
    source = prompt.add("TestImages", shape="2,8,8,3", seed=1, dtype="float32", layout="contiguous")
    node = save(prompt, source, "jpeg")

    result = client.run(prompt, extra_pnginfo={"workflow": {"text": "x" * 70_000}})

    report = report_of(result, node)
    assert report["warnings"] == [
        "too long for a jpeg file, left out: workflow; webp and png files have no limit",
    ]
    assert set(texts(files(server, result, node)[0])) == {"prompt"}


@pytest.mark.parametrize(("format", "width"), [("webp", 16384), ("jpeg", 65504)])
def test_frames_too_large_for_a_format_are_refused_before_anything_is_decoded(
    server: Server, client: Client, models: Models, format: str, width: int
) -> None:
    prompt = Prompt()
    latent, vae = random_latent(prompt, 1, 16, 1, 1, width // 8), models.load(prompt, "wan21")
    client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=latent, vae=vae, filename_prefix="large/a", format=format)

    prompt_id = client.queue(prompt)
    result = client.wait(prompt_id)

    assert result.error is not None
    assert f"{format} files hold at most" in result.error["exception_message"]
    assert f"got {width}x8; save as png instead" in result.error["exception_message"]
    assert client.events_of("async_vae_decode.started", prompt=prompt_id) == []
    assert not list((server.output / "large").glob("*"))
