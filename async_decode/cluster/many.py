"""Many clips: which there are, which are missing, in what order, and who decodes them: this process, or a cluster."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ..decoders import Mode, check_mode
from ..errors import DecodeError, SinkError
from ..pipeline.run_status import MAX_BUFFER_DEPTH, MAX_CHUNK_SIZE, whole_number
from ..sinks.paths import Options, sink_for
from .clips import Clip, Line, clips_of, facts_of
from .decode_clip import decode_clip
from .journal import Journal
from .latent_files import found_places
from .shared_folders import remove_signs
from .stores import is_store
from .vaes import VAEPlace

#: Called with ``found`` and the number of clips, then with what happens to each: ``begun``, ``running`` with its frames
#: so far (in this process only), and its line; with ``lost`` and an ``error`` for a process that could not be started.
OnLine = Callable[[Line], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of all clips.

    Attributes:
        lines: one for each clip, in the order in which they were given: ``done``, ``skipped``, ``failed``, ``poison``.
        report: the journal.
    """

    lines: list[Line]
    report: Path

    @property
    def failed(self) -> list[Line]:
        """Those that have no file."""
        return [line for line in self.lines if line["status"] in ("failed", "poison")]


def decode_many(
    latents: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    to: str,
    *,
    vae: VAEPlace | str | None = None,
    options: Options | None = None,
    ray: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    chunk_size: int = 4,
    buffer_depth: int = 3,
    decoder: Mode = "auto",
    report: str | os.PathLike[str] | None = None,
    on_line: OnLine | None = None,
) -> Outcome:
    """Decode many latents, each into a file of its own; what is whole already is left out.

    Args:
        latents: files, folders, patterns, manifests, and places of ``fsspec`` (``s3://…``).
        to: where a clip goes, with ``{name}`` for the name of its latent, ``{folder}`` for the folder that it is in and
            ``{number}`` for its number: ``clips/{name}.mp4``, ``frames/{name}/*.png``, ``s3://bucket/{name}.mp4``.
        vae: where the VAE is; a path is a folder of Diffusers. Default: ``None``, the embedded VAE.
        options: how files are written, ``fps`` of videos among it. Default: ``None``, as ``Options()``.
        ray: ``"auto"``: on all GPUs of this machine; else the address of a Ray cluster. Default: ``None``, in this
            process.
        workers: how many processes decode on the cluster. Default: ``None``, one a GPU, without GPUs one a core.
        device: where this process decodes. Default: ``None``, on the first GPU, if there is one.
        chunk_size: as of ``async_decode.decode``. Default: ``4``.
        buffer_depth: as of ``async_decode.decode``. Default: ``3``.
        decoder: as of ``async_decode.decode``; a clip is whole whichever made it: the frames are the same. Default:
            ``"auto"``.
        report: the journal. Default: ``None``, ``async-decode.jsonl`` beside the files.
        on_line: called with each clip's line, and with those of clips that are begun. Default: ``None``.

    Returns:
        What became of each.

    Raises:
        DecodeError: there are no latents, or no VAE.
        SinkError: two clips would share a file, the options make no sense, or the journal cannot be written, as another
            run is writing it.
        ValueError: ``chunk_size`` or ``buffer_depth`` is none.
    """
    check_mode(decoder)
    whole_number("chunk_size", chunk_size, MAX_CHUNK_SIZE, "frames")
    whole_number("buffer_depth", buffer_depth, MAX_BUFFER_DEPTH, "slots")
    if ray is None and workers is not None:
        raise DecodeError(f"workers: they are a cluster's, got workers={workers}; say ray='auto' as well")
    if ray is not None and device is not None:
        raise DecodeError(f"device: on a cluster each process takes the GPU that Ray gives it, got device={device}")
    options = options if options is not None else Options()
    # Raises, if it is no size.
    _ = options.spool
    place = vae if isinstance(vae, VAEPlace) else VAEPlace(path=vae, chunk_size=chunk_size)
    place.check()
    given = [latents] if isinstance(latents, str | os.PathLike) else list(latents)
    # A shell leaves "~" as it is in quotes, which "{name}" needs.
    to = os.path.expanduser(to)
    clips = clips_of(found_places(os.path.expanduser(name) for name in given), to, inputs=_inputs(place, options))
    # What is wrong with the options is known before anything is decoded, not once for each clip.
    first = clips[0].to
    if is_store(first):
        first = str(Path(tempfile.gettempdir(), PurePosixPath(first).name))
    sink_for(first, dataclasses.replace(options, overwrite=True), elsewhere=ray is not None)
    told = on_line if on_line is not None else lambda _line: None
    done: dict[str, Line] = {}
    missing: list[Clip] = []
    with Journal(os.path.expanduser(report) if report is not None else _beside(to)) as journal:
        journal.look(clips)
        told({"status": "found", "clips": len(clips)})
        for clip in clips:
            if not options.overwrite:
                if journal.is_whole(clip):
                    done[clip.name] = {**facts_of(clip), "status": "skipped"}
                    told(done[clip.name])
                    continue
                try:
                    journal.check(clip)
                except SinkError as error:
                    done[clip.name] = {**facts_of(clip), "status": "failed", "error": str(error)}
                    journal.write(done[clip.name])
                    told(done[clip.name])
                    continue
            missing.append(clip)
        # The longest first: else the last one of all may be the longest, and all but one wait for it.
        missing.sort(key=lambda clip: -clip.size)
        if missing:
            lines = _lines(
                place, missing, options, ray, workers, device, chunk_size, buffer_depth, decoder, journal, told
            )
            for line in lines:
                done[line["clip"]] = line
                journal.write(line)
                told(line)
    return Outcome([done[clip.name] for clip in clips], journal.path)


