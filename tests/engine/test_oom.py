"""When memory runs out: the next way of decoding takes over, and every frame arrives once, in order."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from async_decode import DecoderOutput, FramePipeline, PixelFormat, SinkError, choose_tap
from async_decode.sinks import ImageFilesSink, PngEncoder
from async_decode.sinks.files import OutputNames
from async_decode.taps import (
    ImageBatches,
    ImageTiles,
    Ladder,
    Tap,
    TemporalWindows,
    Tiling,
    is_out_of_memory,
    streamed_tiles,
)
from tests.engine.test_tiles import IMAGE_SCALE, ToyImageVAE, images
from tests.engine.test_windows import SCALE, expected
from tests.engine.toy import CollectSink, FailingSink, ToyVAE, stock_bytes, stock_frames, toy_latent

WINDOWS = Tiling(window=4, window_overlap=2)


class ShortOfMemory(ToyVAE):
    """Runs out of memory at these steps, counted over all tries, from 1 on; remembers what the failed try held."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.failing = set(steps)
        self.calls = 0
        self.held: list[weakref.ref[Tensor]] = []
        self.decoder.register_forward_pre_hook(self._count)

    def _count(self, _module: object, _arguments: object) -> None:
        self.calls += 1
        if self.calls in self.failing:
            activations = torch.zeros(16)
            self.held.append(weakref.ref(activations))
            raise torch.cuda.OutOfMemoryError(f"no room for {activations.shape}")


def taps_of(vae: ToyVAE, *tilings: Tiling) -> list[Tap]:
    decoder = vae.video_decoder()
    return [choose_tap(decoder), *(TemporalWindows(decoder, scale=SCALE, tiling=tiling) for tiling in tilings)]


def scaled(pixels: Tensor) -> Tensor:
    """Stock's frames ``(T, H, W, C)`` of raw ones ``(T, C, H, W)``."""
    return torch.clamp((pixels + 1.0) / 2.0, 0.0, 1.0).movedim(1, -1)


def patched(latent: Tensor, *changes: tuple[int, Tiling]) -> Tensor:
    """Stock's frames ``(T, H, W, C)``, but from each of these frames on those of these tilings."""
    frames = stock_frames(ToyVAE(), latent)
    for at, tiling in changes:
        frames = torch.cat([frames[:at], scaled(expected(tiling, latent))[at:]])
    return frames


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("step", ["first", "middle", "last"])
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_every_frame_arrives_once_and_in_order(clips: int, step: str, chunk_size: int) -> None:
    latent = toy_latent(9, clips=clips)
    at = {"first": 1, "middle": 9 * clips // 2 + 1, "last": 9 * clips}[step]
    delivered = sum(1 if call % 9 == 0 else 4 for call in range(at - 1))
    vae, sink = ShortOfMemory(at), CollectSink()

    with FramePipeline([sink], chunk_size=chunk_size) as pipeline:
        ladder = Ladder(taps_of(vae, WINDOWS), receiver=pipeline)
        pipeline.decode(ladder, latent)

    wanted = patched(latent, (delivered, WINDOWS))
    assert np.array_equal(sink.frames, wanted.numpy())
    assert sink.indices == list(range(0, 33 * clips, chunk_size))
    assert sink.calls == ["open", "close"]
    assert ladder.warning is not None and f"at frame {delivered} " in ladder.warning
    assert "windows of 4 latent frames" in ladder.warning
    assert (pipeline.report.exact, pipeline.report.bounded) == (False, True)


def test_files_that_are_written_stay_and_none_is_written_twice(tmp_path: Path) -> None:
    latent = toy_latent(9)
    files = ImageFilesSink(OutputNames(tmp_path, "clip", first=1), PngEncoder())

    with FramePipeline([files], chunk_size=1) as pipeline:
        pipeline.decode(Ladder(taps_of(ShortOfMemory(6), WINDOWS), receiver=pipeline), latent)

    wanted = patched(latent, (17, WINDOWS))
    assert len(list(tmp_path.iterdir())) == len(files.files) == 33
    assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in files.files]), stock_bytes(wanted))


