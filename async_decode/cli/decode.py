"""``decode``: saved latents into videos or images, here or on a Ray cluster."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..cluster import Options, Outcome, VAEPlace, decode_many
from ..errors import AsyncDecodeError
from ..pipeline import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE
from ..sinks.paths import IMAGE_NAMES, VIDEO_NAMES
from ..sinks.sound_files import read_sound
from .options import a_device, frames_a_second, gigabytes, in_flags, whole_number

#: What a run ends with when a clip has no file.
SOME_FAILED = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``decode`` to the command line."""
    parser = subparsers.add_parser(
        "decode",
        help="decode saved latents into videos or images",
        description="Decodes saved latents, each into a file of its own. What is whole already is left out. Exit "
        f"status: 0 when every clip is whole, {SOME_FAILED} when some failed, 2 for arguments that make no sense, 130 "
        "when it was cancelled, 143 by SIGTERM.",
    )
    add = parser.add_argument
    add("latents", nargs="+", metavar="LATENTS", help="files, folders, patterns, manifests (.txt, .jsonl) or s3://…")
    add("--out", required=True, metavar="PLACE", help="such as 'clips/{name}.mp4' or 'frames/{name}/*.png'")
    add("--vae", metavar="PLACE", help="folder or file of a Diffusers VAE (default: the embedded one)")
    add("--vae-class", metavar="NAME", help="Diffusers' class for a single file, such as AutoencoderKLWan")
    add("--vae-config", metavar="DIR", help="folder with the config.json for a single file")
    add("--comfyui", metavar="DIR", help="ComfyUI's folder: its own class decodes, --vae is a name in models/vae")
    add(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="of Diffusers' VAEs (%(default)s)",
    )
    add("--tiling", action="store_true", help="let Diffusers' VAE decode in its own tiles")
    add("--normalized", choices=("auto", "yes", "no"), default="auto", help="mean and deviation are still to be undone")
    add("--sigma-data", type=float, help="of Cosmos' pipelines")
    add(
        "--decode-timestep",
        type=float,
        help="of VAEs that decode at one (LTX-Video since 0.9.1), as of their pipelines",
    )
    add("--decode-noise-scale", type=float, help="of their noise (default: the timestep)")
    add("--seed", type=whole_number(0, 2**64 - 1), help="of their noise, for every clip (default: 0)")
    add("--device", type=a_device, help="cpu, cuda:1, … (default: cuda where there is one)")
    add(
        "--chunk-size",
        type=whole_number(1, MAX_CHUNK_SIZE),
        default=4,
        help="frames that travel together (%(default)s)",
    )
    add(
        "--buffer-depth",
        type=whole_number(1, MAX_BUFFER_DEPTH),
        default=3,
        help="chunks under way at once (%(default)s)",
    )
    add(
        "--decoder",
        choices=("auto", "stock"),
        default="auto",
        help="auto: faster blocks where they are proven to give the same bits; stock: none (%(default)s)",
    )
    add("--fps", type=frames_a_second, help="of videos: 24, 23.976, 30000/1001")
    names = ", ".join((*VIDEO_NAMES, *IMAGE_NAMES))
    add("--format", metavar="NAME", help=f"where the ending does not tell: {names}; hardware's, such as h264-nvenc")
    add("--quality", type=float, help="a video's CRF (lower is better), or of jpeg and webp 1 to 100")
    add("--preset", help="speed of a video's encoder, ultrafast to veryslow")
    add("--compression", type=whole_number(0, 9), help="of png, tiff and exr, 0 to 9 (default 4)")
    add("--color-space", choices=("sRGB", "HDR", "linear"), default="sRGB", help="what the frames are, for exr")
    add("--writers", type=whole_number(1, 64), help="threads that write images (default: automatic)")
    add(
        "--spool-gb",
        type=gigabytes,
        default=0,
        metavar="GB",
        help="disk space next to the files for frames that wait for a slower writer, packed without loss (%(default)s)",
    )
    add("--sound", metavar="WAV", help="a sound for every video, .wav")
    add("--trim-to-sound", action="store_true", help="end videos with their sound")
    add("--ping-pong", action="store_true", help="play videos backwards too")
    add("--loops", type=int, default=0, help="play videos so many times more; gif and webp say it to the player")
    add("--overwrite", action="store_true", help="decode everything again, and replace files that are there")
    add("--report", metavar="FILE", help="a JSON line for each clip (default: async-decode.jsonl beside the files)")
    add("--ray", metavar="ADDRESS", help="'auto': all GPUs of this machine; or the address of a Ray cluster")
    add(
        "--workers",
        type=whole_number(1, 100_000),
        help="processes on the cluster (default: one a GPU, without GPUs one a core)",
    )


