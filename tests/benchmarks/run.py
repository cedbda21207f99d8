"""Measures this machine, with every way of doing the same work side by side.

    python tests/benchmarks/run.py
    python tests/benchmarks/run.py --comfyui ~/ComfyUI --case comfy-wan2.1:bf16:720x1280:21

With ``--comfyui`` (default: ``COMFYUI_PATH``), a checkout, ComfyUI's own VAEs and nodes are measured beside the rest.
ComfyUI's requirements have to be installed for the Python that runs this.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Behind everything else, so that it works from a checkout that is not installed, and hides nothing of ComfyUI's.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import child
from bench.command import add_options, run_suite
from bench.models import LOADERS
from bench.workload import Loaders
from comfyui_models import FAMILIES, host_pairs, loaders

_CHILD = "--child"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status: 1 if two arms did not make the same frames."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == [_CHILD]:
        _, checkout, task = arguments
        return child.main([task], _loaders(Path(checkout)))
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/run.py", description=__doc__, epilog=f"more models: {', '.join(FAMILIES)}"
    )
    # The first of several, as the tests have them.
    named = os.environ.get("COMFYUI_PATH", "").split(os.pathsep)[0]
    parser.add_argument("--comfyui", default=named, help="a checkout of ComfyUI (default: COMFYUI_PATH)")
    add_options(parser)
    options = parser.parse_args(arguments)
    checkout = Path(options.comfyui).expanduser().resolve() if options.comfyui else None
    return run_suite(
        options,
        _loaders(checkout),
        child=[sys.executable, __file__, _CHILD, str(checkout or "")],
        arguments=arguments,
        host_pairs=host_pairs(checkout) if checkout is not None else (),
    )


def _loaders(checkout: Path | None) -> Loaders:
    if checkout is None or checkout == Path():
        return LOADERS
    return {**LOADERS, **loaders(checkout)}


if __name__ == "__main__":
    sys.exit(main())
