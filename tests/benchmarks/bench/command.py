"""The benchmark's options, and a run of it: every way of doing the same work side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from .arms import KINDS, Settings
from .environment import command_line, describe
from .host import HostSizes, MakePair
from .models import LOADERS
from .results import Results
from .saving import Saving
from .suite import PARTS, Options, Suite
from .workload import LATENTS, Case, Loaders

_Value = TypeVar("_Value")

#: What is measured when nothing is asked for: the article's setting on a GPU, something short elsewhere.
_CASES = {"cuda": "diffusers-wan2.1:bf16:480x832:41", "": "demo:fp32:256x384:13"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("bench_output"), help="folder for the results (%(default)s)")
    add("--scratch", type=Path, default=None, help="folder for what the arms save (default: the system's)")
    add("--device", default=None, help="cpu, cuda, … (default: cuda where there is one)")
    add(
        "--case",
        action="append",
        type=_checked(Case.parse),
        metavar="MODEL:DTYPE:HxW:LATENTS",
        help=f"a setting, may be repeated; models: {', '.join(LOADERS)}; types: bf16, fp16, fp32",
    )
    add(
        "--latent",
        choices=LATENTS,
        default=Options.latent,
        help="what is decoded (%(default)s: frames compress about as grainy footage does; noise: far worse)",
    )
    add("--parts", default="wall", help=f"of {', '.join(PARTS)}, joined by commas (%(default)s)")
    add(
        "--host-only", action="store_true", help="only what needs neither a decoder nor a GPU: the same as --parts host"
    )
    add("--arms", default=",".join(KINDS), help="of %(default)s")
    add(
        "--save",
        default="png4,png1,h264-medium,h264-veryfast,image",
        help="what the arms save: png0 to png9, h264-<preset>, image; png4@14/6 means 14 writers and 6 slots "
        "(%(default)s)",
    )
    add("--chunk-size", type=int, default=Settings.chunk_size, help="frames that travel together (%(default)s)")
    add("--buffer-depth", type=int, default=Settings.buffer_depth, help="chunks under way at once (%(default)s)")
    add("--runs", type=int, default=10, help="timed runs of each arm (%(default)s)")
    add("--stock-runs", type=int, default=2, help="timed runs of the stock arms, the slowest (%(default)s)")
    add("--host-runs", type=int, default=HostSizes.repeats, help="runs of each way in the host's part (%(default)s)")
    add("--memory-latents", default="21,161", help="lengths that the memory part compares (%(default)s)")
    add("--budget-minutes", type=float, default=9.0, help="when to stop (%(default)s)")


def run_suite(
    options: argparse.Namespace,
    loaders: Loaders,
    *,
    child: Sequence[str] | None,
    arguments: Sequence[str],
    program: str = "tests/benchmarks/run.py",
    host_pairs: Sequence[MakePair] = (),
) -> int:
    """Run the benchmark; return the exit status: 1 if two arms did not make the same frames.

    Args:
        options: what ``add_options`` added.
        loaders: the models.
        child: the command that starts a process with these loaders.
        arguments: the command line, for the results; ``program`` is what comes before it, after ``python``.
        host_pairs: pairs of the host's part beside its own.
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options.out.mkdir(parents=True, exist_ok=True)
    asked = Options(
        out=options.out,
        scratch=options.scratch,
        device=device,
        cases=options.case or [Case.parse(_CASES.get(device.type, _CASES[""]))],
        parts=["host"] if options.host_only else _listed(options.parts, PARTS),
        kinds=[KINDS[name] for name in _listed(options.arms, KINDS)],
        savings=[Saving.parse(name) for name in options.save.split(",")],
        settings=Settings(options.chunk_size, options.buffer_depth),
        runs=options.runs,
        stock_runs=options.stock_runs,
        host_runs=options.host_runs,
        seconds=options.budget_minutes * 60,
        latent=options.latent,
        memory_latents=[int(latents) for latents in options.memory_latents.split(",")],
    )
    results = Results(
        options.out / "results.json", command=command_line(program, arguments), environment=describe(device)
    )
    suite = Suite(asked, results, loaders=loaders, child=child, host_pairs=host_pairs, log=console.print)
    sound = suite.run()
    console.print(suite.write_up())
    if not sound:
        console.print("error: a case could not be loaded, or two arms did not make the same frames: see results.json")
        return 1
    return 0


def _listed(text: str, known: Collection[str]) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise SystemExit(f"error: expected some of {', '.join(known)}, got {name!r}")
    return names


def _checked(parse: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """``parse`` for argparse, which hides the message of a ``ValueError``."""

    def checked(text: str) -> _Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
