"""A whole benchmark: which parts run for which cases, in how much time, and where each result goes."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from async_decode.cli.timeline import save_timelines
from async_decode.report.trace import write_chrome_trace

from . import child as children
from .arms import KINDS, STOCK, Settings, asynchronous, make_arms
from .harness import ArmResult, Budget, Harness, agreement, content_agreement
from .host import HostSizes, MakePair, measure_host
from .memory import MEASURED
from .models import LOADERS
from .picture import save_picture
from .profile import profile_arms
from .results import Results, slim
from .saving import Saving
from .tables import markdown
from .variants import VARIANTS
from .workload import Case, Loaders, Workload

#: What there is to measure, with the share of the time that each part may take.
PARTS = {"wall": 6, "profile": 1, "timeline": 1, "memory": 2, "variants": 1, "host": 2}
#: Parts that share one loaded model.
_IN_THIS_PROCESS = {"wall", "profile", "timeline"}
#: A profile of more latents than this only gets larger: every step of a decode is like the one before.
_PROFILED_LATENTS = 21


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        out: folder for the results; ``scratch`` for the files that the arms save, ``None``: a temporary one.
        device: where to decode.
        cases: the settings.
        latent: what they decode, a name of ``LATENTS``; the parts that start processes of their own take the default.
        parts: of ``PARTS``.
        kinds: kinds of arms.
        savings: what they save. The first video, else the first, is what the memory part saves.
        settings: how chunks travel.
        runs: timed runs of an arm; ``stock_runs``: of the stock arms, which take the longest; ``host_runs``: of each
            way in the host's part.
        seconds: when to stop.
        memory_latents: lengths of clip that the memory part compares.
    """

    out: Path
    device: torch.device
    cases: Sequence[Case]
    parts: Sequence[str]
    kinds: Sequence[str]
    savings: Sequence[Saving]
    settings: Settings
    runs: int
    stock_runs: int
    host_runs: int
    seconds: float
    memory_latents: Sequence[int]
    scratch: Path | None = None
    latent: str = "soft"

    @property
    def profiled(self) -> list[Saving]:
        """What the profile saves: the first video and the first images, which load the host in different ways."""
        video = next((saving for saving in self.savings if saving.preset is not None), None)
        images = next((saving for saving in self.savings if saving.png_level is not None), None)
        return [saving for saving in (video, images) if saving is not None] or [self.savings[0]]

    @property
    def one_saving(self) -> Saving:
        """What the parts save that measure one way of saving."""
        return next((saving for saving in self.savings if saving.preset is not None), self.savings[0])


