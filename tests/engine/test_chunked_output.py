"""Models that write finished stretches of time into an output buffer: stand-ins that follow core's protocols."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from async_decode import DecodeError, FramePipeline, PixelFormat, VideoDecoder, choose_tap
from async_decode.taps import ChunkedOutput, ImageBatches, Whole
from tests.engine.toy import CollectSink, stock_bytes


class Slices(nn.Module):
    """SeedVR2's manner since it was rewritten: slices into the buffer, a short clip into its ``copy_``."""

    comfy_has_chunked_io = True
    slicing_latent_min_size = 2

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.mix = nn.Conv3d(4, 4 * channels, 1)
        self.channels = channels
        self.copies: list[str] = []

    def decode_output_shape(self, shape: Any) -> tuple[int, ...]:
        batch, _, frames, height, width = shape
        return batch, self.channels, 4 * frames - 3, 2 * height, 2 * width

    def decode(self, z: Tensor, output_buffer: Any = None) -> Any:
        return self.slicing_decode(z, output_buffer=output_buffer)

    def slicing_decode(self, z: Tensor, output_buffer: Any = None) -> Any:
        if z.size(0) > 1:
            parts = [
                self.slicing_decode(z[i : i + 1], None if output_buffer is None else output_buffer[i : i + 1])
                for i in range(z.size(0))
            ]
            return torch.cat(parts) if output_buffer is None else output_buffer
        if z.shape[2] - 1 <= self.slicing_latent_min_size:
            self.copies.append("whole")
            pixels = self._pixels(z)[:, :, 3:]
            return pixels if output_buffer is None else output_buffer.copy_(pixels)
        made: list[Tensor] = []
        at = 0
        for number, part in enumerate(z[:, :, 1:].split(self.slicing_latent_min_size, 2)):
            pixels = self._pixels(torch.cat([z[:, :, :1], part], 2))[:, :, 3:] if number == 0 else self._pixels(part)
            if output_buffer is None:
                made.append(pixels)
            else:
                output_buffer[:, :, at : at + pixels.size(2)].copy_(pixels)
            at += pixels.size(2)
        return torch.cat(made, 2) if output_buffer is None else output_buffer

    def _pixels(self, z: Tensor) -> Tensor:
        pixels = self.mix(z).unflatten(1, (self.channels, 4)).movedim(2, 3).flatten(2, 3)
        return pixels.repeat_interleave(2, 3).repeat_interleave(2, 4)


def decoder_of(model: Any, *, video: bool = True) -> VideoDecoder:
    return VideoDecoder(model, model.decode, torch.device("cpu"), torch.float32, is_video=video)


def latent_of(frames: int, clips: int = 1) -> Tensor:
    return torch.randn(clips, 4, frames, 3, 5, generator=torch.Generator().manual_seed(frames))


def wanted_of(model: Any, latent: Tensor) -> Tensor:
    with torch.inference_mode():
        pixels = torch.cat([model.decode(clip) for clip in latent.split(1)])
    return torch.clamp((pixels + 1.0) / 2.0, 0, 1).movedim(1, -1).flatten(0, 1)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("latents", [1, 2, 3, 4, 8])
def test_slices_are_exact_and_bounded(latents: int, clips: int, channels: int) -> None:
    model, latent = Slices(channels), latent_of(latents, clips)
    floats, quantised = CollectSink(), CollectSink(PixelFormat.UINT8)

    with FramePipeline([floats, quantised], chunk_size=3) as pipeline:
        tap = choose_tap(decoder_of(model))
        pipeline.decode(tap, latent)

    assert isinstance(tap, ChunkedOutput)
    assert np.array_equal(floats.frames, wanted_of(model, latent).numpy())
    assert np.array_equal(quantised.frames, stock_bytes(wanted_of(model, latent)))
    assert floats.frames.shape[-1] == channels
    assert pipeline.report.bounded and "slices" in tap.decoding.detail


def test_room_is_made_for_one_slice_and_not_for_the_clip() -> None:
    tap = choose_tap(decoder_of(Slices()))

    assert tap.live_shape(latent_of(40)) == (1, 4, 3, 3, 5)
    assert tap.live_shape(latent_of(2)) == (1, 4, 2, 3, 5)


def test_where_slices_follow_the_free_memory_room_is_made_for_the_clip() -> None:
    model = Slices()
    vars(model)["slicing_latent_min_size"] = lambda free: free

    tap = choose_tap(decoder_of(model))

    assert tap.live_shape(latent_of(40)) == (1, 4, 40, 3, 5)


@pytest.mark.parametrize(
    "stretches, message",
    [
        ([(0, 4), (5, 9)], "frame 4 is the next, but it wrote 5 to 9"),
        ([(0, 4), (2, 6)], "frame 4 is the next, but it wrote 2 to 6"),
        ([(0, 4)], "expected 9 frames .* wrote 4"),
    ],
)
def test_holes_overlaps_and_a_missing_end_are_errors(stretches: list[tuple[int, int]], message: str) -> None:
    class Wrong(Slices):
        def slicing_decode(self, z: Tensor, output_buffer: Any = None) -> Any:
            for start, stop in stretches:
                output_buffer[:, :, start:stop].copy_(torch.zeros(1, 3, stop - start, 6, 10))
            return output_buffer

    with pytest.raises(DecodeError, match=message), FramePipeline([CollectSink()]) as pipeline:
        pipeline.decode(choose_tap(decoder_of(Wrong())), latent_of(3))


class ImageVAE(nn.Module):
    """An image VAE of RGBA, made of 3-D convolutions that reach over so many frames."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.decoder = nn.Conv3d(4, 4, (reach, 3, 3), padding=(reach // 2, 1, 1))

    def decode(self, z: Tensor) -> Tensor:
        if self.decoder.kernel_size[0] == 1:
            return self.decoder(z.unsqueeze(2))[:, :, 0]
        # Stable Video Diffusion's manner: the batch is time.
        return self.decoder(z.movedim(0, 1).unsqueeze(0))[0].movedim(0, 1)


def test_images_of_a_video_class_whose_convolutions_reach_over_one_frame_are_images_with_alpha() -> None:
    """Qwen Image 2.1's manner: Wan 2.2's class, a temporal kernel of 1, RGBA."""
    model, latent, sink = ImageVAE(1), torch.rand(5, 4, 6, 8), CollectSink(PixelFormat.UINT8)

    with FramePipeline([sink], chunk_size=2) as pipeline:
        tap = choose_tap(decoder_of(model, video=False), images_per_step=2)
        pipeline.decode(tap, latent)

    with torch.inference_mode():
        pixels = torch.cat([model.decode(part) for part in latent.split(2)])
    assert isinstance(tap, ImageBatches)
    assert sink.frames.shape == (5, 6, 8, 4)
    assert np.array_equal(sink.frames, stock_bytes(torch.clamp((pixels + 1.0) / 2.0, 0, 1).movedim(1, -1)))


def test_a_vae_that_takes_its_batch_as_time_is_no_image_vae() -> None:
    """Stable Video Diffusion's manner: cut into batches, the frames would be others."""
    model, latent, sink = ImageVAE(3), torch.rand(6, 4, 6, 8), CollectSink()

    with FramePipeline([sink]) as pipeline:
        tap = choose_tap(decoder_of(model, video=False), images_per_step=2)
        pipeline.decode(tap, latent)

    with torch.inference_mode():
        wanted = torch.clamp((model.decode(latent) + 1.0) / 2.0, 0, 1).movedim(1, -1)
    assert isinstance(tap, Whole) and "together" in tap.decoding.detail
    assert np.array_equal(sink.frames, wanted.numpy())