def _lines(
    place: VAEPlace,
    clips: list[Clip],
    options: Options,
    ray: str | None,
    workers: int | None,
    device: str | None,
    chunk_size: int,
    buffer_depth: int,
    decoder: Mode,
    journal: Journal,
    told: OnLine,
) -> Iterator[Line]:
    def begin(clip: Clip) -> Options:
        """Say that a clip is begun; how its file may be written: over what a run of ours has left, and nothing else."""
        over = options.overwrite or journal.is_ours(clip)
        journal.begin(clip)
        told({**facts_of(clip), "status": "begun", "size": clip.size})
        return dataclasses.replace(options, overwrite=over)

    if ray is not None:
        from .actors import decode_on_ray

        yield from decode_on_ray(
            place,
            clips,
            begin,
            address=ray,
            workers=workers,
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            decoder=decoder,
            on_loss=lambda reason: told({"status": "lost", "error": reason}),
        )
        return
    remove_signs(clips)
    loaded = place.load(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    for clip in clips:
        facts = facts_of(clip)

        def progress(frames: int, total: int | None, facts: Line = facts) -> None:
            told({**facts, "status": "running", "frames": frames, "total": total})

        yield decode_clip(
            loaded,
            clip,
            begin(clip),
            chunk_size=chunk_size,
            buffer_depth=buffer_depth,
            decoder=decoder,
            on_progress=progress,
        )


def _inputs(place: VAEPlace, options: Options) -> str:
    """A hash of the VAE and of all options that change the files."""
    facts = {
        name: _jsonable(value)
        for name, value in vars(options).items()
        if name not in ("overwrite", "writers", "spool_gb")
    }
    if options.sound is not None:
        facts["sound"] = hashlib.sha256(options.sound.samples.tobytes()).hexdigest()
    text = json.dumps([place.fingerprint(), sorted(facts.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def _beside(to: str) -> Path:
    """Where the journal is when nobody names a place: in the last folder that all clips share."""
    if is_store(to):
        return Path("async-decode.jsonl")
    folder = Path(to.split("{")[0].split("*")[0] + "x").parent
    return folder / "async-decode.jsonl"


def _jsonable(value: Any) -> Any:
    """``value`` as JSON takes it; 8, 8.0 and 8/1 are one number."""
    if isinstance(value, int | float | Fraction) and not isinstance(value, bool):
        return float(value)
    return value if isinstance(value, str | bool | type(None)) else str(value)
