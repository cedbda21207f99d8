"""Decodes every VAE family through the pack and through stock, inside one ComfyUI, and prints what it found as JSON.

    python core_shim/bootstrap.py families_in_core.py [part …]

Runs in a checkout's interpreter with the checkout as its working directory, on the CPU. Each part prints one line of
JSON for each thing that it tried; what failed says so in its line, so that one family cannot hide another.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: MiniMax H3 takes 5k + 2; of 5k + 1 its TAEHV makes blank frames.
LATENTS = (1, 2, 3, 6, 7, 12)
CLIPS = (1, 2)
#: Latent frames of the two clips whose memory is compared: about 8 times the frames in all families, and 5k + 2 both.
SHORT, LONG = 7, 52
#: Latent height and width: not square, so that swapped axes show.
SIZE = (2, 3)
MEMORY_SIZE = (4, 4)


def prepare() -> None:
    """Make ``comfy`` and the families importable, and torch quick with models this small."""
    import torch

    # They gain nothing from a second thread, and lose much where others use the cores.
    torch.set_num_threads(1)
    # The checkout first: it has modules named like folders of ours.
    sys.path[:0] = [os.getcwd(), str(Path(__file__).parent)]
    sys.argv[1:] = ["--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("comfy.sd")
    with contextlib.suppress(ImportError, AttributeError):
        ltx = importlib.import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
        # It cuts its work at a number of MiB, which models this small never reach.
        ltx.get_max_chunk_size = lambda _device: 16_384


def pack_module(name: str) -> Any:
    """A module of the pack, without running the pack's entry points, which want a server."""
    for package, path in (("pack", ROOT), ("pack.nodes", ROOT / "nodes")):
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module
    return importlib.import_module(f"pack.{name}")


def latent_for(family: Any, latents: int, clips: int, size: tuple[int, int] = SIZE) -> Any:
    """``(clips, C, latents, H, W)``, or a batch of ``latents`` images."""
    import torch

    shape = (clips, family.channels, latents, *size) if family.video else (latents, family.channels, *size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(latents))


def stock_frames(vae: Any, latent: Any, together: int) -> Any:
    """What stock's VAE Decode makes of each ``together`` clips or images: ``(T, H, W, C)``."""
    import torch

    with torch.inference_mode():
        parts = [vae.decode(part) for part in latent.split(together)]
    return torch.cat([part.flatten(0, 1) if part.ndim == 5 else part for part in parts])


def pack_frames(vae: Any, latent: Any, **options: Any) -> tuple[Any, Any, list[int]]:
    """What the pack makes of it, the tap that did, and the lengths of its pieces."""
    engine, vae_side = pack_module("async_decode"), pack_module("nodes.vae")
    sink = pack_module("async_decode.sinks").TensorSink()
    tap = engine.choose_tap(vae_side.decoder_of(vae), images_per_step=4, **options)
    vae_side.load(vae, tap, latent, ring_bytes=0)
    pieces: list[int] = []
    with engine.FramePipeline(
        [sink], chunk_size=3, finish=vae_side.output_of(vae), total_frames=tap.frames(latent)
    ) as pipeline:

        def submit(piece: Any) -> None:
            pieces.append(piece.shape[0])
            pipeline.submit(piece)

        tap.run(latent, submit)
    return sink.tensor, tap, pieces


def together(family: Any, tap: Any) -> int:
    """How many entries of the batch axis stock is given at once, to compare with."""
    if family.video:
        return 1
    return 4 if type(tap).__name__ == "ImageBatches" else 10**6


