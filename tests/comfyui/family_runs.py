"""Runs ``families_in_core.py`` in the interpreter of a checkout, in two processes, and keeps what they found."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.comfyui.cores import Core
from tests.comfyui.server import BOOTSTRAP

PROGRAM = Path(__file__).with_name("families_in_core.py")
#: What is tried in processes of their own, so that two processors have about as much to do.
SHARES = (("exactness", "shapes"), ("memory", "tiling", "tiling_memory", "numbers", "out_of_memory"))
#: Minutes that a run may take on a busy machine.
LIMIT = 25

Row = dict[str, Any]


class FamilyRuns:
    """What was found in each core, from runs that begin when the first result of it is asked for.

    Args:
        folder: where the programs write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[tuple[Core, int], subprocess.Popen[bytes]] = {}
        self._rows: dict[Core, list[Row]] = {}

    def row(self, core: Core, part: str, key: str, value: str) -> Row:
        """The line of ``part`` whose ``key`` is ``value``."""
        found = [row for row in self.rows(core) if row["part"] == part and row.get(key) == value]
        assert len(found) == 1, f"expected one line of {part} on {value}, got {found}"
        return found[0]

    def rows(self, core: Core) -> list[Row]:
        """All lines of a core's runs, which are waited for.

        Raises:
            RuntimeError: a program failed as a whole; the message has the end of what it said.
        """
        if (core, 0) not in self._running:
            for share in range(len(SHARES)):
                self._running[core, share] = self._start(core, share)
        if core not in self._rows:
            self._rows[core] = [row for share in range(len(SHARES)) for row in self._finished(core, share)]
        return self._rows[core]

    def close(self) -> None:
        """End what still runs."""
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def _finished(self, core: Core, share: int) -> list[Row]:
        code = self._running[core, share].wait(timeout=60 * LIMIT)
        if code:
            said = self._file(core, share, "err").read_text(errors="replace")[-4000:]
            raise RuntimeError(f"the families of ComfyUI {core.version} ended with {code}:\n{said}")
        lines = self._file(core, share, "out").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"part": ')]

    def _start(self, core: Core, share: int) -> subprocess.Popen[bytes]:
        with self._file(core, share, "out").open("wb") as out, self._file(core, share, "err").open("wb") as err:
            return subprocess.Popen(
                [core.python, BOOTSTRAP, "--stop-with-stdin", PROGRAM, *SHARES[share]],
                cwd=core.path,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            )

    def _file(self, core: Core, share: int, kind: str) -> Path:
        return self._folder / f"families-{core.version}-{core.path.name}-{share}.{kind}"
