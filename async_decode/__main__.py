"""``python -m async_decode``: see ``--help``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from . import __version__
from .cli.options import Parser
from .errors import AsyncDecodeError

_COMMANDS = ("decode", "demo")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    parser = Parser(prog="python -m async_decode", description="Decode, copy and save video at once.")
    parser.add_argument("--version", action="version", version=f"async-vae-decode {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True)
    arguments = sys.argv[1:] if arguments is None else arguments
    modules = {}
    for name in _COMMANDS:
        try:
            modules[name] = importlib.import_module(f".cli.{name}", __package__)
        except ModuleNotFoundError as error:
            if name in arguments[:1]:
                print(f'{error.name} is not installed: pip install "async-vae-decode[cli]"', file=sys.stderr)
                return 2
            # Named in the help, at least.
            subparsers.add_parser(name, help=f"needs {error.name}, which is not installed")
            continue
        modules[name].add_parser(subparsers)
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
