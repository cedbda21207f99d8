"""Prompts of every node: those that succeed, by name in ``GOOD``, and those that do not, in ``FAULTS``.

Each runs on a ``Bench``, and checks what it leaves: the files that its node names, and nothing half-written.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.comfyui.client import Client, Output, Prompt, PromptRejected, Result
from tests.comfyui.encoders import Encoders
from tests.comfyui.fixtures import Models, random_latent
from tests.comfyui.outputs import files_of, names_in, report_of
from tests.comfyui.server import Server

SAVED, FAILED = "async_vae_decode.saved", "async_vae_decode.failed"
FRAMES = 17
BACKGROUND = {"finish": "in the background"}


@dataclass
class Bench:
    """Where prompts run.

    Attributes:
        number: of the prompt that runs now; it is the seed, so that nothing comes out of the cache, and its folder.
        small_disk: a folder that holds 1 MiB.
    """

    client: Client
    server: Server
    models: Models
    encoders: Encoders
    small_disk: Path
    number: int = 0

    @property
    def folder(self) -> Path:
        """Where the prompt saves."""
        return self.server.output / f"{self.number:04}"

    def latent(self, prompt: Prompt, latents: int = 5, size: tuple[int, int] = (2, 3)) -> dict[str, Output]:
        """A clip and the narrow VAE of Wan 2.1, as a node's inputs."""
        samples = random_latent(prompt, 1, 16, latents, *size, seed=self.number)
        return {"samples": samples, "vae": self.models.load(prompt, "wan21")}

    def images(self, prompt: Prompt) -> dict[str, Output]:
        """Frames that are there already."""
        shape = f"{FRAMES},32,48,3"
        return {"images": prompt.add("TestImages", shape=shape, seed=self.number, dtype="float32", layout="contiguous")}

    def add(self, prompt: Prompt, node_type: str, **inputs: Any) -> Output:
        """Add one of our nodes; one that saves does so into the prompt's folder."""
        if "Save" in node_type:
            return self.client.add(prompt, node_type, **{"filename_prefix": f"{self.folder.name}/a", **inputs})
        node = self.client.add(prompt, node_type, **inputs)
        prompt.add("PreviewAny", source=node)
        return node

    def succeed(self, prompt: Prompt, node: Output) -> Result:
        """Run ``prompt``; where ``node`` saves, its folder holds what it names, however long that takes."""
        result = self.client.run(prompt)
        given = prompt.nodes[node.node]["inputs"]
        if given.get("finish") == BACKGROUND["finish"]:
            self.client.events.wait(SAVED, run=report_of(result, node)["run"])
        if "filename_prefix" in given:
            assert names_in(self.folder) == sorted(path.name for path in files_of(self.server, result, node))
        return result

    def fail(self, prompt: Prompt, said: str) -> None:
        """Run ``prompt``, which must fail with a message that holds ``said``."""
        self._check_failed(self.client.run(prompt, check=False), said)

    def held(self, prompt: Prompt, node: Output, meanwhile: Callable[[str], None]) -> Result:
        """Run ``prompt``; ``meanwhile`` is called while its decoder waits before its fourth step."""
        gate = uuid.uuid4().hex
        given = prompt.nodes[node.node]["inputs"]
        given["vae"] = prompt.add("TestDecoderStep", vae=given["vae"], step=3, action="hold", gate=gate)
        prompt_id = self.client.queue(prompt)
        self.client.events.wait("probe.held", gate=gate)
        meanwhile(prompt_id)
        self.client.open_gate(gate)
        return self.client.wait(prompt_id)

    def kill_ffmpeg(self, _prompt_id: str = "") -> None:
        """End the encoders that run."""
        for pid, name in self.server.children().items():
            if "ffmpeg" in name:
                os.kill(pid, signal.SIGKILL)

    def _check_failed(self, result: Result, said: str) -> None:
        assert result.error is not None, f"expected an error with {said!r}, got {result}"
        assert said in result.error["exception_message"]


def succeeds(node_type: str, source: str = "latent", **options: Any) -> Callable[[Bench], None]:
    """A prompt of one node."""

    def run(bench: Bench) -> None:
        prompt = Prompt()
        bench.succeed(prompt, bench.add(prompt, node_type, **getattr(bench, source)(prompt), **options))

    return run


