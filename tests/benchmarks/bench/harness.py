"""Runs arms in turn and keeps their times: warm-up first, order alternating, device synchronised at both ends.

Alternating means that one round runs the arms from first to last and the next one from last to first, so that a machine
that gets slower or faster treats all of them alike.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .arms import Arm, Check
from .saving import content_digest


class Budget:
    """A stop-watch that says whether something still fits in.

    Args:
        seconds: how much there is.
        clock: the time in seconds, for tests.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; negative when it is overdrawn."""
        return self._deadline - self._clock()

    def allows(self, seconds: float) -> bool:
        """Whether something that takes ``seconds`` fits in."""
        return seconds <= self.left

    def share(self, fraction: float) -> Budget:
        """A budget of this part of what is left."""
        return Budget(max(0.0, self.left * fraction), clock=self._clock)


@dataclass
class ArmResult:
    """What one arm took.

    Attributes:
        arm: its name; ``kind`` and ``saving`` are its parts.
        seconds: of each timed run, in their order.
        hashes: of the frames, from the warm-up, by pixel format.
        files: how many files the last run left, ``file_bytes`` together, ``content`` their hash.
        report: the pipeline's report of the last run.
        note: what went wrong, or why there are fewer runs than asked for.
    """

    arm: str
    kind: str
    saving: str | None
    seconds: list[float] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    files: int = 0
    file_bytes: int = 0
    content: str | None = None
    report: dict[str, Any] | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything, with the statistics."""
        return {**self.__dict__, **statistics(self.seconds)}


def statistics(seconds: Sequence[float]) -> dict[str, float | int]:
    """Minimum, mean, P99 and the number of runs; P99 by linear interpolation, so of few runs about the maximum."""
    if not seconds:
        return {"runs": 0}
    return {
        "runs": len(seconds),
        "min": float(np.min(seconds)),
        "mean": float(np.mean(seconds)),
        "p99": float(np.percentile(seconds, 99)),
        "max": float(np.max(seconds)),
    }


class Harness:
    """Measures the arms of one case.

    Args:
        arms: what to measure.
        device: what to wait for.
        folder: where runs put their files; its contents are deleted.
        runs: timed runs of each arm.
        slow_runs: the same for the arms of ``slow_kinds``.
        slow_kinds: kinds of arms that take much longer than the others.
        budget: when to stop. Every arm gets its first run if it fits in, before any gets another.
        on_progress: called after every warm-up and run, with the results so far and what has just been done.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        *,
        device: torch.device,
        folder: Path,
        runs: int,
        budget: Budget,
        slow_runs: int | None = None,
        slow_kinds: Sequence[str] = (),
        on_progress: Callable[[Sequence[ArmResult], str], None] = lambda results, what: None,
    ) -> None:
        self._arms = arms
        self._device = device
        self._folder = folder
        self._runs = runs
        self._slow_runs = runs if slow_runs is None else min(runs, slow_runs)
        self._slow_kinds = slow_kinds
        self._budget = budget
        self._on_progress = on_progress
        self._expected: dict[str, float] = {}
        self.results = [ArmResult(arm.name, arm.kind, arm.saving.name if arm.saving else None) for arm in arms]

    def measure(self) -> list[ArmResult]:
        """Warm up, run, and return the results."""
        pairs = list(zip(self._arms, self.results, strict=True))
        for arm, result in pairs:
            self._warm_up(arm, result)
        for number in range(self._runs):
            for arm, result in pairs if number % 2 == 0 else reversed(pairs):
                self._run(arm, result, number)
        return self.results

    def _warm_up(self, arm: Arm, result: ArmResult) -> None:
        if not self._budget.allows(0):
            result.note = "not run: the time budget was spent"
            return
        try:
            check: Check = arm.check()
        except Exception as error:
            self._failed(result, error)
        else:
            result.hashes = check.hashes
            self._expected[arm.name] = check.expected_seconds
            self._on_progress(self.results, f"{arm.name}: warmed up")

    def _run(self, arm: Arm, result: ArmResult, number: int) -> None:
        expected = self._expected.get(arm.name)
        if expected is None or number >= (self._slow_runs if arm.kind in self._slow_kinds else self._runs):
            return
        if not self._budget.allows(expected):
            result.note = f"{len(result.seconds)} of {self._runs} runs: the time budget was spent"
            return
        target = self._folder / f"{self._arms.index(arm):02}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            synchronise(self._device)
            began = time.perf_counter()
            outcome = arm.run(target)
            synchronise(self._device)
            seconds = time.perf_counter() - began
        except Exception as error:
            self._failed(result, error)
            return
        result.seconds.append(seconds)
        result.report = outcome.report
        self._expected[arm.name] = seconds
        if number == 0:
            # The same work gives the same files every time; that the arms agree is the warm-up's business.
            result.files = len(outcome.files)
            result.file_bytes = sum(path.stat().st_size for path in outcome.files)
            result.content = content_digest(outcome.files)
        shutil.rmtree(target)
        self._on_progress(self.results, f"{arm.name}: {seconds:.3f} s")

    def _failed(self, result: ArmResult, error: Exception) -> None:
        result.note = f"failed: {type(error).__name__}: {error}"
        self._expected.pop(result.arm, None)
        if self._device.type == "cuda":
            # After an out-of-memory error the other arms should find what they had.
            torch.cuda.empty_cache()
        self._on_progress(self.results, f"{result.arm}: {result.note}")


def agreement(results: Sequence[ArmResult]) -> dict[str, bool]:
    """For each pixel format, whether all arms that were checked made the same frames."""
    found: dict[str, set[str]] = {}
    for result in results:
        for name, value in result.hashes.items():
            found.setdefault(name, set()).add(value)
    return {name: len(values) == 1 for name, values in found.items()}


def content_agreement(results: Sequence[ArmResult], group_of: Callable[[str], str]) -> dict[str, bool]:
    """For each kind of file, whether all arms left the same contents in their files."""
    found: dict[str, set[str]] = {}
    for result in results:
        if result.saving is not None and result.content is not None:
            found.setdefault(group_of(result.saving), set()).add(result.content)
    return {name: len(values) == 1 for name, values in found.items()}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
