"""Tiles, windows and lack of memory, for ``families_in_core.py``: the pack beside stock's VAE Decode (Tiled).

Runs inside a checkout's interpreter; each function yields one row for each thing that it tried.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import logging
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from allocations import AllocationCounter
from families_in_core import LONG, SHORT, a_vae, asked, noise, pack_module, stock_frames

#: Latents: two tiles each way, of which the last is narrower, and three windows.
SIZE, LATENTS = (5, 6), 7
TILE, OVERLAP, WINDOW, WINDOW_OVERLAP = 4, 1, 4, 1
#: By the names of what makes them in ``families.py``: what can be cut by VAE Decode (Tiled) without holes, in seconds.
VIDEO = ("wan21", "wan22", "hunyuan", "mochi", "cosmos", "quiet_ltx", "noisy_ltx", "seedvr2", "minimax_h3")
IMAGES = ("svd", "stable_diffusion")
#: Those whose memory is looked at, and what cuts them.
WITH_WINDOWS, WITH_TILES = ("mochi", "cosmos"), ("wan21", "wan22")


def tiling() -> Iterator[dict[str, Any]]:
    """Every way of cutting a clip, with the numbers given to stock, and how far the frames are from stock's."""
    cases = [*itertools.product(VIDEO, ("tiles", "windows", "both")), *itertools.product(IMAGES, ("tiles",))]
    for name, cut_into in cases:
        row: dict[str, Any] = {"case": f"{name}, {cut_into}", "error": None, "missing": None}
        try:
            yield {**row, **cut(name, tile=cut_into != "windows", window=cut_into != "tiles")}
        except (ImportError, AttributeError) as error:
            yield {**row, "missing": str(error)}
        except Exception:
            yield {**row, "error": traceback.format_exc()}


def cut(name: str, *, tile: bool, window: bool) -> dict[str, Any]:
    """The pack's frames of one clip or batch beside stock's."""
    vae, pack = a_vae(name), pack_module("nodes.tiling")
    latent = noise(LATENTS, 4, *SIZE) if name in IMAGES else noise(1, vae.latent_channels, LATENTS, *SIZE)
    numbers = {"tile_x": 64, "tile_y": 64, "overlap": OVERLAP, "tile_t": 9999, "overlap_t": 1}
    if tile:
        numbers.update(tile_x=TILE, tile_y=TILE)
    if window:
        numbers.update(tile_t=WINDOW, overlap_t=WINDOW_OVERLAP)
    asked = pack_module("async_decode.taps").Tiling(
        tile=TILE if tile else None,
        overlap=OVERLAP if tile else 0,
        window=WINDOW if window else None,
        window_overlap=WINDOW_OVERLAP,
    )
    torch.manual_seed(7)
    tap = pack.taps_for(vae, latent, asked, images_per_step=4)[0]
    frames, report = through_pipeline(vae, tap, latent)
    torch.manual_seed(7)
    with torch.inference_mode():
        expected = vae.decode_tiled(latent, **numbers)
    expected = expected.flatten(0, 1) if expected.ndim == 5 else expected
    same_shape = frames.shape == expected.shape
    return {
        "tap": type(tap).__name__,
        "kind": report["decoding"]["kind"],
        "exact": report["decoding"]["exact"],
        "bounded": report["decoding"]["bounded"],
        "off": (frames - expected).abs().max().item() if same_shape else f"{frames.shape}, not {expected.shape}",
        "pieces": report["pieces"],
        "differs_from_untiled": bool((frames - stock_frames(vae, latent, len(latent))).abs().max() > 1e-3),
    }


