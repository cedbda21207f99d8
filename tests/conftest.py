"""What holds for every test of the repository."""

from __future__ import annotations

import os
from collections import Counter

import pytest

# On a machine that does other things as well, torch's threads spin while they wait for each other, and a decode takes
# ten times as long. Read when torch is first imported; servers that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

if not torch.cuda.is_available():
    # Where there is no GPU, kernels run in Triton's interpreter; read when Triton is first imported, by whomever.
    os.environ.setdefault("TRITON_INTERPRET", "1")

#: Long runs, which nobody waits for by accident: ``pytest tests/soak`` collects them.
collect_ignore = ["soak"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason why tests were skipped, however many they are."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"SKIPPED [{count}] {reason}")
