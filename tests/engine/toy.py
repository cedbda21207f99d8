"""Small things that the engine's tests decode and save: a stepwise causal VAE, sinks that record, wait and fail."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import numpy as np
import torch
from torch import Tensor, nn

from async_decode import Clip, PixelFormat, Recorder, VideoDecoder
from async_decode.frames import FrameArray
from async_decode.sinks.base import Sink


class ToyDecoder(nn.Module):
    """One latent in, 1 (the first) or 4 frames out; remembers the latent before, as a causal convolution does."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.mix = nn.Conv2d(8, 12, 3, padding=1)
        for parameter in self.mix.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    def forward(self, x: Tensor, feat_cache: list[Tensor | None], feat_idx: list[int]) -> Tensor:
        now = x[:, :, 0]
        before = feat_cache[0] if feat_cache[0] is not None else torch.zeros_like(now)
        first = feat_cache[0] is None
        feat_cache[0] = now
        pixels = self.mix(torch.cat([before, now], 1)).unflatten(1, (3, 4)).repeat_interleave(2, 3)
        pixels = pixels.repeat_interleave(2, 4)
        return pixels[:, :, :1] if first else pixels


class ToyVAE(nn.Module):
    """``(N, 4, T, H, W)`` to ``(N, 3, 4T - 3, 2H, 2W)``, step by step, in Wan's manner."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = ToyDecoder()
        self.steps = 0

    def decode(self, z: Tensor) -> Tensor:
        cache: list[Tensor | None] = [None]
        out = None
        for index in range(z.shape[2]):
            self.steps += 1
            piece = self.decoder(z[:, :, index : index + 1], feat_cache=cache, feat_idx=[0])
            out = piece if out is None else torch.cat([out, piece], 2)
        assert out is not None
        return out

    def video_decoder(self) -> VideoDecoder:
        """This VAE as the taps take it."""
        return VideoDecoder(
            model=self,
            decode=self.decode,
            device=torch.device("cpu"),
            dtype=torch.float32,
            frames_of=lambda latents: 4 * latents - 3,
        )


def toy_latent(latents: int, *, clips: int = 1, size: int = 8, seed: int = 1) -> Tensor:
    """A latent for ``ToyVAE``: ``(clips, 4, latents, size, size)``."""
    return torch.randn(clips, 4, latents, size, size, generator=torch.Generator().manual_seed(seed))


def stock_frames(vae: ToyVAE, latent: Tensor) -> Tensor:
    """What stock's VAE Decode makes of it: ``(T, H, W, C)`` float32."""
    with torch.inference_mode():
        pixels = torch.cat([vae.decode(clip) for clip in latent.split(1)])
        pixels = torch.clamp((pixels.float() + 1.0) / 2.0, min=0.0, max=1.0)
        return pixels.movedim(1, -1).flatten(0, 1)


def stock_bytes(frames: Tensor) -> np.ndarray:
    """What stock's Save Image makes of frames: ``(T, H, W, C)`` uint8."""
    with np.errstate(invalid="ignore"):
        return np.clip(255.0 * frames.numpy(), 0, 255).astype(np.uint8)


class CollectSink(Sink):
    """Keeps a copy of every chunk; finishes in its own thread where ``threaded``."""

    def __init__(self, pixel_format: PixelFormat | None = PixelFormat.FLOAT32, *, threaded: bool = False) -> None:
        self.pixel_format = pixel_format
        self.threaded = threaded
        self.chunks: list[np.ndarray] = []
        self.indices: list[int] = []
        self.calls: list[str] = []
        self.clip: Clip | None = None

    def open(self, clip: Clip, recorder: Recorder) -> None:
        self.calls.append("open")
        self.clip = clip

    def write(self, frames: FrameArray, first_index: int) -> Future[None] | None:
        self.indices.append(first_index)
        if not self.threaded:
            self.chunks.append(frames.copy())
            return None
        place = len(self.chunks)
        self.chunks.append(np.empty(0))
        written: Future[None] = Future()

        def keep() -> None:
            self.chunks[place] = frames.copy()
            written.set_result(None)

        threading.Thread(target=keep).start()
        return written

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    @property
    def frames(self) -> np.ndarray:
        """Everything that came, ``(T, H, W, C)``."""
        return np.concatenate(self.chunks)


class GateSink(CollectSink):
    """Is done with a chunk only when the test says so, chunk by chunk, in any order."""

    def __init__(self, pixel_format: PixelFormat = PixelFormat.FLOAT32) -> None:
        super().__init__(pixel_format)
        self.pending: dict[int, tuple[Future[None], FrameArray]] = {}
        self.arrived = threading.Condition()
        self.aborted = False

    def write(self, frames: FrameArray, first_index: int) -> Future[None]:
        super().write(frames, first_index)
        written: Future[None] = Future()
        with self.arrived:
            self.pending[first_index] = (written, frames)
            self.arrived.notify_all()
        return written

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` chunks are held."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.pending) >= count, timeout=30), list(self.pending)

    def release(self, first_index: int, error: BaseException | None = None) -> None:
        """Be done with the chunk that starts at ``first_index``."""
        with self.arrived:
            written, _ = self.pending.pop(first_index)
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)

    def abort(self) -> None:
        super().abort()
        with self.arrived:
            pending, self.pending = self.pending, {}
        for written, _ in pending.values():
            written.cancel()


class FailingSink(CollectSink):
    """Raises at a certain call: ``open``, ``write:<n>``, ``future:<n>`` (from its own thread) or ``close``."""

    def __init__(self, where: str, error: Exception) -> None:
        super().__init__()
        self.where = where
        self.error = error

    def open(self, clip: Clip, recorder: Recorder) -> None:
        super().open(clip, recorder)
        if self.where == "open":
            raise self.error

    def write(self, frames: FrameArray, first_index: int) -> Future[None] | None:
        count = len(self.chunks)
        super().write(frames, first_index)
        if self.where == f"write:{count}":
            raise self.error
        if self.where == f"future:{count}":
            written: Future[None] = Future()
            threading.Thread(target=written.set_exception, args=(self.error,)).start()
            return written
        return None

    def close(self) -> None:
        super().close()
        if self.where == "close":
            raise self.error
