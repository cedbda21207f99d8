"""One profiled run of an arm on a CUDA device, apart from the timed ones: CUPTI slows launches."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from async_decode.spans import Span, Stage

from .arms import ASYNCHRONOUS, DECODE, FASTER, SEQUENTIAL, Settings, asynchronous, decode_only, sequential
from .harness import synchronise
from .saving import Saving
from .trace import Event, analyse, read_chrome_trace
from .workload import Workload

#: The pipeline's spans that say why a decode did not go on.
_WAITS = (Stage.WAIT_SLOT, Stage.WAIT_SINKS)


def profile_arms(workload: Workload, savings: Sequence[Saving], settings: Settings) -> list[dict[str, Any]]:
    """Profile the arms whose utilisation is compared; the first two tell what the decoders themselves leave idle.

    Args:
        workload: what to decode; each arm is warmed up once more.
        savings: what the sequential and the asynchronous arm save, in turn.
        settings: how chunks travel.
    """

    def decode(kind: str, _folder: Path) -> list[Span]:
        decode_only(workload, kind)
        return []

    def one_after_the_other(saving: Saving, folder: Path) -> list[Span]:
        sequential(workload, [saving.sink(folder, "sequential")], settings)
        return []

    def at_once(saving: Saving, folder: Path) -> list[Span]:
        sink = saving.sink(folder, "asynchronous")
        return asynchronous(workload, [sink], settings.for_saving(saving)).recorder.spans

    arms: list[tuple[str, Callable[[Path], list[Span]]]] = [(kind, partial(decode, kind)) for kind in (DECODE, FASTER)]
    for saving in savings:
        arms.append((f"{SEQUENTIAL}, {saving.name}", partial(one_after_the_other, saving)))
        arms.append((f"{ASYNCHRONOUS}, {saving.name}", partial(at_once, saving)))
    results = []
    for name, run in arms:
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder))
        results.append({"arm": name, **profile_run(run, workload.device)})
    return results


def profile_run(run: Callable[[Path], Sequence[Span]], device: torch.device) -> dict[str, Any]:
    """Profile ``run``, which gets a folder for its files and returns the pipeline's spans.

    Only the device is recorded and the host's CUDA calls: recording every operator as well would delay the launches by
    more than what is looked for.
    """
    kind = torch.profiler.ProfilerActivity.CUDA if device.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with tempfile.TemporaryDirectory() as folder:
        synchronise(device)
        with torch.profiler.profile(activities=[kind]) as profiler:
            spans = run(Path(folder))
            synchronise(device)
        # The trace tells wall-clock time, spans that of perf_counter.
        offset = time.time_ns() - time.perf_counter_ns()
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        exported = json.loads(path.read_text())
    offset -= int(exported.get("baseTimeNanoseconds", 0))
    trace = read_chrome_trace(exported)
    trace.waits = [
        Event(span.start_ns + offset, span.end_ns + offset, span.stage.value, span.lane)
        for span in spans
        if span.stage in _WAITS
    ]
    return analyse(trace)
