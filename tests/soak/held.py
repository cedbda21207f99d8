"""What a server holds while it has nothing to do, on Linux."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.comfyui.server import Server

MIB = 2**20


@dataclass(frozen=True)
class Held:
    """Counted at one moment.

    Attributes:
        threads: Python's, by name without its number.
        os_threads: all, as Linux counts them.
        descriptors: open files, by what they lead to.
        children: child processes, by name.
        temporary: names in the system's temporary folder.
        parts: files that are not whole, wherever the server saves.
        resident: bytes of memory.
    """

    threads: Counter[str]
    os_threads: int
    descriptors: Counter[str]
    children: Counter[str]
    temporary: list[str]
    parts: list[str]
    resident: int


def held_by(server: Server) -> Held:
    """What ``server`` holds now."""
    process = Path(f"/proc/{server.pid}")
    places = (server.output, server.temp)
    return Held(
        # First: the call itself is over before descriptors are counted.
        threads=Counter(re.sub(r"[\d_-]+$", "", name) for name in server.threads()),
        os_threads=len(list((process / "task").iterdir())),
        descriptors=Counter(_kind(link) for link in (process / "fd").iterdir()),
        children=Counter(server.children().values()),
        temporary=sorted(path.name for path in (server.base / "tmp").iterdir()),
        parts=sorted(str(path) for place in places for path in place.rglob("*") if path.suffix in (".part", ".tmp")),
        resident=server.memory()["VmRSS"],
    )


def _kind(link: Path) -> str:
    """What a descriptor leads to, without the numbers of sockets and pipes."""
    try:
        return re.sub(r"\[\d+\]", "", os.readlink(link))
    except OSError:
        return "closed meanwhile"
