"""Values of options, checked while the command line is read: one line, before anything runs."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import torch


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how a command is used, ``--help`` tells."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text}")
        return int(text)

    return parse


def gigabytes(text: str) -> float:
    """The type of an option that takes disk space in GB."""
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise argparse.ArgumentTypeError(f"expected 0 or more GB, got {text}")
    return size


def frames_a_second(text: str) -> float | Fraction:
    """The type of an option that takes a frame rate: 24, 23.976 or 30000/1001."""
    try:
        number = Fraction(text) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected frames a second, such as 24 or 30000/1001, got {text}")
    return number


def a_folder(text: str) -> Path:
    """The type of an option that takes a folder which may get a number behind its name: it must have a name."""
    folder = Path(text)
    if folder.name in ("", ".."):
        folder = folder.resolve()
    if not text or not folder.name:
        raise argparse.ArgumentTypeError(f"expected a folder with a name, got {text!r}")
    return folder


#: What Python calls otherwise than the command line.
_FLAGS = {"class_name": "vae-class", "config": "vae-config", "repeats": "loops"}


def in_flags(message: str) -> str:
    """``message``, which tells Python users what to write, as it is written on the command line."""

    def flag(found: re.Match[str]) -> str:
        name, value = found.group(1), found.group(2).strip("'")
        value = {"True": "yes", "False": "no"}[value] if name == "normalized" and value in ("True", "False") else value
        return f"--{_FLAGS.get(name, name).replace('_', '-')}" + ("" if value == "True" else f" {value}")

    names = "fps|overwrite|normalized|ray|workers|device|sigma_data|tiling|dtype|class_name|config|repeats|writers"
    names += "|quality|preset|compression|color_space|trim_to_sound|ping_pong|decode_timestep|decode_noise_scale|seed"
    message = re.sub(rf"\b({names})=('[^']*'|[\w./-]*\w)", flag, message)
    return re.sub(r"\bdecode_(timestep|noise_scale)\b", lambda found: f"--{found[0].replace('_', '-')}", message)


def a_device(text: str) -> torch.device:
    """The type of an option that takes a device, which must be one that torch can use here."""
    try:
        device = torch.device(text)
        # What has no memory (meta), or no driver, fails here.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        there = ["cpu"]
        accelerator = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
        if accelerator is not None:
            there.append(accelerator.type)
        raise argparse.ArgumentTypeError(
            f"torch has no device {text!r} here; there is {' and '.join(there)}"
        ) from error
    return device
