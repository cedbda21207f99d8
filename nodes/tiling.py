"""Tiles, windows, and what is tried when memory runs out: VAE Decode (Tiled)'s numbers, handed to the engine's taps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from comfy import model_management
from comfy_api.v0_0_2 import io

from ..async_decode import DecodeError, Tap, choose_tap
from ..async_decode.taps import (
    ImageBatches,
    ImageTiles,
    OwnTiles,
    Scale,
    TemporalWindows,
    Tiling,
    is_out_of_memory,
    streamed_tiles,
)
from . import vae as vae_side
from .estimates import (
    FALLBACK_IMAGE_OVERLAP,
    FALLBACK_IMAGE_TILE,
    FALLBACK_TILE,
    SHARE_OF_DEVICE,
    preferred_tile,
)

#: Frames of a window where memory ran out, and how many it shares, as in ComfyUI's tiled node.
FALLBACK_WINDOW, FALLBACK_WINDOW_OVERLAP = 64, 8
#: The smallest tile in pixels and the smallest window in frames, as VAE Decode (Tiled) takes them, and the largest.
LEAST_TILE, LEAST_WINDOW, MOST = 64, 8, 4096
#: Share of the host's memory that a try may fill.
SHARE_OF_HOST = 0.5


def tiling_inputs() -> list[io.Input]:
    """The inputs of VAE Decode (Tiled), optional and off."""
    return [
        io.Int.Input(
            "tile_size",
            default=0,
            min=0,
            max=MOST,
            step=32,
            optional=True,
            tooltip="Decode in tiles of so many pixels a side, for little memory, as VAE Decode (Tiled) does; at least "
            "64. 0: whole frames.",
        ),
        io.Int.Input(
            "overlap",
            default=64,
            min=0,
            max=MOST,
            step=32,
            optional=True,
            tooltip="Pixels that neighbouring tiles share. Only used with tile_size.",
        ),
        io.Int.Input(
            "temporal_size",
            default=0,
            min=0,
            max=MOST,
            step=4,
            optional=True,
            tooltip="Only used for video VAEs: amount of frames to decode at a time, as VAE Decode (Tiled) does; at "
            "least 8. It makes seams in time. 0: no windows, which is right for VAEs that stream.",
        ),
        io.Int.Input(
            "temporal_overlap",
            default=8,
            min=0,
            max=MOST,
            step=4,
            optional=True,
            tooltip="Only used for video VAEs: amount of frames to overlap. Only used with temporal_size.",
        ),
    ]


def check_sizes(tile_size: int | None, temporal_size: int | None) -> None:
    """Refuse sizes that are neither off nor large enough.

    Args:
        tile_size: in pixels; ``None``, as of the other: it is connected, and nobody knows it yet.
        temporal_size: in frames.

    Raises:
        DecodeError: the message names the input, its value and what it takes.
    """
    for name, size, least in (("tile_size", tile_size, LEAST_TILE), ("temporal_size", temporal_size, LEAST_WINDOW)):
        if size and not least <= size <= MOST:
            raise DecodeError(f"{name}: expected 0, which is off, or {least} to {MOST}, got {size}")


def tiling_of(
    vae: Any, tile_size: int = 0, overlap: int = 64, temporal_size: int = 0, temporal_overlap: int = 8
) -> Tiling | None:
    """What these inputs, in pixels and frames, mean for ``vae``; ``None``: nothing is tiled.

    The numbers become latents by the rules of VAE Decode (Tiled).

    Raises:
        DecodeError: a size is too small.
    """
    check_sizes(tile_size, temporal_size)
    tile = window = None
    window_overlap = 1
    if tile_size > 0:
        overlap = tile_size // 4 if tile_size < overlap * 4 else overlap
        compression = vae.spacial_compression_decode()
        # Two latents at least: an image is decoded in tiles of half the width as well.
        tile, overlap = max(2, int(tile_size // compression)), int(overlap // compression)
    compression = vae.temporal_compression_decode()
    if temporal_size > 0 and vae_side.is_video(vae) and compression is not None:
        temporal_overlap = temporal_overlap // 2 if temporal_size < temporal_overlap * 2 else temporal_overlap
        window = max(2, temporal_size // compression)
        window_overlap = max(1, min(window // 2, temporal_overlap // compression))
    if tile is None and window is None:
        return None
    return Tiling(tile=tile, overlap=overlap if tile else 0, window=window, window_overlap=window_overlap)


def taps_for(vae: Any, latent: torch.Tensor, tiling: Tiling | None, *, images_per_step: int) -> list[Tap]:
    """How to decode ``latent``, and what to try, one after the other, where memory runs out.

    Args:
        vae: ComfyUI's VAE.
        latent: as ``latent_of`` returns it.
        tiling: what the user asked for.
        images_per_step: images decoded at a time.
    """
    decoder = vae_side.decoder_of(vae)
    untiled = choose_tap(decoder, images_per_step=images_per_step)
    # Images that are decoded together come out differently one by one, however large the tile.
    one_by_one = not decoder.is_video and not isinstance(untiled, ImageBatches)
    asked = None
    if tiling is not None and (one_by_one or not tiling.covers(latent)):
        asked = tiled_tap(vae, latent, tiling)
    first = asked if asked is not None else untiled
    taps = [first]
    if isinstance(first, ImageBatches):
        images = min(first.images_per_step, latent.shape[0])
        while images > 1:
            images = (images + 1) // 2
            taps.append(ImageBatches(decoder, images_per_step=images))
    limits = Tiling() if asked is None or tiling is None else tiling
    for smaller in fallback_tilings(vae, limits):
        if smaller == limits or (smaller.covers(latent) and not one_by_one):
            continue
        tap = tiled_tap(vae, latent, smaller)
        if tap is None or not _fits(vae, tap, latent):
            continue
        if isinstance(tap, OwnTiles) and any(tap.tile == other.tile for other in taps if isinstance(other, OwnTiles)):
            # It knows no windows, so nothing would change.
            continue
        if isinstance(tap, TemporalWindows) and smaller.window is None and any(map(_holds_clip, taps[1:])):
            # It is the blended clip that does not fit; smaller tiles would not help.
            continue
        taps.append(tap)
    return taps


def tiled_tap(vae: Any, latent: torch.Tensor, tiling: Tiling) -> Tap | None:
    """The tap that decodes in these tiles; ``None`` where the model cuts its frames by itself and asks nobody."""
    decoder, model = vae_side.decoder_of(vae), vae.first_stage_model
    if getattr(vae, "handles_tiling", False):
        tile = tiling.tile
        # Windows are not for us to make: without tiles, its frames are those of its own decode.
        if tile is None or not _takes(model.decode_tiled, "tile_x", "tile_y", "overlap"):
            return None
        numbers = {"tile_x": tile, "tile_y": tile, "overlap": tiling.overlap}
        if tiling.window is not None:
            numbers.update(tile_t=tiling.window, overlap_t=tiling.window_overlap)
        return OwnTiles(decoder, decode_tiled=lambda z: model.decode_tiled(z, **numbers), tiling=tiling)
    if vae_side.is_video(vae):
        if tiling.window is None:
            # Half of what is free for the decoders' pasts; the rest for blended frames and what is lost to fragments.
            streamed = streamed_tiles(
                decoder,
                scale=scale_of(vae),
                tiling=tiling,
                cache_room=lambda: vae_side.memory_beside(vae, streamed.live_shape(latent)) // 2 if streamed else 0,
            )
            if streamed is not None:
                return streamed
        return TemporalWindows(decoder, scale=scale_of(vae), tiling=tiling)
    return None if tiling.tile is None else ImageTiles(decoder, scale=scale_of(vae), tiling=tiling)


def scale_of(vae: Any) -> Scale:
    """How latents of ``vae`` become pixels."""
    axes = 3 if vae_side.is_video(vae) else 2
    size = vae.upscale_ratio if isinstance(vae.upscale_ratio, tuple | list) else (vae.upscale_ratio,) * axes
    place = getattr(vae, "upscale_index_formula", None) or size
    return Scale(size=tuple(size), place=tuple(place) if isinstance(place, tuple | list) else (place,) * axes)


def fallback_tilings(vae: Any, limits: Tiling) -> Iterator[Tiling]:
    """Smaller and smaller tiles and windows, none of them larger than ``limits``."""
    if not vae_side.is_video(vae):
        for parts in (1, 2, 4):
            yield _within(limits, Tiling(FALLBACK_IMAGE_TILE // parts, FALLBACK_IMAGE_OVERLAP // parts))
        return
    space, time = int(vae.spacial_compression_decode()), vae.temporal_compression_decode() or 1
    tile = max(2, FALLBACK_TILE // space)
    for side in dict.fromkeys((preferred_tile(vae), tile, max(2, tile // 2))):
        yield _within(limits, Tiling(side, side // 4))
    for frames, parts in ((FALLBACK_WINDOW, 1), (FALLBACK_WINDOW // 4, 1), (0, 2)):
        window = max(2, frames // time)
        side = max(2, tile // parts)
        overlap = max(1, min(window // 2, FALLBACK_WINDOW_OVERLAP // time))
        yield _within(limits, Tiling(side, side // 4, window, overlap))


def is_oom(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, in the words of torch or of this core."""
    if isinstance(error, model_management.InterruptProcessingException):
        return False
    # Where torch has no such error, core takes every error for one.
    if hasattr(model_management, "is_oom") and model_management.OOM_EXCEPTION is not Exception:
        return bool(model_management.is_oom(error)) or is_out_of_memory(error)
    return is_out_of_memory(error)