class Suite:
    """Runs the parts and writes ``results.json``, ``results.md`` and ``results.png``.

    Args:
        options: what to measure.
        results: where to.
        loaders: the models.
        child: the command that starts a process with these loaders.
        host_pairs: pairs of the host's part beside its own.
        log: takes a line for whoever waits.
    """

    def __init__(
        self,
        options: Options,
        results: Results,
        *,
        loaders: Loaders = LOADERS,
        child: Sequence[str] | None = None,
        host_pairs: Sequence[MakePair] = (),
        log: Callable[[str], None] = print,
    ) -> None:
        self._options = options
        self._results = results
        self._loaders = loaders
        self._child = list(child) if child is not None else children.command()
        self._host_pairs = host_pairs
        self._began = time.monotonic()
        self._budget = Budget(options.seconds)
        self._print = log

    def run(self) -> bool:
        """Measure everything; return whether every case was loaded and all ways of doing it made the same frames."""
        parts = self._options.parts
        if not _IN_THIS_PROCESS.isdisjoint(parts):
            for number, case in enumerate(self._options.cases):
                self._in_this_process(case, cases_left=len(self._options.cases) - number)
        if "memory" in parts:
            self._memory()
        if "variants" in parts:
            self._variants()
        if "host" in parts:
            for entry in measure_host(self._log, HostSizes(repeats=self._options.host_runs), self._host_pairs):
                self._results.add("host", entry)
        self._results.data["seconds"] = round(time.monotonic() - self._began, 1)
        self._results.save()
        self.write_up()
        return self._results.sound

    def write_up(self) -> str:
        """Write the table and the picture of what there is so far; return the table."""
        text = markdown(self._results.data)
        (self._options.out / "results.md").write_text(text, encoding="utf-8")
        if any(arm["runs"] for case in self._results.data["cases"] for arm in case["arms"]):
            save_picture(self._options.out / "results.png", self._results.data)
        return text

    def _in_this_process(self, case: Case, *, cases_left: int) -> None:
        """Wall time and profile of one case, which share the loaded model."""
        if not self._budget.allows(0):
            self._log(f"{case}: left out, the time budget was spent")
            return
        self._log(f"{case}: loading")
        try:
            workload = Workload(case, self._loaders, self._options.device, self._options.latent)
        except (ImportError, RuntimeError) as error:
            # One model that is missing or too large must not cost the others.
            self._log(f"{case}: {type(error).__name__}: {error}")
            self._results.add("failures", {"case": str(case), "error": f"{type(error).__name__}: {error}"})
            return
        with torch.inference_mode():
            if "wall" in self._options.parts:
                self._wall(workload, self._share("wall", cases_left))
            if "profile" in self._options.parts and self._budget.allows(0):
                self._profile(workload)
            if "timeline" in self._options.parts and self._budget.allows(0):
                self._timeline(workload)
        del workload
        gc.collect()
        if self._options.device.type == "cuda":
            torch.cuda.empty_cache()

    def _wall(self, workload: Workload, budget: Budget) -> None:
        options, case = self._options, workload.case
        entry: dict[str, Any] = {
            "case": str(case),
            **case.__dict__,
            "latent": options.latent,
            "frames": workload.frames,
            "stock": workload.stock.name,
            "arms": [],
        }
        self._results.add("cases", entry)

        def keep(arms: Sequence[ArmResult], what: str) -> None:
            entry["arms"] = [{**arm.to_json(), "report": slim(arm.report)} for arm in arms]
            entry["frames_equal"] = agreement(arms)
            entry["files_equal"] = content_agreement(arms, lambda name: Saving.parse(name).group)
            self._results.save()
            self._log(f"{case}: {what}")

        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            harness = Harness(
                make_arms(workload, options.kinds, options.savings, options.settings),
                device=options.device,
                folder=Path(folder),
                runs=options.runs,
                slow_runs=options.stock_runs,
                slow_kinds=(STOCK,),
                budget=budget,
                on_progress=keep,
            )
            keep(harness.measure(), "done")
        self.write_up()

    def _profile(self, workload: Workload) -> None:
        workload.latent = workload.latent[:, :, :_PROFILED_LATENTS]
        case = replace(workload.case, latents=workload.latent.shape[2])
        arms = profile_arms(workload, self._options.profiled, self._options.settings)
        self._results.add("profiles", {"case": str(case), "arms": arms})
        for arm in arms:
            told = f"{arm['utilisation']:.2%} busy" if "utilisation" in arm else arm["error"]
            self._log(f"{case}: {arm['arm']}: {told}")

    def _timeline(self, workload: Workload) -> None:
        """One run with a single slot and one with all, drawn on one time scale; the latter as a trace, too."""
        workload.latent = workload.latent[:, :, :_PROFILED_LATENTS]
        settings, saving = self._options.settings.for_saving(self._options.one_saving), self._options.one_saving
        runs = []
        for title, depth in (("sequential", 1), ("asynchronous", settings.buffer_depth)):
            # The faster decoder proves itself in the first one, and is compared once more in its first use.
            for _ in range(3):
                with tempfile.TemporaryDirectory(dir=self._options.scratch) as folder:
                    pipeline = asynchronous(
                        workload, [saving.sink(Path(folder), "timeline")], replace(settings, buffer_depth=depth)
                    )
            runs.append((f"{title}, {saving.name}", pipeline.recorder.spans, pipeline.report))
        stem = f"timeline-{workload.case.model}"
        save_timelines(self._options.out / f"{stem}.png", runs)
        _, spans, report = runs[-1]
        write_chrome_trace(self._options.out / f"{stem}.json", spans, report=report)
        self._log(f"{workload.case}: {stem}.png, {stem}.json")

    def _memory(self) -> None:
        names = {kind: name for name, kind in KINDS.items()}
        for case in self._options.cases[:1]:
            for kind in MEASURED:
                for latents in self._options.memory_latents:
                    long = replace(case, latents=latents)
                    self._start("memory", "memory", {"case": str(long), "kind": names[kind]})

    def _variants(self) -> None:
        for case in self._options.cases[:1]:
            for variant in VARIANTS:
                task = {"case": str(case), "variant": variant, "runs": min(3, self._options.runs)}
                self._start("variants", "variant", task)

    def _start(self, section: str, task: str, details: dict[str, Any]) -> None:
        """Run a task in a process of its own and keep its result."""
        if not self._budget.allows(0):
            self._log(f"{section}: left out, the time budget was spent")
            return
        settings = {
            "task": task,
            "device": str(self._options.device),
            "saving": self._options.one_saving.name,
            "chunk_size": self._options.settings.chunk_size,
            "buffer_depth": self._options.settings.buffer_depth,
        }
        entry = children.start(self._child, {**settings, **details}, timeout=self._budget.left)
        self._results.add(section, entry)
        told = entry.get("error") or ", ".join(f"{key} {entry[key]}" for key in _TOLD if key in entry)
        self._log(f"{section}: {', '.join(str(value) for value in details.values())}: {told}")

    def _log(self, text: str) -> None:
        self._print(f"[{time.monotonic() - self._began:6.1f} s] {text}")

    def _share(self, part: str, cases_left: int) -> Budget:
        """The time for one case of a part, such that the parts behind it get theirs."""
        weights = {name: weight for name, weight in PARTS.items() if name in self._options.parts}
        return self._budget.share(weights[part] / sum(weights.values()) / cases_left)


#: What the log tells of a child's result.
_TOLD = ("device_peak", "resident_peak", "mean", "hash")