def through_pipeline(vae: Any, tap: Any, latent: Any) -> tuple[Any, dict[str, Any]]:
    """Frames ``(T, H, W, C)`` and report of one decode; ``pieces`` in the report are the lengths of the pieces."""
    engine, vae_side = pack_module("async_decode"), pack_module("nodes.vae")
    sink = pack_module("async_decode.sinks").TensorSink()
    vae_side.load(vae, tap, latent, ring_bytes=0)
    pieces: list[int] = []
    with engine.FramePipeline([sink], chunk_size=3, finish=vae_side.output_of(vae)) as pipeline:
        submit = pipeline.submit
        pipeline.submit = lambda piece: (pieces.append(piece.shape[0]), submit(piece))
        pipeline.decode(tap, latent)
    return sink.tensor, {**pipeline.report.to_json(), "pieces": pieces}


def tiling_memory() -> Iterator[dict[str, Any]]:
    """The peak of a decode in windows, and in tiles that are streamed, of a clip and of one eight times as long."""
    engine, null = pack_module("async_decode"), pack_module("async_decode.sinks.null")
    taps, vae_side = pack_module("async_decode.taps"), pack_module("nodes.vae")
    for name in (*WITH_WINDOWS, *WITH_TILES):
        vae = a_vae(name)
        numbers = {"window": WINDOW} if name in WITH_WINDOWS else {"tile": 2}
        size = (2, 2) if name in WITH_WINDOWS else (3, 4)
        tap = pack_module("nodes.tiling").tiled_tap(vae, noise(1, 1, LONG, *size), taps.Tiling(**numbers))
        peaks = []
        for latents in (SHORT, LONG):
            latent = noise(1, vae.latent_channels, latents, *size)
            sink = null.NullSink()
            with (
                AllocationCounter() as counter,
                engine.FramePipeline([sink], finish=vae_side.output_of(vae)) as pipeline,
            ):
                pipeline.decode(tap, latent)
            peaks.append((counter.peak, sink.frames, latent.nbytes))
        (short, frames, of_short), (long, more_frames, of_long) = peaks
        yield {
            "family": name,
            "bounded": tap.decoding.bounded,
            "frames": [frames, more_frames],
            "asked": [asked(vae, tap, latents) for latents in (21, 250)],
            "growth": (long - short) / short,
            "growth_beside_latent": (long - short - (of_long - of_short)) / short,
        }


def numbers() -> Iterator[dict[str, Any]]:
    """What VAE Decode (Tiled) makes of its inputs, beside what the pack makes of them."""
    node = importlib.import_module("nodes").VAEDecodeTiled()
    pack = pack_module("nodes.tiling")
    for name, images in (("wan21", False), ("quiet_ltx", False), ("stable_diffusion", True)):
        vae = a_vae(name)
        unequal, compared = {}, 0
        inputs = itertools.product((64, 96, 256, 512), (0, 32, 64, 512), (8, 12, 64, 4096), (4, 8, 16, 64))
        for values in inputs:
            with mock.patch.object(vae, "decode_tiled", return_value=torch.zeros(1, 1, 1, 3)) as decode_tiled:
                latent = noise(1, 4, 8, 8) if images else noise(1, 16, 3, 8, 8)
                node.decode(vae, {"samples": latent}, *values)
            asked = decode_tiled.call_args.kwargs
            # What its ``decode_tiled`` makes of them.
            wanted = (asked["tile_x"], asked["overlap"], asked["tile_t"], asked["overlap_t"])
            if wanted[2] is not None:
                wanted = (*wanted[:2], max(2, wanted[2]), max(1, wanted[3]))
            got = pack.tiling_of(vae, *values)
            ours = (got.tile, got.overlap, got.window, got.window_overlap if got.window is not None else None)
            compared += 1
            if ours != wanted:
                unequal[str(values)] = [ours, wanted]
        yield {"family": name, "unequal": unequal, "compared": compared}


def out_of_memory() -> Iterator[dict[str, Any]]:
    """Memory runs out at some step of a real VAE, in what the nodes run: frames, warnings and report."""
    for step, way in itertools.product(("first", "middle", "last"), ("tiles", "windows")):
        try:
            yield {"case": f"{step}, {way}", "error": None, **short_of_memory(step, way)}
        except Exception:
            yield {"case": f"{step}, {way}", "error": traceback.format_exc()}


