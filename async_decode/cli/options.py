"""Values of options, checked while the command line is read: one line, before anything runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
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
