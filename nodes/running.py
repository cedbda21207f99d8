"""One run of the pipeline for a node: its frames in the node's thread, then a wait for the sinks that blocks nobody.

What all nodes share, from the inputs that they have in common to the report in ``ui``: ``run`` for those that decode,
``run_images`` for those that take an IMAGE.
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
from comfy_api.v0_0_2 import io

from ..async_decode import Clip, DecodeError, Decoding, FinishedFrames, Tap
from ..async_decode.device.ring import plan_ring
from ..async_decode.pipeline import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE
from ..async_decode.pipeline.stages import formats_of
from ..async_decode.sinks import Sink, TensorSink
from ..async_decode.taps import Ladder, Tiling
from . import background, estimates, image_output
from . import tiling as tiling_side
from . import vae as vae_side
from .node_run import FilesShown, NodeRun

CATEGORY = "latent/async"


#: What people type when they look for a node like ours; only newer cores can be told.
SEARCH_ALIASES = ["async", "vae decode", "decode", "stream", "latent to video", "pipeline"]


def schema(**definition: Any) -> io.Schema:
    """A schema with what all nodes of the pack share, leaving out what the running core does not know yet."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    optional = {"search_aliases": SEARCH_ALIASES}
    return io.Schema(category=CATEGORY, **definition, **{key: value for key, value in optional.items() if key in known})


def advanced(inputs: Sequence[io.Input]) -> list[io.Input]:
    """``inputs``, whose widgets are marked as what most people leave alone; older cores have no word for it.

    What is new comes last of all, and is optional: older front ends find a saved workflow's values by their place.
    """
    for one in inputs:
        # What has no default has no widget.
        if hasattr(one, "advanced") and hasattr(one, "default"):
            one.advanced = True
    return list(inputs)


def decode_inputs() -> list[io.Input]:
    """What every decode node decodes, and with what."""
    return [
        io.Latent.Input("samples", tooltip="The latent to be decoded: video, or a batch of images."),
        io.Vae.Input("vae", tooltip="The VAE that belongs to the model that made the latent."),
    ]


def images_inputs() -> list[io.Input]:
    """What every node saves that takes frames which are there already."""
    return [io.Image.Input("images", tooltip="The frames to be saved. They are not copied as a whole.")]


def decode_ring_inputs() -> list[io.Input]:
    """How frames travel in a decode node."""
    return _ring_inputs(
        "Frames that travel together to the host and to the writers (for image VAEs: images decoded at a time). It "
        "never changes the frames of a video. Smaller starts saving sooner, larger costs less overhead."
    )


def decoder_input() -> io.Input:
    """Whose decoder the decode nodes run."""
    return io.Combo.Input(
        "decoder",
        options=["auto", "stock"],
        default="auto",
        optional=True,
        tooltip="auto: blocks of the decoder are replaced by faster ones, wherever these were proven on this machine "
        "to give the same bits. stock: nothing is replaced.",
    )


def images_ring_inputs() -> list[io.Input]:
    """How frames travel that are there already."""
    return _ring_inputs("Frames that travel together to the writers. Smaller starts saving sooner.")


