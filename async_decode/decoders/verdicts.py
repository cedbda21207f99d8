"""What was proven on this machine, kept on disk under everything that it depends on.

A file that is not whole, not ours, or about anything else is as none: then the proof is made again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .kernels.order import Order
from .layout import Layout
from .operations import Algorithms

#: Goes up when the files of before would be misread.
_FORM = 1
#: Settings of torch's that decide which kernels it takes.
_SETTINGS = ("enabled", "benchmark", "deterministic", "allow_tf32")
#: Why replacements are out, by files that could not be written.
_OUT: dict[Path, str] = {}


@dataclass
class Verdict:
    """What is known of one call of a block: a place, the shapes and the layouts of what it gets.

    Attributes:
        proven: the replacement's result was stock's.
        algorithms: how it has to be computed.
        x: the layout of what it gets in stock.
        caches: of what it has kept, or a word, or ``None``.
        milliseconds: what stock's block took.
        reason: why it is not proven.
        confirmed: how what it got lay, each time that it was used so for the first time and stock's code gave the same.
            A proof is made of stock's own tensors. What a replaced neighbour hands on lies elsewhere, and torch asks
            addresses and strides which kernel it takes.
        no_room: in this run there was no memory for computing it in both ways.
    """

    proven: bool
    algorithms: Algorithms
    x: Layout
    caches: list[Layout | str | None]
    milliseconds: float
    reason: str = ""
    confirmed: list[list[Layout | str | None]] = field(default_factory=list)
    no_room: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain types."""
        return {
            "proven": self.proven,
            "orders": [order.to_json() for order in self.algorithms.orders],
            "norm_layouts": [layout.to_json() for layout in self.algorithms.norm_layouts],
            "convs": self.algorithms.convs,
            "x": self.x.to_json(),
            "caches": _told(self.caches),
            "milliseconds": self.milliseconds,
            "reason": self.reason,
            "confirmed": [_told(lies) for lies in self.confirmed],
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Verdict:
        """The one that ``to_json`` told."""
        if not set(told["convs"]) <= {"cudnn", "triton", "split", "parts"}:
            raise ValueError(f"expected algorithms of convolutions, got {told['convs']}")
        return cls(
            proven=told["proven"] is True,
            algorithms=Algorithms(
                [Order.from_json(order) for order in told["orders"]],
                [Layout.from_json(layout) for layout in told["norm_layouts"]],
                [str(way) for way in told["convs"]],
            ),
            x=Layout.from_json(told["x"]),
            caches=_heard(told["caches"]),
            milliseconds=float(told["milliseconds"]),
            reason=str(told["reason"]),
            confirmed=[_heard(lies) for lies in told["confirmed"]],
        )


def _told(lies: list[Layout | str | None]) -> list[Any]:
    return [one.to_json() if isinstance(one, Layout) else one for one in lies]


def _heard(told: list[Any]) -> list[Layout | str | None]:
    return [Layout.from_json(one) if isinstance(one, list) else one for one in told]


@dataclass
class StepPlan:
    """What stock does in one step of a decode, as it was seen.

    Attributes:
        calls: for each call of a place, ``name#number``, the key of its verdict.
        after: the layouts of what the decoder keeps after the step.
    """

    calls: dict[str, str] = field(default_factory=dict)
    after: list[Layout | None] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain types."""
        return {"calls": self.calls, "after": [None if one is None else one.to_json() for one in self.after]}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> StepPlan:
        """The one that ``to_json`` told."""
        return cls(
            {str(call): str(key) for call, key in told["calls"].items()},
            [None if one is None else Layout.from_json(one) for one in told["after"]],
        )


class Verdicts:
    """All that is known of one model on one machine.

    Args:
        folder: where the files are; ``None``: nothing is kept beyond the run.
        environment: everything that the verdicts depend on.
    """

    def __init__(self, folder: Path | None, environment: dict[str, Any]) -> None:
        self.environment = environment
        self.verdicts: dict[str, Verdict] = {}
        self.steps: dict[str, StepPlan] = {}
        #: Why the replacements are out for good on this machine; empty where they are not.
        self.out = ""
        self.changed = False
        self._path = None if folder is None else folder / f"{digest(environment)}.json"
        if self._path is not None:
            # Whatever is wrong with the file, it is as if there were none.
            with contextlib.suppress(Exception):
                self._read(json.loads(self._path.read_text(encoding="utf-8")))
            self.out = self.out or _OUT.get(self._path, "")

    def _read(self, told: dict[str, Any]) -> None:
        body = told["body"]
        if told["form"] != _FORM or told["sum"] != digest(body) or body["environment"] != self.environment:
            raise ValueError("this file is not about this machine")
        verdicts = {key: Verdict.from_json(one) for key, one in body["verdicts"].items()}
        steps = {key: StepPlan.from_json(one) for key, one in body["steps"].items()}
        if any(key not in verdicts for step in steps.values() for key in step.calls.values()):
            raise ValueError("a step without its verdicts")
        self.verdicts, self.steps, self.out = verdicts, steps, str(body["out"])

    def rule_out(self, reason: str) -> None:
        """The replacements are out for good, by the file, or, where the disk does not take it, for this process."""
        self.out, self.changed = reason, True
        self.save()
        if self._path is not None and self.changed:
            _OUT[self._path] = reason

    def save(self) -> None:
        """Write the file, whole or not at all; a disk that does not take it is no error."""
        if self._path is None or not self.changed:
            return
        # Several processes on one machine keep one file: none may undo that another one's audit has failed.
        others = Verdicts(self._path.parent, self.environment)
        self.out = self.out or others.out
        self.verdicts = {**others.verdicts, **self.verdicts}
        self.steps = {**others.steps, **self.steps}
        body = {
            "environment": self.environment,
            "verdicts": {key: one.to_json() for key, one in self.verdicts.items()},
            "steps": {key: one.to_json() for key, one in self.steps.items()},
            "out": self.out,
        }
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"form": _FORM, "sum": digest(body), "body": body}, file)
                os.replace(name, self._path)
            except BaseException:
                os.unlink(name)
                raise
            self.changed = False


def digest(told: Any) -> str:
    """A short name for plain types."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


def environment_of(
    model: torch.nn.Module, device: torch.device, dtype: torch.dtype, sources: list[str]
) -> dict[str, Any]:
    """Everything that decides which kernels run, and what they compute.

    Args:
        model: the decoder.
        device: where it decodes, a CUDA device.
        dtype: of its tensors.
        sources: the source of what is replaced.
    """
    import triton

    card: dict[str, Any] = {"card": device.type}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        card = {
            "card": properties.name,
            "capability": [properties.major, properties.minor],
            "processors": properties.multi_processor_count,
            "driver": _driver(),
        }
    return {
        **card,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton.__version__,
        "settings": {name: getattr(torch.backends.cudnn, name) for name in _SETTINGS},
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "variables": {
            name: value
            for name, value in os.environ.items()
            if "CUDNN" in name or name.startswith(("NVIDIA_TF32", "TRITON"))
        },
        "dtype": str(dtype),
        "model": digest([[name, list(one.shape), str(one.dtype)] for name, one in model.named_parameters()]),
        "stock": digest(sources),
        "ours": _own_source(),
    }


@functools.lru_cache(maxsize=1)
def _driver() -> int | None:
    """The version of the card's driver, or ``None`` where it does not tell."""
    version = ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return version.value if library.cuDriverGetVersion(ctypes.byref(version)) == 0 else None
    except (OSError, AttributeError):
        return None


@functools.lru_cache(maxsize=1)
def _own_source() -> str:
    """A short name for the code of this room: other kernels need another proof."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return digest([[file.name, file.read_text(encoding="utf-8")] for file in files])