def exactness() -> Iterator[dict[str, Any]]:
    """Every family: the tap, its pieces, and whether each clip came out as stock's."""
    import torch

    for family, vae in loaded():
        row: dict[str, Any] = {"family": family.name, "pieces": {}, "unequal": {}, "error": None}
        if isinstance(vae, str):
            yield {**row, "missing": vae}
            continue
        try:
            for latents in LATENTS:
                for clips in CLIPS if family.video else (1,):
                    latent = latent_for(family, latents, clips)
                    torch.manual_seed(7)
                    frames, tap, pieces = pack_frames(vae, latent)
                    torch.manual_seed(7)
                    expected = stock_frames(vae, latent, together(family, tap))
                    if not torch.equal(frames, expected):
                        row["unequal"][f"{clips}x{latents}"] = difference(frames, expected)
                    if clips == 1:
                        row["pieces"][latents] = pieces
            torch.manual_seed(8)
            row.update(
                seed_matters=not torch.equal(pack_frames(vae, latent)[0], frames),
                spread=frames.std().item() if frames.isfinite().all() else None,
                tap=type(tap).__name__,
                kind=tap.decoding.kind,
                exact=tap.decoding.exact,
                bounded=tap.decoding.bounded,
                detail=tap.decoding.detail,
            )
        except Exception:
            row["error"] = traceback.format_exc()
        yield row


def memory() -> Iterator[dict[str, Any]]:
    """Every tapped family: the peak of what its decode allocates, for a clip and for one eight times as long."""
    from allocations import AllocationCounter

    engine, null = pack_module("async_decode"), pack_module("async_decode.sinks.null")
    vae_side = pack_module("nodes.vae")
    for family, vae in loaded():
        if isinstance(vae, str) or not family.video:
            continue
        tap = engine.choose_tap(vae_side.decoder_of(vae))
        if tap.decoding.kind != "tapped":
            continue
        peaks = {}
        for latents in (SHORT, LONG):
            latent = latent_for(family, latents, 1, MEMORY_SIZE)
            sink = null.NullSink()
            with (
                AllocationCounter() as counter,
                engine.FramePipeline([sink], finish=vae_side.output_of(vae)) as pipeline,
            ):
                pipeline.decode(tap, latent)
            peaks[latents] = (counter.peak, sink.frames, latent.nbytes)
        (short, frames, of_short), (long, more_frames, of_long) = peaks[SHORT], peaks[LONG]
        height, width = (MEMORY_SIZE[axis] * int(vae.upscale_ratio[axis + 1]) for axis in (0, 1))
        yield {
            "family": family.name,
            "bounded": tap.decoding.bounded,
            "frames": [frames, more_frames],
            "peak": short,
            "growth": (long - short) / short,
            "latents": (long - short) / (of_long - of_short),
            "clips": (long - short) / ((more_frames - frames) * 3 * height * width * 4),
            "asked": [asked(vae, tap, family, latents) for latents in (21, 250)],
        }


def asked(vae: Any, tap: Any, family: Any, latents: int) -> int:
    """Bytes that would be asked for before a decode of so many latent frames at 720p."""
    import torch

    size = [720 // vae.upscale_ratio[1], 1280 // vae.upscale_ratio[2]]
    shape = tap.live_shape(torch.empty(1, family.channels, latents, *size, device="meta"))
    return int(vae.memory_used_decode(shape, torch.float16))


def difference(frames: Any, expected: Any) -> str:
    """How far two clips are from each other, for people."""
    if frames.shape != expected.shape:
        return f"{tuple(frames.shape)} instead of {tuple(expected.shape)}"
    return f"off by up to {(frames - expected).abs().max().item():.3g}"


def loaded() -> Iterator[tuple[Any, Any]]:
    """Each family with its VAE, or with the reason why this core does not have it."""
    import families

    wanted = os.environ.get("FAMILIES")
    for family in families.FAMILIES:
        if wanted and wanted not in family.name:
            continue
        try:
            yield family, families.load(family)
        except (ImportError, AttributeError) as error:
            yield family, str(error)


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"exactness": exactness, "memory": memory}


def main() -> None:
    parts = sys.argv[1:] or list(PARTS)
    prepare()
    for part in parts:
        for row in PARTS[part]():
            print(json.dumps({"part": part, **row}), flush=True)


if __name__ == "__main__":
    main()
