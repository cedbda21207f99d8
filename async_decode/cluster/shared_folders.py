"""What every machine of a cluster has to see alike: the folders that clips are read from and written to.

A machine that has not mounted them would fail every clip that it is given, quickly, or save clips where nobody finds
them. So the process that was started leaves a file in the folder of the clips, under a name that no machine can have
remembered, and each actor looks for it, and for a latent of each folder, before it takes a clip.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DecodeError
from ..sinks.files import file_error
from ..sinks.owners import owned, remove_of_the_dead
from .clips import Clip
from .stores import is_store

#: The file that is looked for.
_SIGN = ".async-decode-run"
#: Folders of latents of which one is looked for.
_FOLDERS = 100


def everywhere(clip: Clip) -> Clip:
    """``clip`` with places that do not depend on the folder in which a process stands."""
    latent, to = (place if is_store(place) else os.path.abspath(place) for place in (clip.latent, clip.to))
    return dataclasses.replace(clip, latent=latent, to=to)


@contextmanager
def signed(clips: list[Clip]) -> Iterator[list[str]]:
    """Leave the sign in the folder of ``clips`` for as long as this lasts; what each machine has to see.

    Args:
        clips: as ``everywhere`` gives them.

    Raises:
        SinkError: the folder takes no file.
    """
    sees: dict[str, str] = {}
    for clip in clips:
        # One that this process does not see fails by itself.
        if not is_store(clip.latent) and clip.stamp and len(sees) < _FOLDERS:
            sees.setdefault(os.path.dirname(clip.latent), clip.latent)
    folder = _folder_of(clips)
    sign = None
    if folder is not None:
        sign = folder / owned(_SIGN)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_signs(clips)
            sign.touch()
        except OSError as error:
            raise file_error(sign, error) from error
    try:
        yield [*sees.values(), *([] if sign is None else [str(sign)])]
    finally:
        if sign is not None:
            with suppress(OSError):
                sign.unlink()


def remove_signs(clips: list[Clip]) -> None:
    """Remove what runs that were killed have left in the folder of ``clips``; never raises."""
    folder = _folder_of(clips)
    if folder is not None:
        remove_of_the_dead(folder, re.escape(_SIGN), "")


def check_seen(places: Iterable[str]) -> None:
    """See whether this machine sees ``places``.

    Raises:
        DecodeError: it does not; the message names the machine and the folder.
    """
    for place in places:
        if not os.path.exists(place):
            folder, name = os.path.split(place)
            what = "" if name.startswith(_SIGN) else f" with {name}"
            raise DecodeError(
                f"{socket.gethostname()} does not see the folder {folder}{what} that the run was started with; every "
                "machine needs it at that place, or take a store (s3://…)"
            )


def _folder_of(clips: list[Clip]) -> Path | None:
    """The last folder that all clips share; of clips in a store none."""
    folders = [os.path.dirname(os.path.abspath(clip.to)) for clip in clips if not is_store(clip.to)]
    return Path(os.path.commonpath(folders)) if folders else None
