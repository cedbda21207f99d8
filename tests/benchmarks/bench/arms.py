"""The arms: ways of getting the same frames of the same latent to where they are wanted.

* **decode only**: pieces are dropped on the device. No way that uses stock's decoder can be faster.
* **decode only, faster**: the same with the faster decoder (``async_decode.decoders``), once it is proven.
* **decode and finish**: pieces are scaled and quantised on the device, then dropped.
* **sequential**: the baseline of the article (AWS Architecture Blog, 2026-05-19): decode a chunk, copy it, blocking,
  save it, and only then decode the next. A loop of its own that shares neither ring nor threads with the pipeline, so
  that nobody has to believe that the pipeline with one slot is no slower. It is given our conversion on the device and
  our sinks, with as many writers, so that it differs in one thing: nothing overlaps.
* **stock**: the whole clip is decoded, copied, converted on the host, and then saved (``stock.py``).
* **asynchronous, stock decoder**: ``FramePipeline``, with stock's decoder.
* **asynchronous**: ``FramePipeline`` as it comes, with the faster decoder.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from async_decode.decoders import Mode, faster
from async_decode.device.conversion import Finish
from async_decode.frames import Clip, FrameArray, PixelFormat
from async_decode.pipeline.frame_pipeline import FramePipeline
from async_decode.sinks import Sink
from async_decode.spans import Recorder

from .saving import Saving
from .stock import to_bytes
from .workload import Workload

DECODE, FASTER, FINISH, SEQUENTIAL, STOCK, ASYNCHRONOUS_STOCK, ASYNCHRONOUS = (
    "decode only",
    "decode only, faster",
    "decode and finish",
    "sequential",
    "stock",
    "asynchronous, stock decoder",
    "asynchronous",
)
#: Their short names on the command line.
KINDS = {
    "decode": DECODE,
    "faster": FASTER,
    "finish": FINISH,
    "sequential": SEQUENTIAL,
    "stock": STOCK,
    "async-stock": ASYNCHRONOUS_STOCK,
    "async": ASYNCHRONOUS,
}
#: Which decoder the arms have in which that can be chosen.
_MODES: dict[str, Mode] = {DECODE: "stock", FASTER: "auto", ASYNCHRONOUS_STOCK: "stock", ASYNCHRONOUS: "auto"}


@dataclass(frozen=True)
class Settings:
    """How chunks travel.

    Attributes:
        chunk_size: frames a chunk, in the sequential arm as well.
        buffer_depth: slots of the asynchronous arm's ring.
    """

    chunk_size: int = 4
    buffer_depth: int = 3

    def for_saving(self, saving: Saving) -> Settings:
        """These, with the slots that ``saving`` asks for."""
        return replace(self, buffer_depth=saving.buffer_depth or self.buffer_depth)


@dataclass(frozen=True)
class Outcome:
    """What a timed run leaves.

    Attributes:
        files: complete files.
        report: the pipeline's own report, where there was a pipeline.
    """

    files: Sequence[Path] = ()
    report: dict[str, Any] | None = None


@dataclass(frozen=True)
class Check:
    """What the warm-up of an arm found.

    Attributes:
        hashes: SHA-256 of all frames by pixel format; two arms that make a format must agree on it.
        expected_seconds: about how long a timed run will take.
    """

    hashes: dict[str, str]
    expected_seconds: float


@dataclass(frozen=True)
class Arm:
    """One arm of a case.

    Attributes:
        kind: one of ``KINDS``.
        saving: what it saves; ``None``: nothing.
        run: does it once, from before the decode to complete files in the folder.
        check: the warm-up: does it once with a hash in place of the files.
    """

    kind: str
    saving: Saving | None
    run: Callable[[Path], Outcome]
    check: Callable[[], Check]

    @property
    def name(self) -> str:
        return self.kind if self.saving is None else f"{self.kind}, {self.saving.name}"


def make_arms(workload: Workload, kinds: Sequence[str], savings: Sequence[Saving], settings: Settings) -> list[Arm]:
    """The arms of a case: those that save once for each of ``savings``."""
    arms = []
    for kind in kinds:
        if kind in (DECODE, FASTER, FINISH):
            arms.append(_dropping_arm(kind, workload))
        elif kind in (ASYNCHRONOUS, ASYNCHRONOUS_STOCK):
            arms.extend(_asynchronous_arm(workload, saving, settings, kind) for saving in savings)
        else:
            make = {SEQUENTIAL: _sequential_arm, STOCK: _stock_arm}[kind]
            arms.extend(make(workload, saving, settings) for saving in savings)
    return arms


def decode_only(workload: Workload, kind: str = DECODE) -> None:
    """Decode as this arm does; drop the pieces."""
    with faster(workload.decoder.model, device=workload.device, mode=_MODES[kind], verdicts=workload.verdicts):
        workload.tap().run(workload.latent, lambda piece: None)


def decode_and_finish(workload: Workload) -> None:
    """Decode and quantise; drop the frames."""
    finish = workload.finish()

    def drop(piece: Tensor) -> None:
        _finished(finish, piece, PixelFormat.UINT8)

    workload.tap().run(workload.latent, drop)


def sequential(workload: Workload, sinks: Sequence[Sink], settings: Settings) -> None:
    """Decode a chunk, copy it, save it, decode the next."""
    loop = _SequentialLoop(workload.finish(), sinks, settings.chunk_size, workload.frames)
    with torch.inference_mode():
        workload.tap().run(workload.latent, loop.submit)
        loop.end()


def asynchronous(
    workload: Workload, sinks: Sequence[Sink], settings: Settings, kind: str = ASYNCHRONOUS
) -> FramePipeline:
    """Through the pipeline, with the decoder of this arm; it is closed when this returns."""
    with FramePipeline(
        sinks,
        chunk_size=settings.chunk_size,
        buffer_depth=settings.buffer_depth,
        device=workload.device,
        finish=workload.finish(),
    ) as pipeline:
        pipeline.decode(workload.tap(), workload.latent, decoder=_MODES[kind], verdicts=workload.verdicts)
    return pipeline


class _SequentialLoop:
    """The baseline's loop: one chunk at a time, each wait where the work is."""

    def __init__(self, finish: Finish, sinks: Sequence[Sink], chunk_size: int, total_frames: int | None) -> None:
        self._finish = finish
        self._sinks = sinks
        self._chunk_size = chunk_size
        self._total_frames = total_frames
        self._staging: dict[PixelFormat, Tensor] = {}
        self._filled = 0
        self._first_index = 0

    def submit(self, piece: Tensor) -> None:
        if not self._staging:
            self._open(piece)
        for part in self._parts(piece):
            place = slice(self._filled, self._filled + part.shape[0])
            out = {name: tensor[place] for name, tensor in self._staging.items()}
            self._finish.write(part, out, part.new_empty(part.shape[0], dtype=torch.bool))
            self._filled += part.shape[0]
            if self._filled == self._chunk_size:
                self._save()

    def end(self) -> None:
        if self._filled:
            self._save()
        for sink in self._sinks:
            sink.close()

    def _open(self, piece: Tensor) -> None:
        clip = self._finish.clip(piece, self._total_frames)
        formats = {sink.pixel_format for sink in self._sinks if sink.pixel_format is not None}
        shape = (self._chunk_size, clip.height, clip.width, clip.channels)
        # Float32 first: quantising may overwrite what it reads.
        self._staging = {
            name: torch.empty(shape, dtype=name.dtype, device=piece.device) for name in PixelFormat if name in formats
        }
        for sink in self._sinks:
            sink.open(clip, Recorder())

    def _parts(self, piece: Tensor) -> list[Tensor]:
        """``piece``, cut where chunks end."""
        first = min(self._chunk_size - self._filled, piece.shape[0])
        rest = piece[first:]
        return [piece[:first], *(rest.split(self._chunk_size) if rest.shape[0] else ())]

    def _save(self) -> None:
        # A copy to pageable memory returns when it is done; on the CPU the frames are where they should be.
        host = {name: tensor[: self._filled].cpu().numpy() for name, tensor in self._staging.items()}
        for sink in self._sinks:
            assert sink.pixel_format is not None, "the benchmark's sinks name their format"
            written = sink.write(host[sink.pixel_format], self._first_index)
            if written is not None:
                written.result()
        self._first_index += self._filled
        self._filled = 0


