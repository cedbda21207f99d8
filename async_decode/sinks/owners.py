"""Names of temporary files that tell whose they are, so that what a killed process has left can be removed.

Between the name of a file and its end stands ``.{machine}-{process}-{try}``.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from contextlib import suppress
from pathlib import Path

_OWNER = r"\.([0-9A-Za-z_-]+)-(\d+)-[0-9a-f]{8}"


def owned(name: str) -> str:
    """``name`` with this process, and a number that no other try has."""
    return f"{name}.{machine_name()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_of_the_dead(folder: Path, name: str, *ends: str) -> None:
    """Remove what processes of this machine that live no more have left of ``name``; never raises.

    Args:
        folder: where it would be.
        name: a regular expression for what was handed to ``owned``.
        ends: what may stand behind the owner.
    """
    of_name = re.compile(name + _OWNER + f"(?:{'|'.join(map(re.escape, ends))})")
    with suppress(OSError):
        for other in list(os.scandir(folder)):
            owner = of_name.fullmatch(other.name)
            if owner is not None and owner[1] == machine_name() and not _lives(int(owner[2])):
                with suppress(OSError):
                    os.unlink(other.path)


def machine_name() -> str:
    """This machine, as a part of file names tells it."""
    return re.sub(r"[^0-9A-Za-z_-]", "_", socket.gethostname()) or "machine"


def _lives(process: int) -> bool:
    if os.name == "nt":
        # A signal would end it there.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        # Killed, but nobody has asked yet how it ended: it writes no more.
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return True