def test_one_way_after_the_other_is_tried_with_one_warning() -> None:
    latent, small = toy_latent(9), Tiling(window=2, window_overlap=1)
    tried: list[Tap] = []

    # The first try ends after 13 frames; the second one skips no window, and ends within its third.
    with FramePipeline([sink := CollectSink()]) as pipeline:
        taps = taps_of(ShortOfMemory(5, 14), WINDOWS, small)
        ladder = Ladder(taps, receiver=pipeline, before_retry=tried.append)
        pipeline.decode(ladder, latent)

    wanted = patched(latent, (13, WINDOWS), (16, small))
    assert np.array_equal(sink.frames, wanted.numpy())
    assert tried == taps[1:]
    assert ladder.warning is not None and "2 times, first at frame 13" in ladder.warning
    assert "from frame 16 on" in ladder.warning


def test_memory_of_the_failed_try_is_let_go_before_the_next() -> None:
    vae = ShortOfMemory(3)
    alive: list[Tensor | None] = []

    with FramePipeline([CollectSink()]) as pipeline:
        ladder = Ladder(
            taps_of(vae, WINDOWS), receiver=pipeline, before_retry=lambda _tap: alive.extend(ref() for ref in vae.held)
        )
        pipeline.decode(ladder, toy_latent(5))

    assert alive == [None]


def test_memory_of_the_failed_try_is_let_go_though_somebody_keeps_its_error() -> None:
    """An error keeps the functions that it went through, and these keep their tensors."""
    vae, kept = ShortOfMemory(3), []
    decode, alive = vae.decode, []

    def remembering(z: Tensor) -> Tensor:
        try:
            return decode(z)
        except torch.cuda.OutOfMemoryError as error:
            kept.append(error)
            raise

    vae.decode = remembering  # type: ignore[method-assign]
    with FramePipeline([CollectSink()]) as pipeline:
        ladder = Ladder(
            taps_of(vae, WINDOWS), receiver=pipeline, before_retry=lambda _tap: alive.extend(ref() for ref in vae.held)
        )
        pipeline.decode(ladder, toy_latent(5))

    assert len(kept) == 1 and kept[0].__traceback__ is not None
    assert alive == [None]


@pytest.mark.parametrize("step", [1, 2, 5, 9])
@pytest.mark.parametrize("clips", [1, 2])
def test_streamed_tiles_go_on_behind_the_frames_that_are_there(step: int, clips: int) -> None:
    latent, tiling = toy_latent(5, clips=clips, size=12), Tiling(tile=8, overlap=2)
    vae, sink = ShortOfMemory(step), CollectSink()
    delivered = sum(1 if call % 5 == 0 else 4 for call in range(step - 1)) if step <= 5 * clips else 17 * clips
    tiled = streamed_tiles(vae.video_decoder(), scale=SCALE, tiling=tiling)
    assert tiled is not None

    with FramePipeline([sink], chunk_size=1) as pipeline:
        ladder = Ladder([choose_tap(vae.video_decoder()), tiled], receiver=pipeline)
        pipeline.decode(ladder, latent)

    frames = stock_frames(ToyVAE(), latent)
    blended = scaled(torch.cat([expected(tiling, clip) for clip in latent.split(1)]))
    assert sink.indices == list(range(17 * clips))
    assert np.array_equal(sink.frames[:delivered], frames[:delivered].numpy())
    np.testing.assert_allclose(sink.frames[delivered:], blended[delivered:].numpy(), rtol=0, atol=1e-5)


def test_the_error_of_the_last_way_is_raised() -> None:
    sink = CollectSink()

    with (
        pytest.raises(torch.cuda.OutOfMemoryError, match="no room"),
        FramePipeline([sink]) as pipeline,
    ):
        pipeline.decode(Ladder(taps_of(ShortOfMemory(2, 3), WINDOWS), receiver=pipeline), toy_latent(5))

    assert sink.calls[-1] == "abort"


def test_other_errors_are_not_tried_again() -> None:
    vae = ToyVAE()
    vae.decoder.register_forward_pre_hook(lambda _module, _arguments: _raise(RuntimeError("expected 16 channels")))

    with pytest.raises(RuntimeError, match="16 channels"), FramePipeline([CollectSink()]) as pipeline:
        ladder = Ladder(taps_of(vae, WINDOWS), receiver=pipeline)
        pipeline.decode(ladder, toy_latent(5))

    assert ladder.warning is None


