"""What saving took in earlier runs on this machine, by the widgets that make it faster: advice names what was measured.

Kept in a small file in ComfyUI's user folder. There is one entry for each kind of run and setting, of the last run. A
kind is all that must be the same for two runs to be compared: format, quality, size, frames, and about how long
decoding took, since saving hides behind that.
"""

from __future__ import annotations

import functools
import json
import math
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import folder_paths

from ..async_decode import Report
from ..async_decode.report.figures import Measured

#: Kinds that are remembered, the last ones.
MOST_KINDS = 100


@dataclass(frozen=True)
class SavedAs:
    """How a node saves.

    Attributes:
        kind: what makes two runs alike, in words.
        setting: the widgets that make saving faster or slower, with their values, for people to read.
    """

    kind: str
    setting: str


class EarlierRuns:
    """The runs that are remembered; from any thread.

    Args:
        file: where they are kept. Where it cannot be read or written there is less advice, and no error.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def others(self, saved_as: SavedAs, report: Report) -> tuple[Measured, ...]:
        """How long runs like this one waited for their files with other settings.

        Args:
            saved_as: how this run saves.
            report: of this run.
        """
        with self._lock:
            known = self._read().get(_kind(saved_as, report), {})
        return tuple(
            Measured(setting, waited)
            for setting, (waited, decoding) in known.items()
            if setting != saved_as.setting and _is_alike(decoding, report.compute_seconds)
        )

    def add(self, saved_as: SavedAs, report: Report) -> None:
        """Remember a run that has completed."""
        kind = _kind(saved_as, report)
        entry = (round(report.waited_seconds, 4), round(report.compute_seconds, 4))
        with self._lock:
            known = self._read()
            known[kind] = {**known.pop(kind, {}), saved_as.setting: entry}
            for oldest in list(known)[:-MOST_KINDS]:
                del known[oldest]
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                part = self._file.with_name(f"{self._file.name}.{os.getpid()}")
                part.write_text(json.dumps(known, indent=1), encoding="utf-8")
                os.replace(part, self._file)

    def _read(self) -> dict[str, dict[str, tuple[float, float]]]:
        # Whatever somebody has made of the file: no run is to fail for advice.
        with suppress(Exception):
            # NaN, which JSON does not know and Python's reader does, would be the best of all times.
            kept = json.loads(self._file.read_text(encoding="utf-8"), parse_constant=_refuse)
            return {
                str(kind): {str(setting): (float(waited), float(took)) for setting, (waited, took) in runs.items()}
                for kind, runs in kept.items()
            }
        return {}


def _kind(saved_as: SavedAs, report: Report) -> str:
    return f"{saved_as.kind}, {report.frames} frames of {report.width}x{report.height}, {report.device}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"a time is a finite number, not {constant}")


def _is_alike(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=0.25, abs_tol=0.25)


@functools.cache
def earlier_runs() -> EarlierRuns:
    """Those of this ComfyUI."""
    return EarlierRuns(Path(folder_paths.get_user_directory()) / "async_vae_decode" / "saving.json")
