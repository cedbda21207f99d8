"""One clip from its latent to its file: what every process does, here or on a cluster.

A clip is read, decoded and saved in one place; what comes back is a line of the journal.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..decoders import Mode
from ..errors import AsyncDecodeError, Cancelled
from ..pipeline.decode_into import decode_into
from ..sinks import Sink
from ..sinks.frames_hash import FramesHash
from ..sinks.given_names import GivenNames
from ..sinks.paths import Options, sinks_for
from .clips import Clip, Line, facts_of
from .latent_files import LatentFile, read_latent
from .stores import beside, is_store, remove, upload
from .vaes import LoadedVAE


def decode_clip(
    vae: LoadedVAE,
    clip: Clip,
    options: Options,
    *,
    chunk_size: int = 4,
    buffer_depth: int = 3,
    decoder: Mode = "auto",
    file: LatentFile | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> Line:
    """Decode ``clip`` into its file.

    Args:
        vae: the VAE.
        clip: the clip.
        options: how its file is written.
        chunk_size: as of ``async_decode.decode``; ``buffer_depth`` and ``decoder`` likewise.
        file: its latent, where it was read already.
        on_progress: as of ``async_decode.decode``.

    Returns:
        Its line: ``done`` with the facts, or ``failed`` with the reason.

    Raises:
        Cancelled: somebody ended it; ``KeyboardInterrupt`` likewise.
    """
    began = time.monotonic()
    line: Line = {**facts_of(clip), "worker": f"{socket.gethostname()}:{os.getpid()}"}
    try:
        file = file if file is not None else read_latent(clip.latent)
        source = vae.source(file)
        frames_hash = FramesHash()
        with _Place(clip.to) as place:
            sinks: list[Sink] = [*sinks_for(place.local, options, gpu=source.device.type == "cuda"), frames_hash]
            result = decode_into(
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
            place.finish(result.files, overwrite=options.overwrite)
            size = sum(path.stat().st_size for path in result.files)
    except (Cancelled, KeyboardInterrupt):
        raise
    except Exception as error:
        # Of torch's own errors the first line says what there is to say; pages of its tables may follow.
        said = str(error) if isinstance(error, AsyncDecodeError | OSError) else f"{type(error).__name__}: {error}"
        reason = said if isinstance(error, AsyncDecodeError) else said.splitlines()[0]
        return {**line, "status": "failed", "error": reason, "seconds": round(time.monotonic() - began, 3)}
    report = result.report
    decoding = report.decoding
    return {
        **line,
        "status": "done",
        "content": file.content,
        "frames": report.frames,
        "hash": frames_hash.hexdigest,
        "files": len(result.files),
        "bytes": size,
        "seconds": round(time.monotonic() - began, 3),
        "decoder": report.decoder,
        "decoding": None if decoding is None else decoding.kind,
        "exact": decoding is not None and decoding.exact,
        "bounded": decoding is not None and decoding.bounded,
        "warnings": list(report.warnings),
    }


class _Place:
    """Where a clip's files go: straight there, or, for a store, into a temporary folder first and then up, whole."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._folder: Path | None = None
        self.local = to
        if is_store(to):
            self._folder = Path(tempfile.mkdtemp(prefix="async-decode-"))
            self.local = str(self._folder / PurePosixPath(to).name)

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def finish(self, files: list[Path], *, overwrite: bool) -> None:
        """Bring ``files``, which are whole, to their place.

        Raises:
            SinkError: one of them cannot be written there.
        """
        if self._folder is None:
            return
        folder = self._to.rpartition("/")[0]
        for file in files:
            upload(file, f"{folder}/{file.name}")
        names = GivenNames(self.local, overwrite=True)
        if overwrite and names.numbered:
            # Of a longer clip that was there, no frame stays.
            for name in beside(self._to).keys() - {file.name for file in files}:
                if names.takes(name):
                    remove(f"{folder}/{name}")
