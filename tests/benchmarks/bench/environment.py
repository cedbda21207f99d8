"""What a result was measured with: versions, devices, the commit. Nothing that names a person or a place."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import features

import async_decode
from async_decode.errors import FFmpegError
from async_decode.sinks.cores import usable_cores
from async_decode.sinks.ffmpeg import find_ffmpeg

_PACKAGES = ("numpy", "pillow", "diffusers", "imageio-ffmpeg", "av", "safetensors", "comfy-kitchen", "comfy-aimdo")
#: Options whose value is a path on somebody's machine.
_PATHS = ("--out", "--scratch", "--comfyui")


def describe(device: torch.device) -> dict[str, Any]:
    """Everything about this machine that a time may depend on."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "async_decode": async_decode.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(_memory() / 2**30, 1),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "zlib": f"{features.version('zlib')}{' (zlib-ng)' if _has_zlib_ng() else ''}",
        "ffmpeg": _ffmpeg(),
        "device": _device(device),
    }


def command_line(program: str, arguments: Sequence[str]) -> str:
    """The command that gave a result, with the last part only of every path."""
    shown = list(arguments)
    for place, argument in enumerate(shown):
        option, separator, value = argument.partition("=")
        if option in _PATHS and separator:
            shown[place] = f"{option}={Path(value).name}"
        elif argument in _PATHS and place + 1 < len(shown):
            shown[place + 1] = Path(shown[place + 1]).name
    return f"python {program} {shlex.join(shown)}".rstrip()


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"type": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": device.type,
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "clocks": _output(
            "nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm,power.limit,temperature.gpu", "--format=csv,noheader"
        ),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


def _commit() -> str | None:
    """The commit of the checkout that the package is in, if it is in one; ``+`` where files differ from it.

    ``ASYNC_DECODE_COMMIT`` tells it for a copy whose git does not know.
    """
    if told := os.environ.get("ASYNC_DECODE_COMMIT"):
        return told
    package = str(Path(async_decode.__file__).parent)
    commit = _output("git", "-C", package, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    changed = _output("git", "-C", package, "status", "--porcelain", "--untracked-files=no", "--", package)
    return commit + ("+" if changed else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has_zlib_ng() -> bool:
    # Several times as fast as zlib: the PNG numbers of two machines cannot be compared without it.
    return bool("zlib_ng" in features.features and features.check_feature("zlib_ng"))


def _ffmpeg() -> str | None:
    try:
        text = _output(find_ffmpeg(), "-version")
    except FFmpegError:
        return None
    return text.splitlines()[0].partition(" Copyright")[0] if text else None


def _output(*command: str) -> str | None:
    """What a command prints; ``None`` where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