class HashSink(Sink):
    """Hashes frames instead of saving them: SHA-256 over their bytes, in order."""

    def __init__(self, pixel_format: PixelFormat) -> None:
        self.pixel_format = pixel_format
        self._digest = hashlib.sha256()

    @property
    def hash(self) -> str:
        return self._digest.hexdigest()

    def open(self, clip: Clip, recorder: Recorder) -> None:
        pass

    def write(self, frames: FrameArray, first_index: int) -> None:
        self._digest.update(np.ascontiguousarray(frames).data)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


def _dropping_arm(kind: str, workload: Workload) -> Arm:
    def run(_folder: Path) -> Outcome:
        if kind == FINISH:
            decode_and_finish(workload)
        else:
            decode_only(workload, kind)
        return Outcome()

    def check() -> Check:
        finish, sink = workload.finish(), HashSink(PixelFormat.UINT8)
        mode = _MODES.get(kind, "stock")
        began = time.perf_counter()
        with faster(workload.decoder.model, device=workload.device, mode=mode, verdicts=workload.verdicts):
            workload.tap().run(
                workload.latent, lambda piece: sink.write(_finished(finish, piece, PixelFormat.UINT8).cpu().numpy(), 0)
            )
        return Check({PixelFormat.UINT8.value: sink.hash}, time.perf_counter() - began)

    return Arm(kind, None, run, check)


