"""The host's part alone, beside the plainest way of doing it: what runs in CI as a smoke test and prints ratios.

Every entry takes the same frames two ways, in turn and several times over, and compares what came out of both:

* **pipeline**: no decoder and nothing to save, so that what it takes over a plain copy of the bytes is its own;
* **finish**: raw decoder output to bytes, beside stock's conversion on the host;
* **image**: an IMAGE in host memory, beside stock's two copies, with channels last in memory as well;
* **png**: files, beside stock's ``SaveImage``, one frame after the other;
* **h264**: a video, beside the same encoder fed by stock's loop;
* **mp4**: a video with the settings of Save Video and of VideoHelperSuite's Video Combine, beside the same encoder
  called with their arguments. Ours converts otherwise and moves the index to the front, so only the number of frames
  is compared.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from async_decode.device.conversion import DecoderOutput, Finish, FinishedFrames, stock_process_output
from async_decode.frames import PixelFormat
from async_decode.pipeline.frame_pipeline import FramePipeline
from async_decode.sinks import NullSink, Sink, TensorSink, VideoSink
from async_decode.sinks.cores import usable_cores
from async_decode.sinks.files import OutputNames

from .arms import HashSink
from .saving import FPS, Saving, content_digest, frames_in
from .stock import SAVE_VIDEO, VIDEO_COMBINE, Mp4Settings, save_images, save_mp4, save_video, to_bytes

#: One way: does it once in an empty folder, and returns what gives a hash of the result, which is not timed.
Way = Callable[[Path], Callable[[], object]]


@dataclass(frozen=True)
class HostSizes:
    """How much is measured.

    Attributes:
        height: of the frames that are converted and saved; ``width`` likewise.
        frames: how many of them.
        chunk_height: of the frames that the bare pipeline carries; ``chunk_width`` likewise.
        chunks: how many chunks of 4 frames it carries.
        repeats: runs of each way.
    """

    height: int = 720
    width: int = 1280
    frames: int = 40
    chunk_height: int = 1080
    chunk_width: int = 1920
    chunks: int = 40
    repeats: int = 3


@dataclass(frozen=True)
class Pair:
    """The same work in two ways."""

    what: str
    ours: Way
    beside: str
    theirs: Way
    bytes: int
    #: The files that both wrote, by way, once each has; in bytes.
    file_bytes: dict[str, int] = field(default_factory=dict)


#: Makes a pair of a size.
MakePair = Callable[[HostSizes], Pair]


def measure_host(
    log: Callable[[str], None], sizes: HostSizes | None = None, further: Sequence[MakePair] = ()
) -> Iterator[dict[str, Any]]:
    """Measure pair by pair.

    Args:
        log: takes a line for each.
        sizes: how much; by default 40 frames of 720p, and chunks of 1080p.
        further: pairs beside this module's own.

    Yields:
        An entry ready for JSON: ``ours`` and ``theirs`` are the fastest runs in seconds, ``ratio`` the one over the
        other, ``equal`` whether both made the same.
    """
    sizes = sizes if sizes is not None else HostSizes()
    for make in (_pipeline, _finish, _image, _png, _h264, _mp4_of_save_video, _mp4_of_video_combine, *further):
        entry = _measure(make(sizes), sizes.repeats)
        log(
            f"host: {entry['what']}: {entry['ours']:.4f} s, {entry['beside']}: {entry['theirs']:.4f} s, "
            f"ratio {entry['ratio']:.3f}{'' if entry['equal'] else ', NOT THE SAME FRAMES'}"
        )
        yield entry


def clip(sizes: HostSizes) -> Tensor:
    """Frames ``(T, H, W, 3)`` in 0 to 1 that compress about as footage does: soft shapes that move, and grain."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 16, generator=generator)
    wide = torch.nn.functional.interpolate(
        coarse, size=(sizes.height, sizes.width + 8 * sizes.frames), mode="bicubic", align_corners=False
    )[0].movedim(0, -1)
    grain = torch.randn(sizes.height, sizes.width, 3, generator=generator) * (2 / 255)
    frames = [
        wide[:, 8 * number : 8 * number + sizes.width] + grain.roll(7 * number, 1) for number in range(sizes.frames)
    ]
    return torch.stack(frames).clamp_(0, 1)


