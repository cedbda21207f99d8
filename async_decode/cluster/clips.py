"""What a clip of many is, on paper: where its latent is, where its file goes, and what tells it from others."""

from __future__ import annotations

import dataclasses
import os
from pathlib import PurePosixPath
from typing import Any

from ..errors import SinkError
from ..sinks.given_names import without_number
from .latent_files import stamp_of


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip that is to be decoded.

    Attributes:
        name: short, for people; no two clips of a run share one.
        latent: where its latent is.
        to: where its file goes, or its frames (``*`` for their number).
        size: bytes of the latent's file: longer clips begin first.
        stamp: what tells that the latent's file is the one of before.
        inputs: a hash of the VAE and of the options.
    """

    name: str
    latent: str
    to: str
    size: int = 0
    stamp: str = ""
    inputs: str = ""


#: A clip's line in the journal, as plain types.
Line = dict[str, Any]


def clips_of(places: list[str], to: str, *, inputs: str = "") -> list[Clip]:
    """The clips of these latents.

    Raises:
        SinkError: ``to`` is no template, or two clips would share a file.
    """
    clips: dict[str, Clip] = {}
    # In a file name, a latent's own * or %d is not the place where frames have their number.
    end = to.replace(os.sep, "/").rfind("/") + 1
    above, below = to[:end], to[end:]
    for number, latent in enumerate(places, 1):
        name = PurePosixPath(latent.replace(os.sep, "/"))
        try:
            fields = {"name": name.stem, "folder": name.parent.name, "number": f"{number:05}"}
            target = above.format(**fields) + below.format(
                **{key: without_number(text) for key, text in fields.items()}
            )
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise SinkError(
                f"to: expected a place with {{name}}, {{folder}} or {{number}} in it, got {to!r}"
            ) from error
        if target in clips:
            raise SinkError(
                f"to: {clips[target].latent} and {latent} would both become {target}; put {{name}}, {{folder}} or "
                "{number} into it"
            )
        size, stamp = _stamped(latent)
        folder, _, file = to.rpartition("/")
        # Frames of a clip in a folder of its own are known by that.
        label = target.rpartition("/")[0] if "*" in file and "{" in folder and "{" not in file else target
        clips[target] = Clip(label, latent, target, size, stamp, inputs)
    return list(clips.values())


def facts_of(clip: Clip) -> Line:
    """What every line of ``clip`` tells."""
    return {"clip": clip.name, "latent": clip.latent, "file": clip.to, "inputs": clip.inputs, "stamp": clip.stamp}


def _stamped(place: str) -> tuple[int, str]:
    """Bytes and stamp of a latent's file; of one that cannot be read 0 and nothing, its clip fails by itself."""
    try:
        stamp = stamp_of(place)
    except Exception:
        return 0, ""
    return int(stamp.partition(" ")[0]), stamp
