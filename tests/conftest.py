"""What holds for every test of the repository."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

# On a machine that does other things as well, torch's threads spin while they wait for each other, and a decode takes
# ten times as long. Read when torch is first imported; servers that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from tests.comfyui.cores import find_cores, summary

if not torch.cuda.is_available():
    # Where there is no GPU, kernels run in Triton's interpreter; read when Triton is first imported, by whomever.
    os.environ.setdefault("TRITON_INTERPRET", "1")

#: Long runs, which nobody waits for by accident: ``pytest tests/soak`` collects them.
collect_ignore = ["soak"]
#: Processes that share the tests of the whole suite; the servers and pages that they wait for have their own.
WORKERS = 2
#: What a test has told, in its report.
TOLD = "told"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share out the whole suite to two processes; with ``-n0``, ``-s`` or ``--pdb`` one does all.

    What is named on the command line runs in one process, unless ``-n`` says otherwise.
    """
    option = config.option
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    by_hand = option.usepdb or option.capture == "no" or getattr(option, "numprocesses", 0) is not None
    if named or by_hand or "PYTEST_XDIST_WORKER" in os.environ:
        return
    option.numprocesses = WORKERS
    option.dist = "loadscope"
    # A process that dies fails the run; put in its place, another one may leave the run hanging.
    option.maxworkerrestart = "0"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one process have all tests of a checkout's server, which is then started once, and of a file elsewhere."""
    from xdist.scheduler import LoadScopeScheduling

    cores = [core for front_ends in (True, False) for core in find_cores(front_ends)[0]]

    class ByServer(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            core = next((core.id for core in cores if f"[{core.id}" in test), None)
            return file if core is None else f"{file.rpartition('/')[0]} {core}"

    return ByServer(config, log)


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Has something said when all tests are over, whatever becomes of this one."""
    return lambda text: request.node.user_properties.append((TOLD, text))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which checkouts were tested, what tests have told, and one line for each reason why tests were skipped."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    if any(report.nodeid.startswith(("tests/comfyui/", "tests/browser/")) for report in reports):
        terminalreporter.section("ComfyUI checkouts")
        for line in summary():
            terminalreporter.line(line)
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == TOLD and report.when == "call":
                terminalreporter.line(text)
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"SKIPPED [{count}] {reason}")
