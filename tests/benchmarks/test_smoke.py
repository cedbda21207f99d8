"""The benchmark, small: that every part runs, what it writes, and that unequal frames make it fail. No times."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from async_decode.demo.model import DemoVAE
from async_decode.taps import VideoDecoder
from tests.benchmarks.bench import arms, harness, memory, trace
from tests.benchmarks.bench.command import add_options, run_suite
from tests.benchmarks.bench.host import HostSizes, measure_host
from tests.benchmarks.bench.saving import Saving
from tests.benchmarks.bench.workload import LATENTS, Case, Loaders, Model, Workload

CASE = Case.parse("narrow:fp32:16x24:3")
SAVINGS = [Saving.parse(name) for name in ("png4", "png1@2/5", "h264-veryfast", "image")]
CPU = torch.device("cpu")


def narrow(device: torch.device, dtype: torch.dtype) -> Model:
    """The demo's VAE in its own width, with weights that nobody trained."""
    torch.manual_seed(0)
    vae = DemoVAE().to(device, dtype).eval().requires_grad_(False)
    return Model(
        decoder=VideoDecoder(model=vae, decode=vae.decode, device=device, dtype=dtype, frames_of=lambda n: 4 * n - 3),
        latent_channels=16,
        pixels_per_latent=8,
    )


def drifting(device: torch.device, dtype: torch.dtype) -> Model:
    """A model whose every decode gives slightly other frames."""
    model = narrow(device, dtype)
    decodes = iter(range(1, 10**6))

    def decode(latent: Tensor) -> Tensor:
        return model.decoder.decode(latent + 0.05 * next(decodes))

    return dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, decode=decode))


LOADERS: Loaders = {"narrow": narrow, "drifting": drifting}


def options(out: Path, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    parser.set_defaults(case=[CASE])
    return parser.parse_args(["--out", str(out), "--device", "cpu", *arguments])


def run(out: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = run_suite(options(out, *arguments), LOADERS, child=["false"], arguments=arguments)
    return status, json.loads((out / "results.json").read_text())


def test_wall_runs_every_arm_and_finds_equal_frames(tmp_path: Path) -> None:
    status, data = run(tmp_path, "--runs", "2", "--save", "png4,png1@2/5,h264-veryfast,image")

    (case,) = data["cases"]
    assert status == 0
    assert case["frames"] == 9
    assert [arm["arm"] for arm in case["arms"]] == [
        "decode only",
        "decode only, faster",
        "decode and finish",
        *(
            f"{kind}, {saving.name}"
            for kind in ("sequential", "stock", "asynchronous, stock decoder", "asynchronous")
            for saving in SAVINGS
        ),
    ]
    assert all(len(arm["seconds"]) == 2 and not arm["note"] for arm in case["arms"])
    assert all(arm["min"] <= arm["mean"] <= arm["max"] for arm in case["arms"])
    assert case["frames_equal"] == {"uint8": True, "float32": True}
    assert case["files_equal"] == {"png4": True, "png1": True, "h264-veryfast": True}
    files = {arm["arm"]: arm["files"] for arm in case["arms"]}
    assert files["asynchronous, png4"] == files["stock, png4"] == 9
    assert files["sequential, h264-veryfast"] == 1 and files["asynchronous, image"] == 0
    assert "asynchronous, png1@2/5" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 0


def test_results_name_versions_and_no_paths(tmp_path: Path) -> None:
    out = tmp_path / "somebody" / "results"
    _, data = run(out, "--runs", "1", "--arms", "decode", "--out", str(out), "--scratch", str(tmp_path))

    assert data["environment"]["torch"] == torch.__version__
    assert data["environment"]["device"] == {"type": "cpu"}
    assert "--out results" in data["command"]
    assert str(tmp_path) not in json.dumps(data)


def test_frames_that_differ_between_arms_fail_the_run(tmp_path: Path) -> None:
    parsed = options(tmp_path, "--runs", "1", "--save", "png4", "--arms", "decode,async")
    parsed.case = [dataclasses.replace(CASE, model="drifting")]

    status = run_suite(parsed, LOADERS, child=["false"], arguments=())

    data = json.loads((tmp_path / "results.json").read_text())
    assert status == 1
    assert data["cases"][0]["frames_equal"] == {"uint8": False}
    assert "DIFFERENT" in (tmp_path / "results.md").read_text()


def test_a_model_that_cannot_be_loaded_fails_the_run_and_costs_no_other(tmp_path: Path) -> None:
    def missing(device: torch.device, dtype: torch.dtype) -> Model:
        raise ImportError("no such package")

    parsed = options(tmp_path, "--runs", "1", "--arms", "decode")
    parsed.case = [dataclasses.replace(CASE, model="missing"), CASE]

    status = run_suite(parsed, {**LOADERS, "missing": missing}, child=["false"], arguments=())

    data = json.loads((tmp_path / "results.json").read_text())
    assert status == 1
    assert "no such package" in data["failures"][0]["error"]
    assert [case["model"] for case in data["cases"]] == ["narrow"]


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 64])
def test_all_arms_make_the_same_frames_for_any_chunk_size(chunk_size: int) -> None:
    workload = Workload(CASE, LOADERS, CPU)
    made = arms.make_arms(workload, list(arms.KINDS.values()), SAVINGS, arms.Settings(chunk_size, buffer_depth=2))

    with torch.inference_mode():
        hashes = [arm.check().hashes for arm in made]

    assert len({found["uint8"] for found in hashes}) == 1
    assert len({found["float32"] for found in hashes if "float32" in found}) == 1


