"""Settings that may make the decoder itself faster and leave its bits alone: tried, with a hash, before being offered.

A fresh process for each: cuDNN's plans are kept by shape, so a setting tried second would run with the plans of the
first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from .arms import DECODE, Settings, decode_only, make_arms
from .harness import statistics, synchronise
from .workload import Case, Loaders, Workload


def _as_it_is(_workload: Workload) -> None:
    pass


def _cudnn_benchmark(_workload: Workload) -> None:
    torch.backends.cudnn.benchmark = True


def _channels_last(workload: Workload) -> None:
    for module in workload.decoder.model.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        elif isinstance(module, torch.nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _both(workload: Workload) -> None:
    _cudnn_benchmark(workload)
    _channels_last(workload)


#: What each setting does to a loaded workload.
VARIANTS: dict[str, Callable[[Workload], None]] = {
    "as it is": _as_it_is,
    "cudnn.benchmark": _cudnn_benchmark,
    "channels last": _channels_last,
    "both": _both,
}


def run(task: dict[str, Any], loaders: Loaders) -> dict[str, Any]:
    """Time the decode with one setting, in this process, which must have done nothing before."""
    device = torch.device(task["device"])
    workload = Workload(Case.parse(task["case"]), loaders, device)
    VARIANTS[task["variant"]](workload)
    began = time.perf_counter()
    # The check warms up, which with autotuning takes its time.
    check = make_arms(workload, [DECODE], [], Settings())[0].check()
    # The first use of what was proven is compared with stock's once more.
    decode_only(workload)
    warm_up = time.perf_counter() - began
    seconds = []
    for _ in range(task["runs"]):
        synchronise(device)
        began = time.perf_counter()
        decode_only(workload)
        synchronise(device)
        seconds.append(time.perf_counter() - began)
    return {
        "case": task["case"],
        "variant": task["variant"],
        "hash": check.hashes["uint8"],
        "warm_up_seconds": warm_up,
        "seconds": seconds,
        **statistics(seconds),
    }