def _measure(pair: Pair, repeats: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    hashes = set()
    for number in range(repeats):
        ways = [("ours", pair.ours), ("theirs", pair.theirs)]
        for name, way in ways if number % 2 == 0 else reversed(ways):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                digest = way(Path(folder))
                seconds[name].append(time.perf_counter() - began)
                hashes.add(digest())
                pair.file_bytes[name] = sum(path.stat().st_size for path in Path(folder).iterdir())
    ours, theirs = min(seconds["ours"]), min(seconds["theirs"])
    return {
        "what": pair.what,
        "ours": ours,
        "beside": pair.beside,
        "theirs": theirs,
        "ratio": ours / theirs,
        "equal": len(hashes) == 1,
        "bytes": pair.bytes,
        "ours_file_bytes": pair.file_bytes["ours"],
        "theirs_file_bytes": pair.file_bytes["theirs"],
        "ours_seconds": seconds["ours"],
        "theirs_seconds": seconds["theirs"],
    }


def carry(pieces: Iterator[Tensor] | list[Tensor], sink: Sink, finish: Finish) -> None:
    """Send ``pieces`` through a pipeline of its own into ``sink``."""
    with FramePipeline([sink], finish=finish) as pipeline:
        for piece in pieces:
            pipeline.submit(piece)


def _pipeline(sizes: HostSizes) -> Pair:
    piece = torch.rand(4, sizes.chunk_height, sizes.chunk_width, 3, generator=torch.Generator().manual_seed(0))
    slots = [torch.zeros_like(piece) for _ in range(3)]

    def ours(_folder: Path) -> Callable[[], object]:
        sink = NullSink(PixelFormat.FLOAT32)
        carry([piece] * sizes.chunks, sink, FinishedFrames())
        return lambda: sink.frames

    def theirs(_folder: Path) -> Callable[[], object]:
        # As many buffers as the ring has slots, so that the caches help neither.
        for number in range(sizes.chunks):
            slots[number % len(slots)].copy_(piece)
        return lambda: sizes.chunks * len(piece)

    size = f"{sizes.chunks} chunks of 4 float32 frames {sizes.chunk_height}x{sizes.chunk_width}"
    return Pair(f"pipeline, {size}", ours, "memcpy", theirs, piece.nbytes * sizes.chunks)


def _finish(sizes: HostSizes) -> Pair:
    raw = clip(sizes).movedim(-1, 1).contiguous() * 2 - 1

    def ours(_folder: Path) -> Callable[[], object]:
        frames = _Bytes()
        carry(list(raw.split(4)), frames, DecoderOutput())
        return lambda: frames.hash

    def theirs(_folder: Path) -> Callable[[], object]:
        with torch.inference_mode():
            images = stock_process_output(raw.clone()).movedim(1, -1)
        frames = [to_bytes(image) for image in images]
        return lambda: _hash(frames)

    return Pair(f"finish, {named(sizes)}", ours, "stock's conversion", theirs, raw.nbytes)


def _image(sizes: HostSizes) -> Pair:
    raw = clip(sizes).movedim(-1, 1).contiguous() * 2 - 1

    def ours(_folder: Path) -> Callable[[], object]:
        sink = TensorSink()
        carry(list(raw.split(4)), sink, DecoderOutput())
        return lambda: _hash([sink.tensor.numpy()])

    def theirs(_folder: Path) -> Callable[[], object]:
        # As comfy.sd.VAE.decode: the decoder's output is copied, and copied into the tensor for all batches.
        with torch.inference_mode():
            pixels = raw.movedim(0, 1)[None].to(dtype=torch.float32, copy=True)
            whole = torch.empty_like(pixels)
            whole.copy_(pixels)
            # Stock leaves this to whoever takes the IMAGE first.
            images = stock_process_output(whole).movedim(1, -1)[0].contiguous()
        return lambda: _hash([images.numpy()])

    return Pair(f"image, {named(sizes)}", ours, "stock's copies", theirs, raw.nbytes)


def _png(sizes: HostSizes) -> Pair:
    writers = usable_cores()
    images, saving = clip(sizes), Saving.parse(f"png4@{writers}")
    level = saving.png_level
    assert level is not None

    def theirs(folder: Path) -> Callable[[], object]:
        files = save_images(images, folder, compress_level=level)
        return lambda: content_digest(files)

    return Pair(
        f"png4, {named(sizes)}, {writers} writers", _saved(images, saving), "stock's SaveImage", theirs, images.nbytes
    )


def _h264(sizes: HostSizes) -> Pair:
    images, saving = clip(sizes), Saving.parse("h264-veryfast")

    def theirs(folder: Path) -> Callable[[], object]:
        files = save_video(images, saving, folder)
        return lambda: content_digest(files)

    return Pair(f"{saving.name}, {named(sizes)}", _saved(images, saving), "frame by frame", theirs, images.nbytes)


def _mp4_of_save_video(sizes: HostSizes) -> Pair:
    return _mp4(sizes, SAVE_VIDEO)


def _mp4_of_video_combine(sizes: HostSizes) -> Pair:
    return _mp4(sizes, VIDEO_COMBINE)


def _mp4(sizes: HostSizes, settings: Mp4Settings) -> Pair:
    images = clip(sizes)

    def ours(folder: Path) -> Callable[[], object]:
        sink = VideoSink(OutputNames(folder, "ours"), fps=FPS, crf=settings.crf)
        carry(list(images.split(4)), sink, FinishedFrames())
        assert sink.path is not None
        path = sink.path
        return lambda: frames_in(path)

    def theirs(folder: Path) -> Callable[[], object]:
        (path,) = save_mp4(images, settings, folder)
        return lambda: frames_in(path)

    what = f"mp4 crf {settings.crf:g}, {named(sizes)}"
    return Pair(what, ours, f"{settings.whose}'s arguments", theirs, images.nbytes)


def _saved(images: Tensor, saving: Saving) -> Way:
    """Saving ``images`` through the pipeline."""

    def ours(folder: Path) -> Callable[[], object]:
        sink = saving.sink(folder, "ours")
        carry(list(images.split(4)), sink, FinishedFrames())
        files = saving.files(sink)
        return lambda: content_digest(files)

    return ours


class _Bytes(HashSink):
    """Keeps the frames, to hash them when nobody looks at the time."""

    def __init__(self) -> None:
        super().__init__(PixelFormat.UINT8)
        self._frames: list[np.ndarray[Any, Any]] = []

    @property
    def hash(self) -> str:
        return _hash(self._frames)

    def write(self, frames: np.ndarray[Any, Any], first_index: int) -> None:
        self._frames.append(frames.copy())


def _hash(frames: list[np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
    return digest.hexdigest()


def named(sizes: HostSizes) -> str:
    """How many frames of which size, for the tables."""
    return f"{sizes.frames} frames {sizes.height}x{sizes.width}"