def test_results_are_on_disk_after_every_step(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    path = tmp_path / "results.json"
    load = LOADERS["narrow"]

    def watched(device: torch.device, dtype: torch.dtype) -> Model:
        model = load(device, dtype)

        def decode(latent: Tensor) -> Tensor:
            cases = json.loads(path.read_text())["cases"]
            seen.append([len(arm["seconds"]) for arm in cases[0]["arms"]] if cases else [])
            return model.decoder.decode(latent)

        return dataclasses.replace(model, decoder=dataclasses.replace(model.decoder, decode=decode))

    run_suite(
        options(tmp_path, "--runs", "2", "--arms", "decode,finish"), {"narrow": watched}, child=["false"], arguments=()
    )

    # One decode for each warm-up, then each round in the other order.
    assert seen[-4:] == [[0, 0], [1, 0], [1, 1], [1, 2]]


def arm_of(kind: str, log: list[str]) -> arms.Arm:
    def timed(_folder: Path) -> arms.Outcome:
        log.append(kind)
        return arms.Outcome()

    return arms.Arm(kind, None, timed, lambda: arms.Check({"uint8": "0"}, 1.0))


def test_rounds_alternate_and_slow_arms_run_less(tmp_path: Path) -> None:
    log: list[str] = []
    measured = harness.Harness(
        [arm_of("a", log), arm_of("slow", log), arm_of("b", log)],
        device=CPU,
        folder=tmp_path,
        runs=3,
        slow_runs=1,
        slow_kinds=["slow"],
        budget=harness.Budget(1e6),
    ).measure()

    assert log == ["a", "slow", "b", "b", "a", "a", "b"]
    assert [len(result.seconds) for result in measured] == [3, 1, 3]


def test_a_spent_budget_ends_the_runs_with_a_note(tmp_path: Path) -> None:
    log: list[str] = []
    now = [0.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    (result,) = harness.Harness(
        [arm_of("a", log)], device=CPU, folder=tmp_path, runs=50, budget=harness.Budget(10, clock=clock)
    ).measure()

    assert 1 <= len(result.seconds) < 50
    assert "of 50 runs: the time budget was spent" in result.note


def test_statistics_interpolate_p99() -> None:
    found = harness.statistics([3.0, 1.0, 2.0])

    assert (found["min"], found["mean"], found["max"]) == (1.0, 2.0, 3.0)
    assert found["p99"] == pytest.approx(2.98)


def event(start: float, end: float, name: str, category: str) -> dict[str, Any]:
    return {"ph": "X", "ts": start, "dur": end - start, "name": name, "cat": category, "tid": 7}


def test_utilisation_is_the_union_of_kernels_without_copies() -> None:
    exported = {
        "traceEvents": [
            event(0, 400, "conv", "kernel"),
            event(300, 500, "norm", "kernel"),
            event(900, 1000, "conv", "kernel"),
            event(350, 450, "Memcpy DtoH (Device -> Pinned)", "gpu_memcpy"),
            event(600, 700, "Memcpy DtoH (Device -> Pinned)", "gpu_memcpy"),
            event(600, 700, "Memset (Device)", "gpu_memset"),
            event(680, 720, "Memcpy DtoD (Device -> Device)", "gpu_memcpy"),
            event(500, 880, "cudaEventSynchronize", "cuda_runtime"),
        ]
    }

    found = trace.analyse(trace.read_chrome_trace(exported))

    assert found["utilisation"] == pytest.approx(0.6)
    assert found["utilisation_with_copies_within"] == pytest.approx(0.72)
    assert (found["copies_to_host"], found["copies_overlapping_kernels"]) == (2, 1)
    assert found["copy_overlapped"] == pytest.approx(0.5)
    (gap,) = found["gaps"]["longest"]
    assert (gap["at_ms"], gap["ms"]) == (0.5, 0.4)
    assert gap["cuda_calls"] == ["thread 7: cudaEventSynchronize, 0.38 ms"]


def test_a_profile_without_a_gpu_says_so_for_every_arm(tmp_path: Path) -> None:
    _, data = run(tmp_path, "--parts", "profile", "--save", "image,png4,h264-veryfast,png1")

    profiled = data["profiles"][0]["arms"]
    assert [arm["arm"] for arm in profiled] == [
        "decode only",
        "decode only, faster",
        "sequential, h264-veryfast",
        "asynchronous, h264-veryfast",
        "sequential, png4",
        "asynchronous, png4",
    ]
    assert all("no kernels" in arm["error"] for arm in profiled)


def test_a_timeline_shows_one_slot_beside_several(tmp_path: Path) -> None:
    status, data = run(tmp_path, "--parts", "timeline", "--save", "png4", "--chunk-size", "2", "--buffer-depth", "4")

    assert status == 0 and not data["cases"]
    with Image.open(tmp_path / "timeline-narrow.png") as picture:
        assert picture.width == 2160
    trace_file = json.loads((tmp_path / "timeline-narrow.json").read_text())
    report = trace_file["otherData"]["report"]
    assert (report["buffer_depth"], report["chunk_size"], report["frames"]) == (4, 2, 9)
    saved = [event for event in trace_file["traceEvents"] if event.get("cat") == "save"]
    assert sum(event["args"]["frames"] for event in saved) == 9


def test_memory_of_an_arm(tmp_path: Path) -> None:
    found = memory.measure(CASE, arms.ASYNCHRONOUS, SAVINGS[0], arms.Settings(), LOADERS, CPU)

    assert found["frames"] == 9
    assert found["resident_peak"] > found["resident_before"] // 2 > 0


def test_host_pairs_make_the_same_and_print_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = HostSizes(height=48, width=64, frames=6, chunk_height=32, chunk_width=32, chunks=5, repeats=2)

    entries = list(measure_host(print, sizes))

    assert [entry["what"].partition(",")[0] for entry in entries] == [
        "pipeline",
        "finish",
        "image",
        "png4",
        "h264-veryfast",
        "mp4 crf 23",
        "mp4 crf 19",
    ]
    assert all(entry["equal"] for entry in entries)
    assert all(entry["ours_file_bytes"] > 500 < entry["theirs_file_bytes"] for entry in entries[3:])
    assert all(len(entry["ours_seconds"]) == len(entry["theirs_seconds"]) == 2 for entry in entries)
    assert capsys.readouterr().out.count("ratio") == len(entries)


def test_frames_of_a_soft_latent_compress_better_than_those_of_noise(tmp_path: Path) -> None:
    sizes, hashes = {}, set()
    for latent in LATENTS:
        parsed = options(tmp_path, "--runs", "1", "--arms", "async", "--save", "png4", "--latent", latent)
        parsed.case = [dataclasses.replace(CASE, height=128, width=128)]
        assert run_suite(parsed, LOADERS, child=["false"], arguments=()) == 0
        (case,) = json.loads((tmp_path / "results.json").read_text())["cases"]
        sizes[case["latent"]] = case["arms"][0]["file_bytes"]
        hashes.add(case["arms"][0]["hashes"]["uint8"])

    assert sizes["soft"] < 0.8 * sizes["noise"]
    assert len(hashes) == 2


@pytest.mark.parametrize("text", ["narrow", "narrow:fp64:16x16:3", "narrow:fp32:16:3", "narrow:fp32:16x0:3"])
def test_a_case_that_names_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="got"):
        Case.parse(text)


def test_a_size_that_the_model_cannot_decode_to_is_an_error() -> None:
    with pytest.raises(ValueError, match="multiples of 8 pixels, got 20x24"):
        Workload(dataclasses.replace(CASE, height=20), LOADERS, CPU)


def refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match="got"):
        parse(text)


def test_a_way_of_saving_that_there_is_none_of_is_an_error() -> None:
    for text in ("jpg", "png10", "h264-warp", "png4@", "image/x"):
        refused(Saving.parse, text)