def demo_clip(bench: Bench) -> None:
    prompt = Prompt()
    clip = prompt.add("AsyncDemoClip")
    samples = clip
    for dim, index, amount in (("t", bench.number % 8, 2), ("x", 16, 6), ("y", 10, 4)):
        samples = prompt.add("LatentCut", samples=samples, dim=dim, index=index, amount=amount)
    node = bench.add(prompt, "AsyncVAEDecodeSaveVideo", samples=samples, vae=Output(clip.node, 1))
    bench.succeed(prompt, node)


def batch_of_images(bench: Bench) -> None:
    prompt = Prompt()
    samples = random_latent(prompt, 4, 4, 4, 6, seed=bench.number)
    bench.succeed(
        prompt, bench.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=bench.models.load(prompt, "sd"))
    )


def with_sound(bench: Bench) -> None:
    prompt = Prompt()
    sound = prompt.add("EmptyAudio", duration=1.0, sample_rate=44100, channels=2)
    bench.succeed(prompt, bench.add(prompt, "AsyncVAEDecodeSaveVideo", **bench.latent(prompt), audio=sound))


GOOD: dict[str, Callable[[Bench], None]] = {
    "IMAGE": succeeds("AsyncVAEDecode"),
    "PNG": succeeds("AsyncVAEDecodeSaveFrames"),
    "H.264": succeeds("AsyncVAEDecodeSaveVideo"),
    "frames to PNG": succeeds("AsyncSaveFrames", "images"),
    "frames to H.264": succeeds("AsyncSaveVideo", "images"),
    "the demo's clip": demo_clip,
    "tiles": succeeds("AsyncVAEDecode", tile_size=64, overlap=16),
    "JPEG, with IMAGE": succeeds("AsyncVAEDecodeSaveFrames", format="jpeg", output_images=True),
    "FFV1, with a stand-in": succeeds("AsyncVAEDecodeSaveVideo", format="mkv (FFV1)"),
    "a batch of images": batch_of_images,
    "sound": with_sound,
    "H.264 in the background": succeeds("AsyncVAEDecodeSaveVideo", **BACKGROUND),
    "PNG in the background": succeeds("AsyncVAEDecodeSaveFrames", **BACKGROUND),
    "frames to H.264 in the background": succeeds("AsyncSaveVideo", "images", **BACKGROUND),
    "frames to PNG in the background": succeeds("AsyncSaveFrames", "images", **BACKGROUND),
    "GIF": succeeds("AsyncSaveVideo", "images", format="gif"),
}


def cancelled(node_type: str, **options: Any) -> Callable[[Bench], None]:
    """Cancelled while its decoder decodes."""

    def run(bench: Bench) -> None:
        prompt = Prompt()
        node = bench.add(prompt, node_type, **bench.latent(prompt, 9), **options)
        assert bench.held(prompt, node, bench.client.interrupt).interrupted

    return run


def refused(node_type: str, **options: Any) -> Callable[[Bench], None]:
    """Not even queued."""

    def run(bench: Bench) -> None:
        prompt = Prompt()
        bench.add(prompt, node_type, **bench.latent(prompt), **options)
        try:
            bench.client.queue(prompt)
        except PromptRejected:
            return
        raise AssertionError(f"{options} was not refused")

    return run


def decoder_raises(node_type: str) -> Callable[[Bench], None]:
    """Its decoder fails at its third step."""

    def run(bench: Bench) -> None:
        prompt = Prompt()
        given = bench.latent(prompt, 9)
        given["vae"] = prompt.add("TestDecoderStep", vae=given["vae"], step=3, action="raise", gate="")
        bench.add(prompt, node_type, **given)
        bench.fail(prompt, "the decoder fails at step 3")

    return run


def full_disk(node_type: str, **options: Any) -> Callable[[Bench], None]:
    """Some frames fit in, not all."""

    def run(bench: Bench) -> None:
        filler = bench.small_disk / "filler"
        filler.write_bytes(bytes(2**20 - 6 * 2**13))
        prompt = Prompt()
        given = bench.latent(prompt, 13, (4, 6))
        bench.add(prompt, node_type, **given, filename_prefix=f"{bench.small_disk.name}/a", **options)
        bench.fail(prompt, "No space left on device")
        for path in bench.small_disk.iterdir():
            assert path.suffix not in (".part", ".tmp"), f"half-written: {path}"
            path.unlink()

    return run


