"""Async VAE Decode & Save Frames leaves the files that VAE Decode and Save Image leave."""

from __future__ import annotations

import json

import pytest

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import WORKFLOW, check_nothing_left, files_of, names_in, png_chunks, prompt_in, report_of
from tests.comfyui.server import Server

#: Chunks of a PNG file that hold text.
TEXT = {b"tEXt", b"zTXt", b"iTXt"}


def saving_prompt(client: Client, models: Models, folder: str, **options: object) -> tuple[Prompt, Output, Output]:
    """A prompt that saves a clip of 9 frames by our node and by stock's two."""
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 3, 4, 6, seed=7), models.load(prompt, "wan21")
    ours = client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix=f"{folder}/ours", **options
    )
    images = prompt.add("VAEDecode", samples=samples, vae=vae)
    return prompt, ours, prompt.add("SaveImage", images=images, filename_prefix=f"{folder}/stock")


@pytest.mark.parametrize(
    "options", [{}, {"chunk_size": 1, "buffer_depth": 1, "writers": 1}, {"chunk_size": 64, "writers": 5}]
)
def test_files_and_metadata_are_those_of_save_image(
    client: Client, server: Server, models: Models, options: dict[str, int]
) -> None:
    folder = f"png-{len(options)}"
    prompt, ours, stock = saving_prompt(client, models, folder, **options)

    result = client.run(prompt, extra_pnginfo={"workflow": WORKFLOW, "more": [1]})

    got, wanted = files_of(server, result, ours), files_of(server, result, stock)
    assert [path.name for path in got] == [f"ours_{number:05}_.png" for number in range(1, 10)]
    assert result.ui(ours)["images"][0] == {**result.ui(stock)["images"][0], "filename": "ours_00001_.png"}
    assert names_in(server.output / folder) == sorted(path.name for path in [*got, *wanted])
    for one, other in zip(got, wanted, strict=True):
        chunks, stock_chunks = png_chunks(one.read_bytes()), png_chunks(other.read_bytes())
        texts = [content for kind, content in chunks if kind in TEXT]
        assert [text.partition(b"\0")[0] for text in texts] == [b"prompt", b"workflow", b"more"]
        assert prompt_in(texts[0].partition(b"\0")[2]) == prompt.as_sent()
        assert json.loads(texts[1].partition(b"\0")[2]) == WORKFLOW
        # The texts, too, and their place among the rest.
        assert chunks == stock_chunks
        assert one.read_bytes() == other.read_bytes()
    assert len({path.read_bytes() for path in got}) == 9
    report = report_of(result, ours)
    assert (report["outcome"], report["frames"], report["warnings"]) == ("completed", 9, [])
    check_nothing_left(server)


def test_counters_go_on_after_files_that_are_there(client: Client, server: Server, models: Models) -> None:
    prompt, ours, _ = saving_prompt(client, models, "counted")
    client.run(prompt)
    (server.output / "counted" / "ours_00041_.png").write_bytes(b"somebody else's")
    again, ours, _ = saving_prompt(client, models, "counted", chunk_size=3)

    result = client.run(again)

    got = files_of(server, result, ours)
    assert [path.name for path in got] == [f"ours_{number:05}_.png" for number in range(42, 51)]
    assert (server.output / "counted" / "ours_00041_.png").read_bytes() == b"somebody else's"


def test_variables_in_the_prefix(client: Client, server: Server, models: Models) -> None:
    prompt = Prompt()
    samples, vae = random_latent(prompt, 1, 16, 2, 2, 3), models.load(prompt, "wan21")
    prefix = "sized/%width%x%height%-%batch_num%"
    ours = client.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix=f"{prefix}-ours")
    images = prompt.add("VAEDecode", samples=samples, vae=vae)
    stock = prompt.add("SaveImage", images=images, filename_prefix=f"{prefix}-stock")

    result = client.run(prompt)

    got = [path.name for path in files_of(server, result, ours)]
    assert got[:2] == ["24x16-0-ours_00001_.png", "24x16-1-ours_00002_.png"]
    assert got == [path.name.replace("stock", "ours") for path in files_of(server, result, stock)]
