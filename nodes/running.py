"""One run of the pipeline for a node: decode in the node's thread, then wait for the sinks without blocking others.

What the three decode nodes share, from the inputs that all of them have to the report in ``ui``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import comfy.utils
import torch
from comfy import model_management
from comfy_api.v0_0_2 import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..async_decode import Clip, FramePipeline, Tap
from ..async_decode.pipeline import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE
from ..async_decode.ring import ring_bytes
from ..async_decode.sinks import PreviewSink, Sink, TensorSink
from ..async_decode.taps import Ladder, Tiling
from . import tiling as tiling_side
from . import vae as vae_side

#: How often a node that waits for its sinks looks at the progress and at ComfyUI's interrupt, in seconds.
TAIL_INTERVAL = 0.05
#: The longest side of a preview, in pixels.
PREVIEW_SIZE = 512
#: Under this key the report is in a node's ``ui`` output, hence in the history and in the ``executed`` event.
REPORT_KEY = "async_vae_decode"

#: What a node says that is connected to an IMAGE output which was not asked for.
NO_IMAGES = (
    "This node gives IMAGE only with its widget output_images switched on, because a long clip does not fit in memory "
    "as IMAGE. Switch output_images on and queue again."
)

CATEGORY = "latent/async"


#: What people type when they look for a node like ours; only newer cores can be told.
SEARCH_ALIASES = ["async", "vae decode", "decode", "stream", "latent to video", "pipeline"]


def schema(**definition: Any) -> io.Schema:
    """A schema with what all nodes of the pack share, leaving out what the running core does not know yet."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    optional = {"search_aliases": SEARCH_ALIASES}
    return io.Schema(category=CATEGORY, **definition, **{key: value for key, value in optional.items() if key in known})


def decode_inputs() -> list[io.Input]:
    """The inputs that every decode node begins with."""
    return [
        io.Latent.Input("samples", tooltip="The latent to be decoded: video, or a batch of images."),
        io.Vae.Input("vae", tooltip="The VAE that belongs to the model that made the latent."),
        io.Int.Input(
            "chunk_size",
            default=4,
            min=1,
            max=MAX_CHUNK_SIZE,
            tooltip="Frames that travel together to the host and to the writers (for image VAEs: images decoded at a "
            "time). It never changes the frames of a video. Smaller starts saving sooner, larger costs less overhead.",
        ),
        io.Int.Input(
            "buffer_depth",
            default=3,
            min=1,
            max=MAX_BUFFER_DEPTH,
            tooltip="Chunks that may be under way at once, each in its own memory. 3 keeps decoding, copying and "
            "saving busy; 1 does one after the other, as a baseline to compare with.",
        ),
    ]


def output_images_input() -> io.Input:
    """The switch that the saving nodes have for their IMAGE output."""
    return io.Boolean.Input(
        "output_images",
        default=False,
        tooltip="Also give the frames as IMAGE. Off, memory does not grow with the clip; on, the whole clip is held in "
        "memory as float32.",
    )


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves for the node's outputs.

    Attributes:
        images: the IMAGE, or an ``ExecutionBlocker`` that says how to get one.
        ui: the report, as a node's ``ui`` carries it.
    """

    images: Any
    ui: dict[str, list[Any]]


async def run(
    vae: Any,
    latent: torch.Tensor,
    sinks: Sequence[Sink],
    *,
    chunk_size: int,
    buffer_depth: int,
    output_images: bool,
    tiling: Tiling | None = None,
) -> Result:
    """Decode ``latent`` into ``sinks``; return when all of them have closed.

    Args:
        vae: ComfyUI's VAE.
        latent: as ``latent_of`` returns it.
        sinks: who takes the frames.
        chunk_size: frames a chunk.
        buffer_depth: slots of the ring.
        output_images: make the IMAGE as well.
        tiling: tiles and windows that the user asked for.

    Raises:
        InterruptProcessingException: the user cancelled.
        AsyncDecodeError: decoding or saving failed.
    """
    images = TensorSink() if output_images else None
    preview = PreviewSink()
    sinks = [*sinks, *([images] if images else []), preview]
    pipeline = FramePipeline(
        sinks,
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        device=vae.device,
        finish=vae_side.output_of(vae),
        poll=lambda: progress.update(pipeline),
        cancels=(model_management.InterruptProcessingException, asyncio.CancelledError),
    )
    ring_bytes = _ring_bytes(vae, latent, sinks, chunk_size, buffer_depth)

    def make_room(tap: Tap) -> None:
        model_management.soft_empty_cache()
        vae_side.load(vae, tap, latent, ring_bytes=ring_bytes)

    ladder = Ladder(
        tiling_side.taps_for(vae, latent, tiling, images_per_step=chunk_size),
        receiver=pipeline,
        is_oom=tiling_side.is_oom,
        before_retry=make_room,
    )
    progress = Progress(ladder.frames(latent), preview)
    with vae_side.device_context(vae):
        vae_side.load(vae, ladder, latent, ring_bytes=ring_bytes)
    with pipeline:
        # Not around the whole block: other nodes run in this thread while this one waits below.
        with vae_side.device_context(vae), vae_side.explained(vae, latent):
            try:
                pipeline.decode(ladder, latent)
            finally:
                if ladder.warning is not None:
                    pipeline.warnings.append(ladder.warning)
        # Decoding is over: other nodes that are ready may run while the writers finish.
        closing = asyncio.wrap_future(pipeline.end())
        while not closing.done():
            await asyncio.wait({closing}, timeout=TAIL_INTERVAL)
            progress.update(pipeline)
    progress.update(pipeline)
    for warning in pipeline.report.warnings:
        logging.warning("Async VAE Decode: %s", warning)
    return Result(
        images=ExecutionBlocker(NO_IMAGES) if images is None else _image_of(images, vae),
        ui={REPORT_KEY: [pipeline.report.to_json()]},
    )


def _ring_bytes(vae: Any, latent: torch.Tensor, sinks: Sequence[Sink], chunk_size: int, buffer_depth: int) -> int:
    """Memory that the ring will take beside the decode."""
    width, height = vae_side.frame_size(vae, latent)
    formats = {sink.pixel_format for sink in sinks if sink.pixel_format is not None}
    clip = Clip(height=height, width=width, channels=3)
    return ring_bytes(clip, formats, depth=buffer_depth, chunk_frames=chunk_size)


def _image_of(sink: TensorSink, vae: Any) -> torch.Tensor:
    """The IMAGE that stock's VAE Decode would have returned, on its device and in its type."""
    dtype = vae.vae_output_dtype() if hasattr(vae, "vae_output_dtype") else torch.float32
    return sink.tensor.to(device=vae.output_device, dtype=dtype)


class Progress:
    """The node's progress bar and live preview, and the interrupt: all of it belongs to the node's thread."""

    def __init__(self, total: int | None, preview: PreviewSink) -> None:
        self._total = total
        self._preview = preview
        self._bar = comfy.utils.ProgressBar(total or 1)
        self._shown = -1

    def update(self, pipeline: FramePipeline) -> None:
        """Show how many frames have been written; raise if the user has cancelled."""
        model_management.throw_exception_if_processing_interrupted()
        image = self._preview.take()
        if image is None and pipeline.written == self._shown:
            return
        self._shown = pipeline.written
        self._bar.update_absolute(
            self._shown,
            self._total or max(1, pipeline.received),
            None if image is None else ("JPEG", image, PREVIEW_SIZE),
        )
