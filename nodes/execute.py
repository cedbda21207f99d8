"""What a node's ``execute`` does: frames in the node's thread, then a wait for the sinks that blocks nobody.

``decode`` for the nodes that take a LATENT, ``save_images`` for those that take an IMAGE.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy import model_management

from ..async_decode import Clip, Decoding, FinishedFrames, FramePipeline, Tap
from ..async_decode.device.ring import plan_ring
from ..async_decode.pipeline.stages import formats_of
from ..async_decode.sinks import Sink, TensorSink
from ..async_decode.taps import Ladder, Tiling
from . import background, estimates, image_output
from . import tiling as tiling_side
from . import vae as vae_side
from .earlier_runs import SavedAs
from .node_run import FilesShown, NodeRun


@dataclasses.dataclass(frozen=True)
class Executed:
    """What a run leaves for the node's outputs.

    Attributes:
        images: the IMAGE, or an ``ExecutionBlocker`` that says how to get one.
        ui: what the node shows, and the report.
        later: who finishes the files in the background, if somebody does.
    """

    images: Any
    ui: dict[str, list[Any]]
    later: background.BackgroundRun | None = None


async def decode(
    vae: Any,
    latent: torch.Tensor,
    sinks: Sequence[Sink],
    *,
    chunk_size: int,
    buffer_depth: int,
    output_images: bool,
    tiling: Tiling | None = None,
    decoder: str = "auto",
    files: FilesShown = lambda _: {},
    notes: Sequence[str] = (),
    finish: str = background.WITH_THE_NODE,
    spool: int = 0,
    saved_as: SavedAs | None = None,
) -> Executed:
    """Decode ``latent`` into ``sinks``; return when all of them have closed, or when the device has done its part.

    Args:
        vae: ComfyUI's VAE.
        latent: as ``latent_of`` returns it.
        sinks: who takes the frames.
        chunk_size: frames a chunk.
        buffer_depth: slots of the ring.
        output_images: make the IMAGE as well.
        tiling: tiles and windows that the user asked for.
        decoder: ``auto``: faster where the bits are the same; ``stock``: as it is.
        files: what the node shows of its files.
        notes: what the report is to say beside its own warnings.
        finish: when to return, one of ``background.FINISH``. An IMAGE is whole when the node returns, so that with
            ``output_images`` it returns with its files.
        spool: disk space, in bytes, for frames that wait for their files.
        saved_as: how the files are saved, for what is remembered of earlier runs.

    Raises:
        InterruptProcessingException: the user cancelled.
        AsyncDecodeError: decoding or saving failed.
    """
    later = finish == background.IN_THE_BACKGROUND and not output_images
    notes = [*notes, *(await background.room() if later else ())]
    if tiling is None:
        tiling = estimates.tiles_at_once(vae, latent)
        if tiling is not None:
            notes = [
                *notes,
                f"the VAE expects to need more memory than is free: decoded in {tiling}, as VAE Decode does",
            ]
    images = TensorSink() if output_images else None
    sinks = [*sinks, *([images] if images else [])]
    node_run = NodeRun(
        sinks,
        saved_as,
        poll=lambda: node_run.poll(),
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        device=vae.device,
        finish=vae_side.output_of(vae),
        backlog=background.BACKLOG if later else 0,
        spool=spool,
    )
    node_run.pipeline.warnings.extend(notes)
    ring_bytes = _ring_bytes(vae, latent, sinks, chunk_size, buffer_depth)

    def make_room(tap: Tap) -> None:
        model_management.soft_empty_cache()
        vae_side.load(vae, tap, latent, ring_bytes=ring_bytes)

    ladder = Ladder(
        tiling_side.taps_for(vae, latent, tiling, images_per_step=chunk_size),
        receiver=node_run.pipeline,
        is_oom=tiling_side.is_oom,
        before_retry=make_room,
    )
    with vae_side.device_context(vae.device):
        vae_side.load(vae, ladder, latent, ring_bytes=ring_bytes)
    with contextlib.ExitStack() as held:
        pipeline: FramePipeline = held.enter_context(node_run)
        # Not around the whole block: other nodes run in this thread while this one waits below.
        with vae_side.device_context(vae.device), vae_side.explained(vae, latent):
            try:
                pipeline.decode(
                    ladder, latent, decoder="stock" if decoder == "stock" else "auto", verdicts=_verdicts_folder()
                )
            finally:
                if ladder.warning is not None:
                    pipeline.warnings.append(ladder.warning)
        background_run = await node_run.wait_or_leave(pipeline.end(), held if later else None, files)
    image = image_output.blocker() if images is None else _image_of(images, vae)
    return Executed(images=image, ui=node_run.ui(files), later=background_run)


def _verdicts_folder() -> Path:
    """Where what was proven of decoders on this machine is kept."""
    return Path(folder_paths.get_user_directory()) / "async_vae_decode" / "decoders"


async def save_images(
    images: torch.Tensor,
    sinks: Sequence[Sink],
    *,
    chunk_size: int,
    buffer_depth: int,
    files: FilesShown,
    notes: Sequence[str] = (),
    finish: str = background.WITH_THE_NODE,
    spool: int = 0,
    saved_as: SavedAs | None = None,
) -> Executed:
    """Hand frames that are there already to ``sinks``, a few at a time; return when all of them have closed.

    Args:
        images: as ``inputs.check_images`` lets it through, on any device.
        sinks: who takes the frames.
        chunk_size: frames a chunk.
        buffer_depth: slots of the ring.
        files: what the node shows of its files.
        notes: what the report is to say beside its own warnings.
        finish: when to return, one of ``background.FINISH``.
        spool: as of ``decode``.
        saved_as: as of ``decode``.

    Returns:
        What the node shows, and the report; no IMAGE.

    Raises:
        InterruptProcessingException: the user cancelled.
        AsyncDecodeError: saving failed.
    """
    later = finish == background.IN_THE_BACKGROUND
    notes = [*notes, *(await background.room() if later else ())]
    node_run = NodeRun(
        sinks,
        saved_as,
        # Until the node returns it looks itself, and this is another thread.
        poll=lambda: node_run.poll_alone(),
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        device=images.device,
        finish=FinishedFrames(),
        backlog=background.BACKLOG if later else 0,
        spool=spool,
        total_frames=images.shape[0],
        decoding=Decoding("images", exact=True, bounded=True),
    )
    node_run.pipeline.warnings.extend(notes)
    with contextlib.ExitStack() as held:
        pipeline: FramePipeline = held.enter_context(node_run)
        with vae_side.device_context(images.device):
            closed = pipeline.feed(images)
        background_run = await node_run.wait_or_leave(closed, held if later else None, files)
    return Executed(images=None, ui=node_run.ui(files), later=background_run)


def _ring_bytes(vae: Any, latent: torch.Tensor, sinks: Sequence[Sink], chunk_size: int, buffer_depth: int) -> int:
    """Memory that the ring will take beside the decode."""
    width, height = vae_side.frame_size(vae, latent)
    clip = Clip(height=height, width=width, channels=getattr(vae, "output_channels", 3))
    return plan_ring(clip, formats_of(sinks), depth=buffer_depth, chunk_frames=chunk_size).bytes


def _image_of(sink: TensorSink, vae: Any) -> torch.Tensor:
    """The IMAGE that stock's VAE Decode would have returned, on its device and in its type."""
    dtype = vae.vae_output_dtype() if hasattr(vae, "vae_output_dtype") else torch.float32
    return sink.tensor.to(device=vae.output_device, dtype=dtype)