def _sequential_arm(workload: Workload, saving: Saving, settings: Settings) -> Arm:
    def run(folder: Path) -> Outcome:
        sink = saving.sink(folder, "sequential")
        sequential(workload, [sink], settings)
        return Outcome(saving.files(sink))

    return Arm(SEQUENTIAL, saving, run, _hashing(saving, lambda sinks: sequential(workload, sinks, settings)))


def _asynchronous_arm(workload: Workload, saving: Saving, settings: Settings, kind: str) -> Arm:
    settings = settings.for_saving(saving)

    def run(folder: Path) -> Outcome:
        sink = saving.sink(folder, "asynchronous")
        pipeline = asynchronous(workload, [sink], settings, kind)
        return Outcome(saving.files(sink), pipeline.report.to_json())

    return Arm(kind, saving, run, _hashing(saving, lambda sinks: asynchronous(workload, sinks, settings, kind)))


def _stock_arm(workload: Workload, saving: Saving, _settings: Settings) -> Arm:
    def run(folder: Path) -> Outcome:
        images = workload.stock.decode(workload.latent)
        return Outcome(workload.stock.save(images, saving, folder))

    def check() -> Check:
        began = time.perf_counter()
        images = workload.stock.decode(workload.latent)
        seconds = time.perf_counter() - began
        sinks = {name: HashSink(name) for name in _formats(saving)}
        convert_began = time.perf_counter()
        for image in images:
            sinks[PixelFormat.UINT8].write(to_bytes(image), 0)
            if PixelFormat.FLOAT32 in sinks:
                sinks[PixelFormat.FLOAT32].write(image.float().cpu().numpy(), 0)
        if saving.png_level is not None:
            # One writer: by far the slowest arm. About what zlib makes of a megapixel, so that a budget can be kept.
            pixels = images.shape[0] * images.shape[1] * images.shape[2]
            seconds += pixels / 1e6 * (0.3 if saving.png_level > 2 else 0.12)
        else:
            seconds += time.perf_counter() - convert_began
        return Check({name.value: sink.hash for name, sink in sinks.items()}, seconds)

    return Arm(STOCK, saving, run, check)


def _hashing(saving: Saving, run: Callable[[Sequence[Sink]], object]) -> Callable[[], Check]:
    """A warm-up: ``run`` with sinks that hash."""

    def check() -> Check:
        sinks = [HashSink(name) for name in _formats(saving)]
        began = time.perf_counter()
        run(sinks)
        seconds = time.perf_counter() - began
        return Check({sink.pixel_format.value: sink.hash for sink in sinks if sink.pixel_format}, seconds)

    return check


def _formats(saving: Saving) -> list[PixelFormat]:
    """What a warm-up hashes: bytes in any case, so that all arms can be compared, and floats where those are saved."""
    return [name for name in PixelFormat if name in (saving.pixel_format, PixelFormat.UINT8)]


def _finished(finish: Finish, piece: Tensor, name: PixelFormat) -> Tensor:
    """The frames of ``piece`` in one format, on its device."""
    clip = finish.clip(piece, None)
    frames = piece.new_empty((piece.shape[0], clip.height, clip.width, clip.channels), dtype=name.dtype)
    finish.write(piece, {name: frames}, piece.new_empty(piece.shape[0], dtype=torch.bool))
    return frames