def _ring_inputs(chunk_size: str) -> list[io.Input]:
    return [
        io.Int.Input("chunk_size", default=4, min=1, max=MAX_CHUNK_SIZE, tooltip=chunk_size),
        io.Int.Input(
            "buffer_depth",
            default=3,
            min=1,
            max=MAX_BUFFER_DEPTH,
            tooltip="Chunks that may be under way at once, each in its own memory. 3 keeps all stages busy; 1 does one "
            "after the other, as a baseline to compare with.",
        ),
    ]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves for the node's outputs.

    Attributes:
        images: the IMAGE, or an ``ExecutionBlocker`` that says how to get one.
        ui: what the node shows, and the report.
        later: who finishes the files in the background, if somebody does.
    """

    images: Any
    ui: dict[str, list[Any]]
    later: background.BackgroundRun | None = None


async def run(
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
) -> Result:
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
    running = NodeRun(
        sinks,
        poll=lambda: running.poll(),
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        device=vae.device,
        finish=vae_side.output_of(vae),
        backlog=background.BACKLOG if later else 0,
    )
    running.pipeline.warnings.extend(notes)
    ring_bytes = _ring_bytes(vae, latent, sinks, chunk_size, buffer_depth)

    def make_room(tap: Tap) -> None:
        model_management.soft_empty_cache()
        vae_side.load(vae, tap, latent, ring_bytes=ring_bytes)

    ladder = Ladder(
        tiling_side.taps_for(vae, latent, tiling, images_per_step=chunk_size),
        receiver=running.pipeline,
        is_oom=tiling_side.is_oom,
        before_retry=make_room,
    )
    with vae_side.device_context(vae.device):
        vae_side.load(vae, ladder, latent, ring_bytes=ring_bytes)
    with contextlib.ExitStack() as held:
        pipeline = held.enter_context(running)
        # Not around the whole block: other nodes run in this thread while this one waits below.
        with vae_side.device_context(vae.device), vae_side.explained(vae, latent):
            try:
                pipeline.decode(
                    ladder, latent, decoder="stock" if decoder == "stock" else "auto", verdicts=_verdicts_folder()
                )
            finally:
                if ladder.warning is not None:
                    pipeline.warnings.append(ladder.warning)
        left = await running.wait_or_leave(pipeline.end(), held if later else None, files)
    image = image_output.blocker() if images is None else _image_of(images, vae)
    return Result(images=image, ui=running.ui(files), later=left)


def _verdicts_folder() -> Path:
    """Where what was proven of decoders on this machine is kept."""
    return Path(folder_paths.get_user_directory()) / "async_vae_decode" / "decoders"


async def run_images(
    images: torch.Tensor,
    sinks: Sequence[Sink],
    *,
    chunk_size: int,
    buffer_depth: int,
    files: FilesShown,
    notes: Sequence[str] = (),
    finish: str = background.WITH_THE_NODE,
) -> Result:
    """Hand frames that are there already to ``sinks``, a few at a time; return when all of them have closed.

    Args:
        images: as ``check_images`` lets it through, on any device.
        sinks: who takes the frames.
        chunk_size: frames a chunk.
        buffer_depth: slots of the ring.
        files: what the node shows of its files.
        notes: what the report is to say beside its own warnings.
        finish: when to return, one of ``background.FINISH``.

    Returns:
        What the node shows, and the report; no IMAGE.

    Raises:
        InterruptProcessingException: the user cancelled.
        AsyncDecodeError: saving failed.
    """
    later = finish == background.IN_THE_BACKGROUND
    notes = [*notes, *(await background.room() if later else ())]
    running = NodeRun(
        sinks,
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        device=images.device,
        finish=FinishedFrames(),
        backlog=background.BACKLOG if later else 0,
        total_frames=images.shape[0],
        decoding=Decoding("images", exact=True, bounded=True),
    )
    running.pipeline.warnings.extend(notes)
    with contextlib.ExitStack() as held:
        pipeline = held.enter_context(running)
        with vae_side.device_context(images.device):
            closing = pipeline.feed(images)
        left = await running.wait_or_leave(closing, held if later else None, files)
    return Result(images=None, ui=running.ui(files), later=left)


def check_images(images: Any) -> None:
    """Refuse what is not an IMAGE.

    Raises:
        DecodeError: the message names the value and the remedy.
    """
    if not isinstance(images, torch.Tensor):
        raise DecodeError(f"images: expected an IMAGE, got {type(images).__name__}; connect an output of that type")
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or images.numel() == 0:
        raise DecodeError(
            "images: expected (frames, height, width, channels) with 1, 3 or 4 channels and none of them 0, got "
            f"{tuple(images.shape)}; convert it to an IMAGE first"
        )
    if not images.is_floating_point():
        raise DecodeError(
            f"images: expected floating-point values from 0 to 1, got {images.dtype}; convert and scale them first"
        )


def _ring_bytes(vae: Any, latent: torch.Tensor, sinks: Sequence[Sink], chunk_size: int, buffer_depth: int) -> int:
    """Memory that the ring will take beside the decode."""
    width, height = vae_side.frame_size(vae, latent)
    clip = Clip(height=height, width=width, channels=getattr(vae, "output_channels", 3))
    return plan_ring(clip, formats_of(sinks), depth=buffer_depth, chunk_frames=chunk_size).bytes


def _image_of(sink: TensorSink, vae: Any) -> torch.Tensor:
    """The IMAGE that stock's VAE Decode would have returned, on its device and in its type."""
    dtype = vae.vae_output_dtype() if hasattr(vae, "vae_output_dtype") else torch.float32
    return sink.tensor.to(device=vae.output_device, dtype=dtype)