def bad_input(bench: Bench) -> None:
    prompt = Prompt()
    samples = random_latent(prompt, 1, 4, 2, 2, 3, seed=bench.number)
    bench.add(prompt, "AsyncVAEDecodeSaveFrames", samples=samples, vae=bench.models.load(prompt, "wan21"))
    bench.fail(prompt, "this latent has 4 channels")


def killed_ffmpeg(bench: Bench) -> None:
    prompt = Prompt()
    node = bench.add(prompt, "AsyncVAEDecodeSaveVideo", **bench.latent(prompt, 9))
    bench._check_failed(bench.held(prompt, node, bench.kill_ffmpeg), "ffmpeg")


def broken_ffmpeg(bench: Bench) -> None:
    bench.encoders.broken.touch()
    prompt = Prompt()
    bench.add(prompt, "AsyncSaveVideo", **bench.images(prompt))
    bench.fail(prompt, "ffmpeg")
    bench.encoders.broken.unlink()


def file_for_a_folder(bench: Bench) -> None:
    (bench.server.output / "a file").touch()
    prompt = Prompt()
    bench.add(prompt, "AsyncSaveFrames", **bench.images(prompt), filename_prefix="a file/a")
    bench.fail(prompt, "filename_prefix 'a file/a'")


def other_branch_fails(bench: Bench) -> None:
    prompt, gate = Prompt(), uuid.uuid4().hex
    bench.add(prompt, "AsyncVAEDecodeSaveVideo", **bench.latent(prompt))
    prompt.add("TestLateError", gate=gate, kind="error")
    prompt_id = bench.client.queue(prompt)
    bench.client.open_gate(gate)
    bench._check_failed(bench.client.wait(prompt_id), "another branch fails")


def in_the_background(end: Callable[[Bench, str], None]) -> Callable[[Bench], None]:
    """The prompt succeeds; then ``end`` ends its run, with nothing encoded yet."""

    def run(bench: Bench) -> None:
        bench.encoders.stop()
        prompt = Prompt()
        node = bench.add(prompt, "AsyncVAEDecodeSaveVideo", **bench.latent(prompt), **BACKGROUND)
        told = report_of(bench.client.run(prompt), node)["run"]
        end(bench, told)
        bench.client.events.wait(FAILED, run=told)
        bench.encoders.go()

    return run


FAULTS: dict[str, Callable[[Bench], None]] = {
    "cancelled, IMAGE": cancelled("AsyncVAEDecode"),
    "cancelled, PNG": cancelled("AsyncVAEDecodeSaveFrames"),
    "cancelled, H.264": cancelled("AsyncVAEDecodeSaveVideo"),
    "cancelled, in the background": cancelled("AsyncVAEDecodeSaveVideo", **BACKGROUND),
    "refused chunk_size": refused("AsyncVAEDecodeSaveFrames", chunk_size=0),
    "refused prefix": refused("AsyncVAEDecodeSaveVideo", filename_prefix="../outside/a"),
    "a latent of another model": bad_input,
    "a decoder that raises, IMAGE": decoder_raises("AsyncVAEDecode"),
    "a decoder that raises, PNG": decoder_raises("AsyncVAEDecodeSaveFrames"),
    "a decoder that raises, H.264": decoder_raises("AsyncVAEDecodeSaveVideo"),
    "killed ffmpeg": killed_ffmpeg,
    "broken ffmpeg": broken_ffmpeg,
    "full disk, PNG": full_disk("AsyncVAEDecodeSaveFrames"),
    "full disk, H.264": full_disk("AsyncVAEDecodeSaveVideo", quality=0),
    "a file where the folder should be": file_for_a_folder,
    "another branch fails": other_branch_fails,
    "in the background, killed ffmpeg": in_the_background(lambda bench, run: bench.encoders.kill()),
    "in the background, cancelled": in_the_background(
        lambda bench, run: bench.client.post("/async_vae_decode/runs/cancel", {"run": run})
    ),
}