def _holds_clip(tap: Tap) -> bool:
    """Whether it decodes in tiles that span the clip, and blends them when the last is done."""
    return isinstance(tap, TemporalWindows) and tap.tiling.window is None


def _takes(function: Callable[..., Any], *names: str) -> bool:
    parameters = inspect.signature(function).parameters
    return all(name in parameters for name in names)


def _within(limits: Tiling, tiling: Tiling) -> Tiling:
    """``tiling``, with the numbers of ``limits`` where those are smaller."""
    tile, overlap, window, window_overlap = tiling.tile, tiling.overlap, tiling.window, tiling.window_overlap
    if limits.tile is not None and (tile is None or limits.tile <= tile):
        tile, overlap = limits.tile, limits.overlap
    if limits.window is not None and (window is None or limits.window <= window):
        window, window_overlap = limits.window, limits.window_overlap
    return Tiling(tile, overlap, window, window_overlap)


def _fits(vae: Any, tap: Tap, latent: torch.Tensor) -> bool:
    """Whether it is worth a try: windows may miss frames, and what is not bounded may need more than there is."""
    if isinstance(tap, TemporalWindows) and tap.leaves_holes(latent):
        return False
    if tap.decoding.bounded:
        return True
    needed = vae.memory_used_decode(tap.live_shape(latent), vae.vae_dtype)
    if needed > SHARE_OF_DEVICE * model_management.get_total_memory(vae.device):
        return False
    width, height = vae_side.frame_size(vae, latent)
    frames = tap.frames(latent[:1]) or 0
    return 16 * frames * height * width <= SHARE_OF_HOST * model_management.get_free_memory(torch.device("cpu"))
