"""Tasks that need a process of their own: started here, run there, the result on the last line of standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import async_decode

from . import memory, variants
from .models import LOADERS
from .workload import Loaders

TASKS: Mapping[str, Callable[[dict[str, Any], Loaders], dict[str, Any]]] = {
    "memory": memory.run,
    "variant": variants.run,
}


def command() -> list[str]:
    """What starts a child with this package's own models; the task comes behind it."""
    return [sys.executable, "-m", __spec__.name]


def start(child: Sequence[str], task: dict[str, Any], *, timeout: float) -> dict[str, Any]:
    """Run a task in a fresh process.

    Args:
        child: the command, as ``command()`` gives it.
        task: ``task`` names one of ``TASKS``; the rest is its own.
        timeout: seconds after which it is killed.

    Returns:
        The task's result; with an ``error`` in place of it when it failed.
    """
    # Both packages may lie in folders that only this process knows of.
    here = Path(__file__).resolve().parents[len(__name__.split(".")) - 1]
    package = Path(async_decode.__file__).resolve().parents[1]
    paths = [str(here), str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            [*child, json.dumps(task)], capture_output=True, text=True, timeout=max(1.0, timeout), env=environment
        )
    except subprocess.TimeoutExpired:
        return {**task, "error": f"killed after {timeout:.0f} s: the time budget was spent"}
    if done.returncode:
        return {**task, "error": done.stderr.strip()[-500:]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(arguments: Sequence[str], loaders: Loaders = LOADERS) -> int:
    """A child's main program: one argument, the task."""
    task = json.loads(arguments[0])
    print(json.dumps(TASKS[task["task"]](task, loaders)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
