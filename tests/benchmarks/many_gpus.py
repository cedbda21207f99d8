"""Clips a minute on one, two and more GPUs: the cluster's own actor, one process a GPU, with Ray around it or without.

::

    python tests/benchmarks/many_gpus.py --gpus 1,2,4 --clips 10 --out results.json
    python tests/benchmarks/many_gpus.py --gpus 1,2 --clips 10 --ray --out results.json

Every arm decodes the same clips (so many for each GPU) with Diffusers' Wan 2.1 at full width and random weights into
H.264. An arm's time is from when all actors have decoded one clip beforehand until the last clip is whole; with Ray,
from when as many clips are whole as there are two for each actor, which are not counted. After the arms of ``--ray``
follows one more run on all GPUs, in which an actor is killed in the middle of a clip.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# Behind everything else, as in run.py; the processes of an arm are told as well.
sys.path.append(str(Path(__file__).resolve().parents[2]))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), sys.path[-1]]))

#: The size of a clip: latent frames, rows, columns; 81 frames of 1280 x 720 pixels.
LATENT = (16, 21, 90, 160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", default="1,2,4")
    parser.add_argument("--clips", type=int, default=10, help="for each GPU")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--ray", action="store_true", help="with Ray around the actors")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        vae, latents = _make(Path(folder))
        counts, made = [int(count) for count in options.gpus.split(",")], (Path(folder), vae, latents)
        arm = _ray_arm if options.ray else _arm
        arms = [arm(*made, count, options.clips, options.preset) for count in counts]
        found = {
            **_environment(),
            "clip": "Wan 2.1 (Diffusers), bf16, 81 frames, 1280x720, H.264",
            "ray": importlib.metadata.version("ray") if options.ray else None,
            "arms": arms,
        }
        if options.ray:
            found["one_killed"] = _killed(*made, max(counts), options.preset)
        hashes = {tuple(one["frames_hashes"]) for one in (*arms, found.get("one_killed", arms[0]))}
        assert len(hashes) == 1, "the frames differ from arm to arm"
    for one in arms:
        one["over_the_first"] = round(one["clips_a_minute"] / arms[0]["clips_a_minute"], 3)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def _make(folder: Path) -> tuple[Path, list[Path]]:
    """A VAE with random weights, and four latents of soft shapes."""
    import diffusers
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    diffusers.AutoencoderKLWan().to(torch.bfloat16).save_pretrained(folder / "vae")
    latents = []
    for number in range(4):
        soft = F.interpolate(torch.randn(1, LATENT[0], 6, 12, 20), LATENT[1:], mode="trilinear")
        torch.save(soft.to(torch.bfloat16).contiguous(), folder / f"{number}.pt")
        latents.append(folder / f"{number}.pt")
    return folder / "vae", latents


def _arm(folder: Path, vae: Path, latents: list[Path], gpus: int, clips: int, preset: str) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    waiting, lines = context.Queue(), context.Queue()
    ready, start = context.Barrier(gpus + 1), context.Event()
    loaded = time.monotonic()
    workers = []
    for gpu in range(gpus):
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
        workers.append(
            context.Process(
                target=_work, args=(vae, latents[0], folder / f"{gpus}", preset, waiting, lines, ready, start)
            )
        )
        workers[-1].start()
    del os.environ["CUDA_VISIBLE_DEVICES"]
    ready.wait(240)
    loaded = time.monotonic() - loaded
    for number in range(clips * gpus):
        waiting.put((number, str(latents[number % len(latents)])))
    for _ in range(gpus):
        waiting.put(None)
    began = time.monotonic()
    start.set()
    told = [lines.get(timeout=300) for _ in range(clips * gpus)]
    seconds = time.monotonic() - began
    for worker in workers:
        worker.join(60)
    assert all(line["status"] == "done" for line in told), told
    hashes = {line["latent"]: line["hash"] for line in told}
    assert all(hashes[line["latent"]] == line["hash"] for line in told), "a clip's frames differ from GPU to GPU"
    return {
        "gpus": gpus,
        "clips": len(told),
        "seconds": round(seconds, 2),
        "clips_a_minute": round(60 * len(told) / seconds, 2),
        "seconds_a_clip": round(sum(line["seconds"] for line in told) / len(told), 3),
        "seconds_until_ready": round(loaded, 1),
        "megabytes_a_file": round(sum(line["bytes"] for line in told) / len(told) / 1e6, 2),
        "frames_hashes": sorted(hash[:12] for hash in hashes.values()),
        "exact": all(line["exact"] for line in told),
        "bounded": all(line["bounded"] for line in told),
    }


def _ray_arm(folder: Path, vae: Path, latents: list[Path], gpus: int, clips: int, preset: str) -> dict[str, Any]:
    from async_decode.cluster import Options, VAEPlace, decode_many

    warm = 2 * gpus
    began = time.monotonic()
    ended: list[float] = []

    def told(line: dict[str, Any]) -> None:
        if line["status"] == "done":
            ended.append(time.monotonic())

    outcome = decode_many(
        _names(folder / f"ray-{gpus}", latents, warm + clips * gpus),
        str(folder / f"ray-{gpus}-out" / "{name}.mp4"),
        vae=VAEPlace(path=str(vae), dtype="bfloat16", normalized=False),
        options=Options(fps=16, preset=preset),
        ray="auto",
        workers=gpus,
        on_line=told,
    )
    seconds = ended[-1] - ended[warm - 1]
    return {
        "gpus": gpus,
        "clips": clips * gpus,
        "seconds": round(seconds, 2),
        "clips_a_minute": round(60 * clips * gpus / seconds, 2),
        "seconds_until_first": round(ended[0] - began, 1),
        **_told(outcome.lines, folder / f"ray-{gpus}-out"),
    }


def _killed(folder: Path, vae: Path, latents: list[Path], gpus: int, preset: str) -> dict[str, Any]:
    """Eight clips on ``gpus``, while an actor is killed one second after it was given its second clip."""
    import psutil

    from async_decode.cluster import Options, VAEPlace, decode_many

    killed: list[str] = []
    done: list[str] = []

    def kill() -> None:
        for process in psutil.Process().children(recursive=True):
            if process.name().startswith("ray::DecodeA"):
                killed.append(process.name())
                process.send_signal(signal.SIGKILL)
                return

    def told(line: dict[str, Any]) -> None:
        if line["status"] == "done":
            done.append(line["clip"])
            if len(done) == gpus:
                threading.Timer(1.0, kill).start()

    outcome = decode_many(
        _names(folder / "killed", latents, 8),
        str(folder / "killed-out" / "{name}.mp4"),
        vae=VAEPlace(path=str(vae), dtype="bfloat16", normalized=False),
        options=Options(fps=16, preset=preset),
        ray="auto",
        workers=gpus,
        on_line=told,
    )
    assert killed, "no actor was killed"
    return {"gpus": gpus, "killed": killed, **_told(outcome.lines, folder / "killed-out")}


def _names(folder: Path, latents: list[Path], count: int) -> list[Path]:
    """``count`` names for ``latents``, each of them in turn."""
    folder.mkdir()
    names = [folder / f"{number:03}.pt" for number in range(count)]
    for number, name in enumerate(names):
        os.link(latents[number % len(latents)], name)
    return names


def _told(lines: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What the lines of a run with Ray say, in which every clip has to be whole."""
    assert all(line["status"] == "done" for line in lines), lines
    files = sorted(path.name for path in folder.glob("*.mp4"))
    assert files == sorted(Path(line["file"]).name for line in lines), files
    return {
        "files": len(files),
        "frames_hashes": sorted({line["hash"][:12] for line in lines}),
        "exact": all(line["exact"] for line in lines),
        "bounded": all(line["bounded"] for line in lines),
    }


def _work(vae: Path, warm: Path, out: Path, preset: str, waiting: Any, lines: Any, ready: Any, start: Any) -> None:
    from async_decode.cluster import DecodeActor, Options, VAEPlace
    from async_decode.cluster.clips import Clip

    actor = DecodeActor(VAEPlace(path=str(vae), dtype="bfloat16", normalized=False))
    options = Options(fps=16, preset=preset)
    # The faster decoder proves itself in the first one, and is compared once more in its first use.
    for number in range(2):
        first = actor.decode(Clip(f"warm {number}", str(warm), str(out / f"warm-{os.getpid()}-{number}.mp4")), options)
        if first["status"] != "done":
            print(first, file=sys.stderr, flush=True)
    ready.wait(240)
    start.wait()
    following = waiting.get()
    while following is not None:
        number, latent = following
        clip = Clip(str(number), latent, str(out / f"{number:03}.mp4"))
        following = waiting.get()
        if following is not None:
            actor.prefetch(Clip("", following[1], ""))
        lines.put(actor.decode(clip, options))


def _environment() -> dict[str, Any]:
    import diffusers
    import torch
    from bench.environment import command_line

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command_line(),
        "cards": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


if __name__ == "__main__":
    main()