def run(options: argparse.Namespace) -> int:
    """Decode; return the exit status."""
    console = Console(stderr=True)
    normalized: bool | str = "auto" if options.normalized == "auto" else options.normalized == "yes"
    place = VAEPlace(
        path=options.vae,
        comfyui=options.comfyui,
        class_name=options.vae_class,
        config=options.vae_config,
        dtype=options.dtype,
        normalized=normalized,
        sigma_data=options.sigma_data,
        tiling=options.tiling,
        decode_timestep=options.decode_timestep,
        decode_noise_scale=options.decode_noise_scale,
        seed=options.seed,
        chunk_size=options.chunk_size,
    )
    try:
        with _twice_at_once(), _Bars(console) as bars:
            outcome = decode_many(
                options.latents,
                options.out,
                vae=place,
                options=_options(options),
                ray=options.ray,
                workers=options.workers,
                device=None if options.device is None else str(options.device),
                chunk_size=options.chunk_size,
                buffer_depth=options.buffer_depth,
                decoder=options.decoder,
                report=options.report,
                on_line=bars.tell,
            )
    except _Terminated:
        console.print("cancelled")
        return 128 + signal.SIGTERM
    except (AsyncDecodeError, ValueError) as error:
        # What is wrong with one clip is in its line: this is about all of them.
        text = in_flags(" ".join(str(error).split()))
        console.print(f"error: {text}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    _show(console, outcome)
    return SOME_FAILED if outcome.failed else 0


def _options(options: argparse.Namespace) -> Options:
    return Options(
        fps=options.fps,
        format=options.format,
        quality=options.quality,
        preset=options.preset,
        compression=options.compression,
        color_space=options.color_space,
        writers=options.writers,
        sound=None if options.sound is None else read_sound(Path(options.sound)),
        trim_to_sound=options.trim_to_sound,
        ping_pong=options.ping_pong,
        repeats=options.loops,
        overwrite=options.overwrite,
        spool_gb=options.spool_gb,
    )


class _Bars:
    """A bar for all clips, and one for that in hand (of a cluster, only the first)."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._console = console
        self._progress = Progress(*columns, console=console)
        self._all: TaskID = self._progress.add_task("all clips", total=None)
        self._clip: TaskID | None = None
        self._shown = False

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._progress.stop()

    def tell(self, line: dict[str, Any]) -> None:
        """Show what happened to a clip."""
        status = line["status"]
        if status == "found":
            # Before, there may be an error to be told, in one line.
            self._shown = True
            self._progress.start()
            self._progress.update(self._all, total=line["clips"])
        elif status == "running":
            if self._clip is None:
                self._clip = self._progress.add_task(line["clip"], total=line["total"])
            self._progress.update(self._clip, completed=line["frames"], total=line["total"])
        elif status == "lost":
            self._console.print(
                f"warning: {in_flags(line['error'])}", style="yellow", markup=False, highlight=False, soft_wrap=True
            )
        elif status != "begun":
            if self._clip is not None:
                self._progress.remove_task(self._clip)
                self._clip = None
            self._progress.advance(self._all)
            for warning in line.get("warnings", ()):
                text = f"warning: {line['clip']}: {warning}"
                self._console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
            if status in ("failed", "poison"):
                text = in_flags(f"{status}: {line['clip']}: {line['error']}")
                self._console.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def _show(console: Console, outcome: Outcome) -> None:
    counts: dict[str, int] = {}
    for line in outcome.lines:
        counts[line["status"]] = counts.get(line["status"], 0) + 1
    frames = sum(line.get("frames", 0) for line in outcome.lines)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"{told}; {frames} frames; report: {outcome.report}", markup=False, highlight=False, soft_wrap=True)


class _Terminated(KeyboardInterrupt):
    """Somebody asked with SIGTERM, as schedulers do, what a user asks with Ctrl-C."""


@contextmanager
def _twice_at_once() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the run in order, the second one at once."""

    def first(number: int, _frame: FrameType | None) -> None:
        for ours in before:
            signal.signal(ours, second)
        raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt

    def second(number: int, _frame: FrameType | None) -> None:
        print("ended at once", file=sys.stderr, flush=True)
        os._exit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
