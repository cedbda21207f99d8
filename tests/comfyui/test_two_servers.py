"""Two servers that save with one prefix into one folder lose no file, and neither does one that is killed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.comfyui.client import Client, Output, Prompt
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, names_in, wait_until
from tests.comfyui.server import Server


def images(prompt: Prompt, shape: str, seed: int) -> Output:
    return prompt.add("TestImages", shape=shape, seed=seed, dtype="float32", layout="contiguous")


def alone(server: Server, client: Client, frames: int, seed: int, folder: str) -> list[bytes]:
    """The files of ``images`` as one server on its own writes them, without metadata in the way."""
    prompt = Prompt()
    node = client.add(
        prompt, "AsyncSaveFrames", images=images(prompt, f"{frames},24,32,3", seed), filename_prefix=f"{folder}/a"
    )
    return [pixels(path) for path in files_of(server, client.run(prompt), node)]


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_files_of_both_are_there_and_each_server_names_its_own(
    server: Server,
    client: Client,
    models: Models,
    start_server: Callable[..., Server],
    connect: Callable[[Server], Client],
) -> None:
    other = start_server(output=server.output)
    others = connect(other)
    folder = server.output / "shared"

    # The one is held in the middle of its clip …
    prompt, gate = Prompt(), uuid.uuid4().hex
    latent, vae = random_latent(prompt, 1, 16, 9, 2, 3), models.load(prompt, "wan21")
    armed = prompt.add("TestDecoderStep", vae=vae, step=4, action="hold", gate=gate)
    held = client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=latent, vae=armed, filename_prefix="shared/a", buffer_depth=1
    )
    running = client.queue(prompt)
    client.events.wait("probe.held", gate=gate)
    before = wait_until(lambda: names_in(folder), "first files")
    # … while the other saves two whole clips, at once with itself.
    between = Prompt()
    nodes = [
        others.add(
            between,
            "AsyncSaveFrames",
            images=images(between, "40,24,32,3", seed),
            filename_prefix="shared/a",
            writers=3,
        )
        for seed in (1, 2)
    ]
    second = others.run(between)
    client.open_gate(gate)
    first = client.wait(running)

    assert first.ok
    ours = files_of(server, first, held)
    theirs = [files_of(other, second, node) for node in nodes]
    everything = [*ours, *theirs[0], *theirs[1]]
    assert len({path.name for path in everything}) == len(everything) == 33 + 40 + 40
    assert names_in(folder) == sorted(path.name for path in everything)
    # The clip that was held lies on both sides of those that came between.
    assert set(before) <= {path.name for path in ours} and ours[0] < min(theirs[0]) and max(theirs[0]) < ours[-1]
    # Each file holds the frame that its server named it for.
    for seed, paths in zip((1, 2), theirs, strict=True):
        assert [pixels(path) for path in paths] == alone(server, client, 40, seed, f"alone-{seed}")
    stock = Prompt()
    decoded = stock.add("VAEDecode", samples=random_latent(stock, 1, 16, 9, 2, 3), vae=models.load(stock, "wan21"))
    node = stock.add("SaveImage", images=decoded, filename_prefix="alone-held/a")
    assert [pixels(path) for path in ours] == [pixels(path) for path in files_of(server, client.run(stock), node)]


def test_every_file_of_a_killed_server_that_has_its_final_name_is_whole(
    server: Server, client: Client, models: Models, start_server: Callable[..., Server], connect: Callable[..., Client]
) -> None:
    doomed = start_server(output=server.output)
    client_of_doomed = connect(doomed)
    folder = server.output / "killed"
    prompt = Prompt()
    # Far more work than is done when the first files are seen.
    client_of_doomed.add(
        prompt,
        "AsyncSaveFrames",
        images=images(prompt, "100,512,768,3", 1),
        filename_prefix="killed/a",
        compression=9,
        writers=2,
    )
    client_of_doomed.queue(prompt)
    wait_until(lambda: len([name for name in names_in(folder) if name.endswith(".png")]) >= 3, "three whole files")

    doomed.kill()

    left = names_in(folder)
    whole = [name for name in left if re.fullmatch(r"a_\d{5}_\.png", name)]
    assert 3 <= len(whole) < 100
    # What was being written says that it is not whole.
    assert set(left) - set(whole) == {name for name in left if re.fullmatch(r"a_\d{5}_\.png\.part", name)} != set()
    for name in whole:
        with Image.open(folder / name) as image:
            image.load()
            assert image.size == (768, 512)
    # The next clip takes free numbers and replaces nothing.
    contents = {name: (folder / name).read_bytes() for name in left}
    after = Prompt()
    node = client.add(after, "AsyncSaveFrames", images=images(after, "5,24,32,3", 3), filename_prefix="killed/a")
    saved = files_of(server, client.run(after), node)
    assert len(saved) == 5 and not {path.name for path in saved} & set(left)
    assert {name: (folder / name).read_bytes() for name in left} == contents
