"""What nodes leave behind: files, reports, and what must not stay in a server that has nothing to do."""

from __future__ import annotations

import itertools
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.comfyui.client import Client, Output, Prompt, Result
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.server import Server

Seen = TypeVar("Seen")

#: The longest that a test waits for what should happen at once, in seconds.
PATIENCE = 60.0
#: What a front end sends to have it saved in the files; with what is special in JSON, PNG, ffmpeg and UTF-8.
WORKFLOW = {"nodes": [{"id": 1, "title": 'é 漢 = ; # \\ " \n'}], "version": 0.4}

_seeds = itertools.count(1000)


def files_of(server: Server, result: Result, node: Output) -> list[Path]:
    """The files that a node names in its ``ui``, in that order; all of them are there."""
    named = [server.output / entry["subfolder"] / entry["filename"] for entry in result.ui(node)["images"]]
    missing = [path for path in named if not path.is_file()]
    assert not missing, f"named, but not there: {missing}"
    return named


def report_of(result: Result, node: Output) -> dict[str, Any]:
    """The report that a node left in the history."""
    (report,) = reports_of(result.ui(node))
    return report


def reports_of(ui: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The reports in a node's ``ui``: one for each time that it ran."""
    return [json.loads(report) for report in ui["async_vae_decode"]]


def wait_until(seen: Callable[[], Seen], what: str) -> Seen:
    """Ask ``seen`` until it answers with something, which is returned.

    Raises:
        TimeoutError: it did not within ``PATIENCE``.
    """
    deadline = time.monotonic() + PATIENCE
    while not (answer := seen()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE:g} s")
        time.sleep(0.02)
    return answer


def names_in(folder: Path) -> list[str]:
    """The names of the files in ``folder``, sorted; none where it does not exist."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def check_nothing_left(server: Server) -> None:
    """No half-written file, no ffmpeg and no thread of ours is there any more."""
    parts = [path for folder in (server.output, server.temp) for path in folder.rglob("*.part")]
    assert not parts, f"half-written files stay: {parts}"
    children = {pid: name for pid, name in server.children().items() if "ffmpeg" in name}
    assert not children, f"ffmpeg lives on: {children}"
    threads = [name for name in server.threads() if name.startswith(("async-decode", "ffmpeg"))]
    assert not threads, f"threads live on: {threads}"


def check_usable(client: Client, server: Server, models: Models) -> None:
    """The server is idle, nothing of an earlier prompt is left in it, and the next one saves a whole clip."""
    assert not client.busy()
    check_nothing_left(server)
    prompt = Prompt()
    # Another seed each time, so that nothing comes out of the cache.
    samples = random_latent(prompt, 1, 16, 2, 2, 3, seed=next(_seeds))
    vae = models.load(prompt, "wan21")
    frames = client.add(
        prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=vae, filename_prefix="next/frame", output_images=True
    )
    stock = prompt.add("SaveImage", images=prompt.add("VAEDecode", samples=samples, vae=vae), filename_prefix="next/s")
    result = client.run(prompt)
    got, wanted = files_of(server, result, frames), files_of(server, result, stock)
    assert [path.read_bytes() for path in got] == [path.read_bytes() for path in wanted]
    assert len(got) == 5


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file: type and content."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def prompt_in(text: str | bytes) -> dict[str, Any]:
    """The prompt that a file holds, as it was sent: ComfyUI notes in it what ``fingerprint_inputs`` has answered."""
    prompt: dict[str, Any] = json.loads(text)
    return {node: {key: value for key, value in told.items() if key != "is_changed"} for node, told in prompt.items()}
