"""``demo``: decode the embedded clip twice, one step after the other and all at once, and show the difference."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ..demo import load_latent, load_vae
from ..pipeline import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE, FramePipeline
from ..report.report import Report, gain
from ..report.trace import write_chrome_trace
from ..report.words import seconds_text
from ..sinks import ImageFilesSink, PngEncoder, VideoSink
from ..sinks.files import OutputNames
from ..spans import Span, Stage
from ..taps import VideoDecoder, choose_tap
from .options import a_device, a_folder, whole_number
from .timeline import save_timelines

#: The clip was drawn for this rate, frames a second.
FPS = 24


@dataclass(frozen=True)
class Arm:
    """One way through the same work, and what came of it."""

    title: str
    report: Report
    spans: list[Span]
    frames: list[Path]
    video: Path
    digest: str

    @property
    def saving_seconds(self) -> float:
        """How long files were written."""
        return self.report.stages[Stage.SAVE].busy_seconds


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="decode the embedded clip; leave video, frames, timeline and trace in one folder",
        description="Decodes an embedded latent with an embedded VAE, sequentially and asynchronously, compares the "
        "frames by their hashes, and leaves an MP4, PNG frames, a picture of both timelines, a trace for Perfetto and "
        "the reports in one folder.",
    )
    add = parser.add_argument
    add(
        "--out",
        type=a_folder,
        default=Path("demo_output"),
        help="folder for the results; where it holds files already, one with a number behind its name (%(default)s)",
    )
    add("--device", type=a_device, default=None, help="cpu, cuda, mps, … (default: cuda where there is one)")
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
    add("--writers", type=whole_number(1, 64), default=None, help="threads that write PNG files (default: automatic)")


def run(options: argparse.Namespace) -> int:
    """Run the demo; return the exit status: 1 if the two arms did not give the same frames."""
    # A pipe gets plain lines, however wide.
    console = Console(highlight=False, markup=False, soft_wrap=True)
    device: torch.device = options.device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out = _fresh(options.out)
    out.mkdir(parents=True, exist_ok=True)
    if out != options.out:
        console.print(f"{options.out} holds files already: these go to {out}")
    arms = _decode_both(console, device, out, options)
    _leave(out, arms)
    _show(console, out, arms)
    return 0 if arms[0].digest == arms[1].digest else 1


def _fresh(folder: Path) -> Path:
    """``folder``, or where it holds something, the first one with a number behind its name that does not."""
    fresh, number = folder, 1
    while fresh.exists() and (not fresh.is_dir() or any(fresh.iterdir())):
        number += 1
        fresh = folder.with_name(f"{folder.name}-{number}")
    return fresh


def _decode_both(console: Console, device: torch.device, out: Path, options: argparse.Namespace) -> list[Arm]:
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    ways = (("sequential", 1), ("asynchronous", options.buffer_depth))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        preparing = progress.add_task("preparing", total=None)
        vae, latent = load_vae(device), load_latent()
        decoder = VideoDecoder(
            model=vae,
            decode=vae.decode,
            device=device,
            dtype=torch.float32,
            frames_of=lambda latents: 4 * latents - 3,
        )
        # The first decode pays for whatever the device sets up once.
        with torch.inference_mode():
            vae.decode(latent[:, :, :2].to(device))
        progress.remove_task(preparing)
        return [
            _decode(console, progress, decoder, latent, title, out / title, options, depth) for title, depth in ways
        ]


def _decode(
    console: Console,
    progress: Progress,
    decoder: VideoDecoder,
    latent: torch.Tensor,
    title: str,
    folder: Path,
    options: argparse.Namespace,
    depth: int,
) -> Arm:
    images = ImageFilesSink(OutputNames(folder, "frame"), PngEncoder(), writers=options.writers)
    video = VideoSink(OutputNames(folder, "demo"), fps=FPS)
    tap = choose_tap(decoder)
    total = tap.frames(latent)
    if not console.is_terminal:
        console.print(f"{title}: decoding {total} frames on {decoder.device}")
    task = progress.add_task(title, total=total)
    pipeline = FramePipeline(
        [images, video],
        chunk_size=options.chunk_size,
        buffer_depth=depth,
        device=decoder.device,
        poll=lambda: progress.update(task, completed=pipeline.written),
    )
    with pipeline:
        pipeline.decode(tap, latent)
    progress.update(task, completed=pipeline.written)
    assert video.path is not None, "closed without an error"
    return Arm(title, pipeline.report, pipeline.recorder.spans, images.files, video.path, _digest(images.files))


def _digest(files: Iterable[Path]) -> str:
    """One hash over the bytes of all frames."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _leave(out: Path, arms: list[Arm]) -> None:
    """Write what is not there yet: the picture, the trace, the reports."""
    save_timelines(out / "timeline.png", [(arm.title, arm.spans, arm.report) for arm in arms])
    asynchronous = arms[-1]
    write_chrome_trace(out / "trace.json", asynchronous.spans, report=asynchronous.report)
    reports = {arm.title: arm.report.to_json() for arm in arms}
    (out / "report.json").write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")


def _show(console: Console, out: Path, arms: list[Arm]) -> None:
    rows = [
        [
            arm.title,
            seconds_text(arm.report.wall_seconds),
            seconds_text(arm.report.compute_seconds),
            seconds_text(arm.saving_seconds),
            "-" if arm.report.hidden_share is None else f"{arm.report.hidden_share:.0%}",
            f"{arm.report.fps:.1f}",
        ]
        for arm in arms
    ]
    heads = ["", "took", "decoding", "saving", "saving hidden", "frames/s"]
    if console.is_terminal:
        table = Table(*heads[:1], title=f"{arms[0].report.frames} frames on {arms[0].report.device}")
        for head in heads[1:]:
            table.add_column(head, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in rows:
            facts = (f"{head} {fact}" for head, fact in zip(heads[1:], row[1:], strict=True))
            console.print(f"{row[0]}: {', '.join(facts)}")
    sequential, asynchronous = arms
    same = sequential.digest == asynchronous.digest
    console.print(f"same frames: {'yes' if same else 'NO, please report this'}")
    gained = gain(sequential.report, asynchronous.report)
    console.print(f"gained: {seconds_text(gained)} that decoding no longer waits for files")
    for name, path in (
        ("video", asynchronous.video),
        ("frames", asynchronous.frames[0].parent),
        ("timeline", out / "timeline.png"),
    ):
        console.print(f"{name:<9} {path}")
    console.print(f"trace     {out / 'trace.json'}  (open it at ui.perfetto.dev)")
