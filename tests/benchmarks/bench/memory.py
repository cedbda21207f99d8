"""How much memory a decode takes at its peak: on the device and resident on the host, a fresh process for each number.

The peak of a process only ever rises, and allocators keep what they had, so that nothing measured second would mean
anything.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from .arms import ASYNCHRONOUS, KINDS, STOCK, Settings, asynchronous
from .saving import Saving
from .workload import Case, Loaders, Workload

#: What is measured: decoding into files, and stock's whole clip beside it.
MEASURED = (ASYNCHRONOUS, STOCK)


def measure(
    case: Case, kind: str, saving: Saving, settings: Settings, loaders: Loaders, device: torch.device
) -> dict[str, Any]:
    """The peaks of one arm, in this process, which must have done nothing before.

    Args:
        case: what to decode.
        kind: ``asynchronous`` (into the files of ``saving``) or ``stock`` (the IMAGE only: saving it adds nothing).
        saving: what the asynchronous arm saves.
        settings: how chunks travel.
        loaders: where to find the model.
        device: where to decode.
    """
    workload = Workload(case, loaders, device)
    gc.collect()
    before = _device_bytes(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    _forget_peak()
    resident_before = _peak_resident()
    with tempfile.TemporaryDirectory() as folder:
        if kind == STOCK:
            workload.stock.decode(workload.latent)
        else:
            asynchronous(workload, [saving.sink(Path(folder), "memory")], settings.for_saving(saving))
    peaks = {"device_before": before, "resident_before": resident_before, "resident_peak": _peak_resident()}
    if device.type == "cuda":
        peaks["device_peak"] = torch.cuda.max_memory_allocated(device)
        peaks["device_reserved"] = torch.cuda.max_memory_reserved(device)
    return {
        "case": str(case),
        "arm": kind if kind == STOCK else f"{kind}, {saving.name}",
        "latents": case.latents,
        "frames": workload.frames,
        "latent_bytes": workload.latent.nbytes,
        **peaks,
    }


def run(task: dict[str, Any], loaders: Loaders) -> dict[str, Any]:
    """``measure`` for a task that came from another process."""
    return measure(
        Case.parse(task["case"]),
        KINDS[task["kind"]],
        Saving.parse(task["saving"]),
        Settings(task["chunk_size"], task["buffer_depth"]),
        loaders,
        torch.device(task["device"]),
    )


def _device_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _forget_peak() -> None:
    """Have the kernel count the peak from here on, where it can: loading may take more than decoding."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_resident() -> int:
    """The most resident memory that this process had since then, in bytes; its children not counted."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak if sys.platform == "darwin" else peak * 1024
