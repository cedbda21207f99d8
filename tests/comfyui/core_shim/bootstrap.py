"""Runs a script inside a ComfyUI checkout's interpreter: ``python bootstrap.py [--stop-with-stdin] script.py ...``.

It changes nothing of ComfyUI. It does two things that a test machine needs:

1. ComfyUI imports torchvision and torchaudio at start, and their usual builds are linked against CUDA, so that they do
   not load beside a CPU build of torch. Where that is so, and only there, torchvision gets the two operator schemas
   that its import asks for, and torchaudio is told that it has no compiled extension. No test calls into either.
2. With ``--stop-with-stdin`` the process and its children end when stdin closes, which happens however the test run
   ends: no server outlives it.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

#: torchvision registers fake kernels for these while it is imported, and fails when the schemas are missing.
TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
#: torch drops an operator when its library object dies.
_libraries: list[Any] = []


class CompiledPartsFinder(MetaPathFinder):
    """Looks at the two packages when they are first imported: importing torch before ComfyUI does is too early."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "torchvision":
            package = PathFinder.find_spec(fullname, path)
            if package is not None and package.submodule_search_locations:
                extension = PathFinder.find_spec("_C", list(package.submodule_search_locations))
                if extension is not None and not loads(extension.origin):
                    define_torchvision_schemas()
        if fullname == "torchaudio._extension" and path:
            compiled = [library for folder in path for library in Path(folder, "lib").glob("*torchaudio.*")]
            if not all(loads(str(library)) for library in compiled):
                return ModuleSpec(fullname, NoExtension())
        return None


class NoExtension(Loader):
    """Stands for ``torchaudio._extension`` as it is when torchaudio was built without compiled parts."""

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_IS_TORCHAUDIO_EXT_AVAILABLE=False, fail_if_no_align=lambda function: function)


def loads(library: str | None) -> bool:
    """Whether torch can load this shared library."""
    import torch

    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


def define_torchvision_schemas() -> None:
    """Declare the operators without any implementation."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in TORCHVISION_SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def stop_with_stdin() -> None:
    """End this process and its children when stdin closes."""

    def watch() -> None:
        # Not through sys.stdin, whose lock would be held when the interpreter shuts down by itself.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="stop with stdin", daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run the script that ``arguments`` begin with."""
    # A shell's background jobs ignore it, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments[0] == "--stop-with-stdin":
        stop_with_stdin()
        arguments = arguments[1:]
    sys.meta_path.insert(0, CompiledPartsFinder())
    script = Path(arguments[0]).resolve()
    sys.argv = [str(script), *arguments[1:]]
    # What the interpreter itself does for a script.
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
