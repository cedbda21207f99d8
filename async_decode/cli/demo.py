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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..demo import load_latent, load_vae
from ..pipeline.frame_pipeline import FramePipeline
from ..report.report import Report
from ..report.timeline import save_timelines
from ..report.trace import write_chrome_trace
from ..sinks import ImageFilesSink, PngEncoder, VideoSink
from ..sinks.files import OutputNames
from ..spans import Span
from ..taps import VideoDecoder, choose_tap

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


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="decode the embedded clip; leave video, frames, timeline and trace in one folder",
        description="Decodes an embedded latent with an embedded VAE, sequentially and asynchronously, compares the "
        "frames by their hashes, and leaves an MP4, PNG frames, a picture of both timelines, a trace for Perfetto and "
        "the reports in one folder.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the results (%(default)s)")
    parser.add_argument("--device", default=None, help="cpu, cuda, mps, … (default: cuda where there is one)")
    parser.add_argument("--chunk-size", type=int, default=4, help="frames that travel together (%(default)s)")
    parser.add_argument("--buffer-depth", type=int, default=3, help="chunks under way at once (%(default)s)")
    parser.add_argument("--writers", type=int, default=None, help="threads that write PNG files (default: automatic)")


def run(options: argparse.Namespace) -> int:
    """Run the demo; return the exit status: 1 if the two arms did not give the same frames."""
    console = Console()
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
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
    arms = [
        _decode(console, decoder, latent, title, out / folder, options, depth)
        for title, folder, depth in (
            ("sequential", "sequential", 1),
            ("asynchronous", "asynchronous", options.buffer_depth),
        )
    ]
    _leave(out, arms)
    _show(console, out, arms)
    if arms[0].digest != arms[1].digest:
        console.print("[red]the frames differ: please report this[/red]")
        return 1
    return 0


def _decode(
    console: Console,
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
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=tap.frames(latent))
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
    table = Table(title=f"{arms[0].report.frames} frames on {arms[0].report.device}")
    for heading in ("", "seconds", "frames/s", "saving hidden", "frames' hash"):
        table.add_column(heading, justify="left" if not heading else "right")
    for arm in arms:
        hidden = arm.report.hidden_share
        table.add_row(
            arm.title,
            f"{arm.report.wall_seconds:.2f}",
            f"{arm.report.frames / arm.report.wall_seconds:.1f}",
            "-" if hidden is None else f"{hidden:.0%}",
            arm.digest[:12],
        )
    console.print(table)
    console.print(f"video     {arms[-1].video}")
    console.print(f"frames    {arms[-1].frames[0].parent}")
    console.print(f"timeline  {out / 'timeline.png'}")
    console.print(f"trace     {out / 'trace.json'}  (open it at ui.perfetto.dev)")
