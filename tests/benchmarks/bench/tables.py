"""Results as Markdown: the tables that the pages quote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .arms import STOCK
from .results import over_decode_only


def markdown(data: dict[str, Any]) -> str:
    """All of a result file that there is."""
    parts = [_environment(data)]
    parts += [_case(case) for case in data["cases"]]
    parts += [_profiles(profile) for profile in data["profiles"]]
    if data["memory"]:
        parts.append(_memory(data["memory"]))
    if data["variants"]:
        parts.append(_variants(data["variants"]))
    if data["host"]:
        parts.append(_host(data["host"]))
    return "\n\n".join(parts) + "\n"


def _environment(data: dict[str, Any]) -> str:
    about = data["environment"]
    device = about["device"]
    where = device.get("name", "CPU")
    if device["type"] == "cuda":
        where += f" (CUDA {device['cuda']}, cuDNN {device['cudnn']}, driver {device['driver']})"
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    return (
        f"`{data['command']}`\n\n"
        f"{where}; {about['cores']} cores of {about['cpu']}, {about['memory_gib']} GiB; Python {about['python']}, "
        f"torch {about['torch']}, {packages}, zlib {about['zlib']}, {about['ffmpeg'] or 'no ffmpeg'}; "
        f"async_decode {about['async_decode']} ({about['commit'] or 'no commit'}), {about['date']}"
    )


def _case(case: dict[str, Any]) -> str:
    rows = []
    for arm in case["arms"]:
        if not arm["runs"]:
            rows.append([arm["arm"], "0", "", "", "", "", "", arm["note"]])
            continue
        ratio = over_decode_only(case, arm)
        report = arm["report"] or {}
        rows.append(
            [
                arm["arm"],
                str(arm["runs"]),
                f"{arm['min']:.3f}",
                f"{arm['mean']:.3f}",
                f"{arm['p99']:.3f}",
                "" if ratio is None else f"{ratio:.3f}",
                f"{arm['file_bytes'] / case['frames'] / 1e3:.0f}" if arm["files"] else "",
                "; ".join(filter(None, [_waits(report), arm["note"]])),
            ]
        )
    same = ", ".join(f"{name}: {'equal' if equal else 'DIFFERENT'}" for name, equal in case["frames_equal"].items())
    files = ", ".join(f"{name}: {'equal' if equal else 'different'}" for name, equal in case["files_equal"].items())
    heading = f"### {case['case']}, {case['latent']} latent ({case['frames']} frames)"
    head = ["arm", "runs", "min s", "mean s", "P99 s", "over decode only", "kB a frame", ""]
    lines = [heading, "", _table(head, rows), "", f"Hashes of the frames in all arms: {same or 'none'}."]
    if any(arm["kind"] == STOCK for arm in case["arms"]):
        lines[-1] += f" Stock: {case['stock']}."
    if files:
        lines[-1] += f" Contents of the files in all arms: {files}."
    return "\n".join(lines)


def _waits(report: dict[str, Any]) -> str:
    if not report:
        return ""
    parts = [f"tail {report['tail_seconds'] * 1000:.0f} ms", f"stalled {report['stall_seconds'] * 1000:.0f} ms"]
    if report["first_frame_seconds"] is not None:
        parts.append(f"first frame after {report['first_frame_seconds'] * 1000:.0f} ms")
    return ", ".join(parts)


def _profiles(profile: dict[str, Any]) -> str:
    rows = []
    for arm in profile["arms"]:
        if "error" in arm:
            rows.append([arm["arm"], arm["error"], "", "", "", "", "", ""])
            continue
        overlapped = arm["copy_overlapped"]
        rows.append(
            [
                arm["arm"],
                f"{arm['utilisation']:.2%}",
                f"{arm['utilisation_with_copies_within']:.2%}",
                f"{arm['span_ms']:.0f}",
                str(arm["kernels"]),
                f"{arm['copies_overlapping_kernels']} of {arm['copies_to_host']}",
                "" if overlapped is None else f"{overlapped:.0%}",
                f"{arm['gaps']['count']} ({arm['gaps']['total_ms']:.1f} ms)",
            ]
        )
    head = [
        "arm",
        "kernels busy",
        "with copies within the device",
        "first to last, ms",
        "kernels",
        "copies that overlap",
        "of their time",
        "gaps > 0.2 ms",
    ]
    return f"### Utilisation: {profile['case']}\n\n{_table(head, rows)}"


def _memory(entries: Sequence[dict[str, Any]]) -> str:
    rows = []
    for entry in entries:
        if "error" in entry:
            rows.append([entry["case"], entry.get("kind", ""), entry["error"], "", "", ""])
            continue
        rows.append(
            [
                entry["case"],
                entry["arm"],
                _mib(entry.get("device_peak"), entry["device_before"]),
                _mib(entry.get("device_reserved")),
                _mib(entry["resident_peak"]),
                _mib(entry["resident_peak"], entry["resident_before"]),
            ]
        )
    head = [
        "case",
        "arm",
        "device peak over the model, MiB",
        "reserved, MiB",
        "resident peak, MiB",
        "over the start, MiB",
    ]
    return f"### Memory\n\n{_table(head, rows)}"


def _variants(entries: Sequence[dict[str, Any]]) -> str:
    first = {entry["case"]: entry for entry in reversed(entries) if entry.get("variant") == "as it is"}
    rows = []
    for entry in entries:
        if "error" in entry:
            rows.append([entry["case"], entry["variant"], "", "", "", entry["error"]])
            continue
        plain = first.get(entry["case"], entry)
        same = "" if "hash" not in plain else ("equal" if plain["hash"] == entry["hash"] else "different")
        ratio = entry["mean"] / plain["mean"] if "mean" in plain else 1.0
        rows.append(
            [
                entry["case"],
                entry["variant"],
                f"{entry['min']:.3f}",
                f"{entry['mean']:.3f}",
                f"{ratio:.3f}",
                f"frames {same}, warm-up {entry['warm_up_seconds']:.1f} s",
            ]
        )
    head = ["case", "decoder", "min s", "mean s", "over as it is", ""]
    return f"### Settings of the decoder\n\n{_table(head, rows)}"


def _host(entries: Sequence[dict[str, Any]]) -> str:
    rows = [
        [
            entry["what"],
            f"{entry['ours']:.4f}",
            entry["beside"],
            f"{entry['theirs']:.4f}",
            f"{entry['ratio']:.3f}",
            # Earlier results do not say.
            *(
                f"{entry[name] / 2**20:.2f}" if entry.get(name) else ""
                for name in ("ours_file_bytes", "theirs_file_bytes")
            ),
        ]
        for entry in entries
    ]
    head = ["what", "s", "beside", "s", "ratio", "files, MiB", "theirs"]
    return f"### The host's part alone\n\n{_table(head, rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _mib(count: int | None, less: int = 0) -> str:
    return "" if count is None else f"{(count - less) / 2**20:.0f}"