@pytest.mark.parametrize("where", ["open", "write:1", "future:1"])
def test_a_sink_without_memory_is_no_reason_to_decode_again(where: str) -> None:
    vae = ToyVAE()

    with pytest.raises(MemoryError), FramePipeline([FailingSink(where, MemoryError())], chunk_size=1) as pipeline:
        ladder = Ladder(taps_of(vae, WINDOWS), receiver=pipeline)
        pipeline.decode(ladder, toy_latent(40))

    assert ladder.warning is None and ladder.current is ladder.taps[0]


def test_a_piece_taken_in_part_is_continued_where_it_ended() -> None:
    class Tight(DecoderOutput):
        calls = 0

        def write(self, piece: Tensor, out: Mapping[PixelFormat, Tensor], has_nan: Tensor) -> None:
            self.calls += 1
            if self.calls == 5:
                raise torch.cuda.OutOfMemoryError("no room to finish frames")
            super().write(piece, out, has_nan)

    latent, sink = toy_latent(9), CollectSink()

    # Chunks of 3: the fifth write is the second part of the third piece, frames 6 to 8 being taken.
    with FramePipeline([sink], chunk_size=3, finish=Tight()) as pipeline:
        ladder = Ladder(taps_of(ToyVAE(), WINDOWS), receiver=pipeline)
        pipeline.decode(ladder, latent)

    at = int(str(ladder.warning).split("at frame ")[1].split()[0])
    wanted = patched(latent, (at, WINDOWS))
    assert at not in (0, 1, 5, 9, 13), "memory has to run out within a piece"
    assert np.array_equal(sink.frames, wanted.numpy())


def test_no_memory_for_the_ring_opens_the_sinks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import async_decode.pipeline.stages as module

    make_ring, sink, latent = module.make_ring, CollectSink(), toy_latent(5)

    def fails_once(*arguments: object, **options: object) -> object:
        monkeypatch.setattr(module, "make_ring", make_ring)
        raise torch.cuda.OutOfMemoryError("no room for the ring")

    monkeypatch.setattr(module, "make_ring", fails_once)
    with FramePipeline([sink]) as pipeline:
        pipeline.decode(Ladder(taps_of(ToyVAE(), WINDOWS), receiver=pipeline), latent)

    assert sink.calls == ["open", "close"]
    assert np.array_equal(sink.frames, scaled(expected(WINDOWS, latent)).numpy())


def test_images_go_on_in_smaller_batches_then_in_tiles() -> None:
    vae, latent, sink = ToyImageVAE(), images(7, 12, 12), CollectSink()
    decode = vae.decode
    tried: list[int] = []

    def short(z: Tensor) -> Tensor:
        tried.append(z.shape[0])
        if len(tried) in (2, 4):
            raise torch.cuda.OutOfMemoryError("no room")
        return decode(z)

    vae.decode = short  # type: ignore[method-assign]
    decoder = vae.video_decoder()
    taps = [
        ImageBatches(decoder, images_per_step=4),
        ImageBatches(decoder, images_per_step=2),
        ImageTiles(decoder, scale=IMAGE_SCALE, tiling=Tiling(tile=8, overlap=2)),
    ]
    with FramePipeline([sink]) as pipeline:
        pipeline.decode(Ladder(taps, receiver=pipeline), latent)

    with torch.inference_mode():
        whole = scaled(decode(latent))
    tiled_frames: list[Tensor] = []
    fresh = ToyImageVAE().video_decoder()
    ImageTiles(fresh, scale=IMAGE_SCALE, tiling=Tiling(tile=8, overlap=2)).run(latent, tiled_frames.append)
    assert tried[:4] == [4, 3, 2, 1] and vae.batches[:2] == [4, 2]
    np.testing.assert_allclose(sink.frames[:6], whole[:6].numpy(), rtol=0, atol=1e-6)
    assert np.array_equal(sink.frames[6:], scaled(tiled_frames[6]).numpy())


@pytest.mark.parametrize(
    "error, expected_answer",
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), True),
        (RuntimeError("shapes do not match"), False),
        (SinkError("out of memory cards"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_knows_the_words_for_it(error: BaseException, expected_answer: bool) -> None:
    assert is_out_of_memory(error) is expected_answer


def _raise(error: Exception) -> Callable[[], None]:
    raise error
