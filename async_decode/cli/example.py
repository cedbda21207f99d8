"""``example``: put the demo's VAE and latent where ComfyUI, and the example workflow, look for them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ..demo import LATENT_PATH, WEIGHTS_PATH
from ..errors import AsyncDecodeError

#: Where each file goes, inside of ComfyUI's folder; the example workflow knows them under these names.
VAE_FILE = Path("models", "vae", "async-vae-decode-demo.safetensors")
LATENT_FILE = Path("input", "async-vae-decode-demo.latent")
#: ``ComfyUI/custom_nodes/<the pack>/async_decode/cli/example.py``
_COMFYUI = 4


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``example`` to the command line."""
    parser = subparsers.add_parser(
        "example",
        help="copy the demo's VAE and latent into ComfyUI, for the example workflow decode_saved_latent",
        description="Copies the embedded VAE and the embedded latent into ComfyUI's models/vae and input, where the "
        "example workflow decode_saved_latent finds them. Nothing is downloaded.",
    )
    parser.add_argument(
        "comfyui",
        type=Path,
        nargs="?",
        help="ComfyUI's folder, the one that holds models and input (default: the one that the pack is installed in)",
    )


def run(options: argparse.Namespace) -> int:
    """Copy both files and say where they are; return the exit status."""
    comfyui = options.comfyui or Path(__file__).parents[_COMFYUI]
    for file in (VAE_FILE, LATENT_FILE):
        folder = comfyui / file.parent
        if not folder.is_dir():
            raise AsyncDecodeError(
                f"{comfyui} is no folder of ComfyUI's, it holds no {file.parent.as_posix()}: name the one that does, "
                "as in: python -m async_decode example /path/to/ComfyUI"
            )
    for source, file in ((WEIGHTS_PATH, VAE_FILE), (LATENT_PATH, LATENT_FILE)):
        shutil.copyfile(source, comfyui / file)
        print(comfyui / file)
    print("Now open the example decode_saved_latent in ComfyUI (press R there if it is open already).")
    return 0
