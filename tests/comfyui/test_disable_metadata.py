"""With --disable-metadata nothing of the prompt is in the files, which are stock's to the byte all the same."""

from __future__ import annotations

from collections.abc import Callable

from async_decode.sinks.ffmpeg import find_ffmpeg
from tests.comfyui.client import Client, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import WORKFLOW, files_of, png_chunks
from tests.comfyui.server import Server
from tests.engine.sink_tools import exif_texts, tags_of


def test_nothing_but_the_frames(own_ffmpeg: Server, connect: Callable[[Server], Client], models: Models) -> None:
    place = own_ffmpeg.base / "ffmpeg"
    place.unlink(missing_ok=True)
    place.symlink_to(find_ffmpeg())
    client = connect(own_ffmpeg)
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 4, 6), models.load(prompt, "wan21")
    frames = client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="bare/ours")
    video = client.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=vae, filename_prefix="bare/video")
    webp = client.add(
        prompt,
        "AsyncVAEDecodeSaveVideo",
        samples=samples,
        vae=vae,
        filename_prefix="bare/webp",
        format="webp (animated)",
    )
    images = prompt.add("VAEDecode", samples=samples, vae=vae)
    stock = prompt.add("SaveImage", images=images, filename_prefix="bare/stock")

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW})

    got = [path.read_bytes() for path in files_of(own_ffmpeg, result, frames)]
    assert got == [path.read_bytes() for path in files_of(own_ffmpeg, result, stock)]
    assert len(got) == 9
    assert {kind for data in got for kind, _ in png_chunks(data)} == {b"IHDR", b"IDAT", b"IEND"}
    (path,) = files_of(own_ffmpeg, result, video)
    assert not {"prompt", "workflow"} & set(tags_of(path))
    (animated,) = files_of(own_ffmpeg, result, webp)
    assert exif_texts(animated) == {}
    assert not any(b"AsyncVAEDecode" in path.read_bytes() for path in (path, animated))
