"""Runs ``families_in_core.py`` in the interpreters of the checkouts, all at once, and keeps what they found."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.comfyui.cores import Core, find_cores
from tests.comfyui.server import BOOTSTRAP

PROGRAM = Path(__file__).with_name("families_in_core.py")
#: Minutes that a run may take on a busy machine; it takes about two by itself.
LIMIT = 25

Row = dict[str, Any]


class FamilyRuns:
    """What was found in each core, from runs that begin together when the first result is asked for.

    Args:
        folder: where the programs write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[Core, subprocess.Popen[bytes]] = {}
        self._rows: dict[Core, list[Row]] = {}

    def row(self, core: Core, part: str, key: str, value: str) -> Row:
        """The line of ``part`` whose ``key`` is ``value``."""
        found = [row for row in self.rows(core) if row["part"] == part and row.get(key) == value]
        assert len(found) == 1, f"expected one line of {part} on {value}, got {found}"
        return found[0]

    def rows(self, core: Core) -> list[Row]:
        """All lines of a core's run, which is waited for.

        Raises:
            RuntimeError: the program failed as a whole; the message has the end of what it said.
        """
        if not self._running:
            for other in find_cores()[0]:
                self._running[other] = self._start(other)
        if core not in self._rows:
            code = self._running[core].wait(timeout=60 * LIMIT)
            if code:
                said = self._file(core, "err").read_text(errors="replace")[-4000:]
                raise RuntimeError(f"the families of ComfyUI {core.version} ended with {code}:\n{said}")
            lines = self._file(core, "out").read_text(encoding="utf-8").splitlines()
            self._rows[core] = [json.loads(line) for line in lines if line.startswith('{"part": ')]
        return self._rows[core]

    def close(self) -> None:
        """End what still runs."""
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def _start(self, core: Core) -> subprocess.Popen[bytes]:
        with self._file(core, "out").open("wb") as out, self._file(core, "err").open("wb") as err:
            return subprocess.Popen(
                [core.python, BOOTSTRAP, "--stop-with-stdin", PROGRAM],
                cwd=core.path,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )

    def _file(self, core: Core, kind: str) -> Path:
        return self._folder / f"families-{core.version}-{core.path.name}.{kind}"
