"""``python -m async_decode``: see ``--help``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .errors import AsyncDecodeError

_COMMANDS = ("demo", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m async_decode", description="Decode, copy and save video at once.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    try:
        modules = {name: importlib.import_module(f".cli.{name}", __package__) for name in _COMMANDS}
    except ModuleNotFoundError as error:
        print(f'{error.name} is not installed: pip install "async-vae-decode[cli]"', file=sys.stderr)
        return 2
    for module in modules.values():
        module.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        return int(modules[options.command].run(options))
    except (AsyncDecodeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