def stand_in_for_server() -> types.ModuleType:
    """ComfyUI's server as far as a run asks it: nobody queued anything, and nobody listens."""
    server = types.ModuleType("server")
    queue = types.SimpleNamespace(mutex=threading.Lock(), currently_running={})
    loop = types.SimpleNamespace(call_soon_threadsafe=lambda *_: None, call_later=lambda *_: None)
    instance = types.SimpleNamespace(send_sync=lambda *_: None, prompt_queue=queue, loop=loop)
    server.PromptServer = types.SimpleNamespace(instance=instance)
    return server


def short_of_memory(step: str, way: str) -> dict[str, Any]:
    """One run into files, whose decoder fails once."""
    vae, latent = a_vae("wan21"), noise(1, 16, 9, *SIZE)
    sys.modules.setdefault("server", stand_in_for_server())
    execute, sinks = pack_module("nodes.execute"), pack_module("async_decode.sinks")
    files = pack_module("async_decode.sinks.files")
    decoder = vae.first_stage_model.decoder
    calls: list[int] = []
    count = decoder.register_forward_hook(lambda *_: calls.append(1))
    stock = stock_frames(vae, latent, 1)
    count.remove()
    at = {"first": 0, "middle": len(calls) // 2, "last": len(calls) - 1}[step]
    done: list[int] = []
    records: list[str] = []

    def fail_once(_module: Any, _arguments: Any) -> None:
        if len(done) == at:
            done.append(-1)
            raise torch.cuda.OutOfMemoryError("no room, as the test wants it")
        done.append(1)

    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage()) if record.levelno >= logging.WARNING else None
    # Tiles that are smaller than these frames, or larger ones, so that only windows are left.
    side = 8 * TILE if way == "tiles" else 8 * 64
    hook = decoder.register_forward_pre_hook(fail_once)
    logging.getLogger().addHandler(handler)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(pack_module("nodes.tiling"), "FALLBACK_TILE", side),
        ):
            sink = sinks.ImageFilesSink(files.OutputNames(folder, "clip", first=1), sinks.PngEncoder())
            result = asyncio.run(execute.decode(vae, latent, [sink], chunk_size=1, buffer_depth=3, output_images=True))
            names = [path.name for path in sink.files]
            on_disk = sorted(path.name for path in Path(folder).iterdir())
    finally:
        logging.getLogger().removeHandler(handler)
        hook.remove()
    frames, report = result.images, json.loads(result.ui["async_vae_decode"][0])
    (warning,) = report["warnings"]
    delivered = int(warning.partition("from frame ")[2].split(" ")[0])
    numbers = {"tile_x": 64, "tile_y": 64, "overlap": TILE // 4, "tile_t": 9999, "overlap_t": 1}
    numbers.update({"tile_x": TILE, "tile_y": TILE} if way == "tiles" else {"tile_t": 4, "overlap_t": 2})
    with torch.inference_mode():
        cut_frames = vae.decode_tiled(latent, **numbers).flatten(0, 1)
    return {
        "delivered": delivered,
        "frames": len(frames),
        "equal_before": bool(torch.equal(frames[:delivered], stock[:delivered])),
        "off_after": (frames[delivered:] - cut_frames[delivered:]).abs().max().item(),
        "differs": bool((stock[delivered:] - cut_frames[delivered:]).abs().max() > 1e-3),
        "files": len(names),
        "in_order": names == on_disk == sorted(names),
        "warnings": report["warnings"],
        "logged": [line for line in records if "memory ran out" in line],
        "decoding": report["decoding"],
    }


PARTS = {"tiling": tiling, "tiling_memory": tiling_memory, "numbers": numbers, "out_of_memory": out_of_memory}
