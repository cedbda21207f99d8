"""The front door: latents in, files or frames out, in one call.

::

    async_decode.decode(vae, latents, "clip.mp4", fps=16)           # Result: path, report
    async_decode.decode(vae, latents, "frames/*.png")               # Result: files, report
    frames = async_decode.decode(vae, latents).frames               # (T, H, W, C) float32
    for chunk in async_decode.stream(vae, latents): ...             # bounded, for a model that follows

Everything here is made of the parts that the nodes are made of: a tap, sinks, a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import torch

from .adapters.diffusers_latents import Normalized
from .adapters.source import source_of
from .decoders import Mode, cache_folder, check_mode
from .device.conversion import Finish
from .errors import DecodeError
from .pipeline.decode_into import Result, decode_into
from .pipeline.frame_pipeline import FramePipeline
from .pipeline.stream import Stream
from .sinks import Sink, Sound
from .sinks.paths import Options, Target, sinks_for

__all__ = ["Result", "decode", "stream"]


def decode(
    vae: Any,
    latents: Any,
    to: Target | Sequence[Target] = None,
    *,
    fps: float | Fraction | None = None,
    normalized: Normalized = "auto",
    size: tuple[int, ...] | None = None,
    num_frames: int | None = None,
    sigma_data: float | None = None,
    decode_timestep: float | None = None,
    decode_noise_scale: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: int = 4,
    buffer_depth: int = 3,
    format: str | None = None,
    quality: float | None = None,
    preset: str | None = None,
    compression: int | None = None,
    color_space: str = "sRGB",
    writers: int | None = None,
    sound: Sound | None = None,
    trim_to_sound: bool = False,
    ping_pong: bool = False,
    repeats: int = 0,
    convert_on_device: bool | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    finish: Finish | Literal["diffusers"] | None = None,
    decoder: Mode = "auto",
    spool_gb: float = 0,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Result:
    """Decode ``latents``, and write the frames while the next ones are decoded.

    The frames are ``clamp((vae.decode(latents).sample + 1) / 2)``, bit for bit, whatever the VAE has switched on
    (tiling, slicing, framewise decoding, offloading). Memory does not grow with the clip where the VAE can be taken
    apart (``Result.report.decoding`` says it), unless the frames are asked for as a tensor.

    Args:
        vae: a VAE of Diffusers, or a ``VideoDecoder`` for any other.
        latents: what it takes, or what a pipeline returned with ``output_type="latent"``.
        to: ``"clip.mp4"``, ``"frames/*.png"``, a ``Sink``, or a list of such. Default: ``None``, into
            ``Result.frames``.
        fps: frames a second of a video, which needs it. Default: ``None``.
        normalized: whether mean, standard deviation, scaling and shift of the VAE are still to be undone, as a pipeline
            does it before it decodes. Default: ``"auto"``, as far as it can be told: for a pipeline's output, and where
            the VAE has none of them.
        size: frames, height and width of the video in pixels, for latents that are a row of tokens (LTX, Flux,
            Qwen-Image). Default: ``None``.
        num_frames: frames of one clip, of a batch of SVD's. Default: ``None``, all of them.
        sigma_data: of Cosmos' pipelines, ``pipe.scheduler.config.sigma_data``. Default: ``None``.
        decode_timestep: as LTX's pipelines take it, of a VAE that decodes at one. Default: ``None``.
        decode_noise_scale: as LTX's pipelines take it. Default: ``None``, ``decode_timestep``.
        generator: of that noise; the one that the pipeline was given goes on as the pipeline would. Default: ``None``,
            torch's own.
        chunk_size: frames that travel together, 1 to 4096. Default: ``4``.
        buffer_depth: chunks that may be under way at once, 1 to 64. Default: ``3``.
        format: of the files (``h265-10``, ``png16``, …; see ``Options``). Default: ``None``, the ending tells it.
        quality: a video's CRF (lower is better), or of JPEG and WebP images 1 to 100. Default: ``None``, the format's
            own.
        preset: speed of a video's encoder. Default: ``None``, the format's own.
        compression: of PNG, TIFF and EXR, 0 to 9. Default: ``None``, 4.
        color_space: what frames are, for EXR: ``sRGB``, ``HDR`` or ``linear``. Default: ``"sRGB"``.
        writers: threads that write images. Default: ``None``, as many as are good.
        sound: what is heard, from a video's first frame on. Default: ``None``, nothing.
        trim_to_sound: end a video with its sound. Default: ``False``.
        ping_pong: play a video backwards too. Default: ``False``.
        repeats: how often a video is played once more; GIF and WebP say it to the player, 0 is for ever. Default:
            ``0``.
        convert_on_device: convert to a video's own colours where the VAE decodes. Default: ``None``, on a GPU.
        metadata: text by key, for the files' tags. Default: ``None``.
        overwrite: replace files that are there. Default: ``False``.
        finish: how decoder output becomes frames; ``"diffusers"``: the values, and the bytes, of ``VideoProcessor``.
            Default: ``None``, stock's scaling of raw decoder output.
        decoder: ``"auto"``: blocks of the decoder are replaced by faster ones, wherever these were proven on this
            machine to give the same bits; what was proven is kept in the user's cache folder (``cache_folder``).
            ``"stock"``: nothing is replaced. ``Result.report.decoder`` says what was done, and why. Default:
            ``"auto"``.
        spool_gb: disk space, in GB next to the files, for frames that wait for a writer that is slower than the VAE,
            packed without any loss: the VAE is done earlier. Default: ``0``, it waits.
        on_progress: called with the frames that are written and all that there will be (``None`` where nobody knows),
            in this thread; what it raises ends the run. Default: ``None``.

    Returns:
        What was made, when all of it is whole.

    Raises:
        DecodeError: the latents do not fit to the VAE, or it cannot be told what they are.
        SinkError: a path, a format or an option makes no sense, or a file could not be written.
        ValueError: ``chunk_size`` or ``buffer_depth`` is out of range.
        Exception: what the VAE or ``on_progress`` raised.
    """
    check_mode(decoder)
    if on_progress is not None and not callable(on_progress):
        raise DecodeError(f"on_progress: expected a function of frames done and all, got {on_progress!r}")
    source = source_of(
        vae,
        latents,
        normalized=normalized,
        size=size,
        num_frames=num_frames,
        sigma_data=sigma_data,
        decode_timestep=decode_timestep,
        decode_noise_scale=decode_noise_scale,
        generator=generator,
        chunk_size=chunk_size,
        finish=finish,
    )
    options = Options(
        fps=fps,
        format=format,
        quality=quality,
        preset=preset,
        compression=compression,
        color_space=color_space,
        writers=writers,
        sound=sound,
        trim_to_sound=trim_to_sound,
        ping_pong=ping_pong,
        repeats=repeats,
        convert_on_device=convert_on_device,
        metadata=metadata,
        overwrite=overwrite,
        spool_gb=spool_gb,
    )
    sinks = sinks_for(to, options, gpu=source.device.type == "cuda")
    return decode_into(
        sinks,
        source.tap,
        source.latent,
        finish=source.finish,
        chunk_size=chunk_size,
        buffer_depth=buffer_depth,
        decoder=decoder,
        spool=options.spool,
        on_progress=on_progress,
    )


def stream(
    vae: Any,
    latents: Any,
    *,
    normalized: Normalized = "auto",
    size: tuple[int, ...] | None = None,
    num_frames: int | None = None,
    sigma_data: float | None = None,
    decode_timestep: float | None = None,
    decode_noise_scale: float | None = None,
    generator: torch.Generator | None = None,
    chunk_size: int = 4,
    buffer_depth: int = 3,
    finish: Finish | Literal["diffusers"] | None = None,
    decoder: Mode = "auto",
) -> Stream:
    """Decode ``latents``, and hand out the frames a few at a time, while the next ones are decoded.

    No more than ``buffer_depth`` chunks exist at once: who takes them slowly lets the decoder wait. Decoding runs in a
    thread of its own, with the caller's autocast and on its current stream of the device; leaving the loop ends it.

    Args:
        vae: as of ``decode``.
        latents: as of ``decode``.
        normalized: as of ``decode``. Default: ``"auto"``.
        size: as of ``decode``. Default: ``None``.
        num_frames: as of ``decode``. Default: ``None``.
        sigma_data: as of ``decode``. Default: ``None``.
        decode_timestep: as of ``decode``. Default: ``None``.
        decode_noise_scale: as of ``decode``. Default: ``None``.
        generator: as of ``decode``. Default: ``None``.
        chunk_size: as of ``decode``. Default: ``4``.
        buffer_depth: as of ``decode``. Default: ``3``.
        finish: as of ``decode``. Default: ``None``.
        decoder: as of ``decode``. Default: ``"auto"``.

    Returns:
        Chunks ``(T, H, W, C)`` float32, 0 to 1, on the host, each with memory of its own; ``.report`` afterwards.

    Raises:
        DecodeError: the latents do not fit to the VAE, or it cannot be told what they are.
        ValueError: ``chunk_size`` or ``buffer_depth`` is out of range.
    """
    check_mode(decoder)
    source = source_of(
        vae,
        latents,
        normalized=normalized,
        size=size,
        num_frames=num_frames,
        sigma_data=sigma_data,
        decode_timestep=decode_timestep,
        decode_noise_scale=decode_noise_scale,
        generator=generator,
        chunk_size=chunk_size,
        finish=finish,
    )

    def pipeline_into(sink: Sink, poll: Callable[[], None]) -> FramePipeline:
        return FramePipeline(
            [sink],
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            device=source.device,
            finish=source.finish,
            poll=poll,
        )

    return Stream(source.tap, source.latent, pipeline_into, decoder=decoder, verdicts=cache_folder())
