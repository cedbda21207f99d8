"""Where the saving nodes write, under which names, and what they write into the files beside the frames."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.v0_0_2 import io

from ..async_decode import SinkError
from ..async_decode.sinks.files import OutputNames

#: Save Image's, for those who delete what is in the widget.
DEFAULT_PREFIX = "ComfyUI"
#: The largest spool that can be asked for.
MOST_SPOOL_GB = 10_000.0


def filename_prefix_input(default: str) -> io.Input:
    """The input that every saving node has."""
    return io.String.Input(
        "filename_prefix",
        default=default,
        tooltip="The prefix of the file to save, folders inside the output folder included. It may hold what Save "
        "Image's prefix may, such as %date:yyyy-MM-dd% or %Empty Latent Image.width%.",
    )


def spool_input() -> io.Input:
    """How much may wait on disk; every saving node has it."""
    return io.Float.Input(
        "spool_gb",
        default=0.0,
        min=0.0,
        max=MOST_SPOOL_GB,
        step=0.5,
        optional=True,
        tooltip="Disk space in GB, next to the files, for frames that a slow encoder has no time for yet: decoding "
        "does not wait for it, and the GPU is free earlier. The frames are packed without loss and are gone from the "
        "disk when they are saved; 1 GB of the disk stays free. Most useful with finish in the background. 0: none; "
        "decoding waits when the memory for frames is full.",
    )


def check_prefix(filename_prefix: str | None) -> None:
    """Refuse a prefix that no file can have, or that leads out of ComfyUI's output folder, without making any folder.

    Args:
        filename_prefix: ``None``: it is connected, and nobody knows it yet.

    Raises:
        SinkError: it does.
    """
    if filename_prefix is None:
        return
    _check_text(filename_prefix)
    output = os.path.abspath(folder_paths.get_output_directory())
    folder = os.path.abspath(os.path.join(output, os.path.dirname(os.path.normpath(filename_prefix))))
    # Never one without the other, not even on different drives.
    if folder != output and not folder.startswith(os.path.join(output, "")):
        raise _leads_out(filename_prefix)


def _check_text(filename_prefix: str) -> None:
    try:
        is_storable = b"\0" not in os.fsencode(filename_prefix)
    except UnicodeEncodeError:
        is_storable = False
    if not is_storable:
        raise SinkError(f"filename_prefix {filename_prefix!r} holds what no file name can hold; use another name")
    if os.path.basename(os.path.normpath(filename_prefix)) == os.pardir:
        raise _leads_out(filename_prefix)


def _leads_out(filename_prefix: str) -> SinkError:
    return SinkError(
        f"filename_prefix {filename_prefix!r} leads out of the output folder; use a name, or a subfolder inside it"
    )


@dataclass(frozen=True)
class Target:
    """A place for files in ComfyUI's output folder.

    Attributes:
        folder: the folder, which exists.
        filename: the prefix without its folder and with its variables resolved.
        counter: the next number that stock would use.
        subfolder: the folder, relative to the output folder, as ComfyUI's views name it.
    """

    folder: str
    filename: str
    counter: int
    subfolder: str

    @property
    def names(self) -> OutputNames:
        """The names of the files there, from the counter on."""
        return OutputNames(self.folder, self.filename, first=self.counter)


def target_of(filename_prefix: str, width: int, height: int) -> Target:
    """Resolve ``filename_prefix`` as stock's saving nodes do.

    Args:
        filename_prefix: may hold folders and the variables that stock knows, such as ``%date:yyyy-MM-dd%``; an empty
            one is ``DEFAULT_PREFIX``.
        width: of the frames, in pixels; ``height`` likewise.

    Raises:
        SinkError: no file can have that prefix, or it leads out of the output folder, or its folder cannot be made or
            written to.
    """
    _check_text(filename_prefix)
    output = folder_paths.get_output_directory()
    if os.path.normpath(filename_prefix.strip()) == ".":
        filename_prefix = DEFAULT_PREFIX
    try:
        folder, filename, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, output, width, height
        )
    except OSError as error:
        raise SinkError(
            f"filename_prefix {filename_prefix!r}: its folder cannot be made ({error.strerror or error}); choose "
            "another prefix, or give ComfyUI the right to write there"
        ) from error
    except Exception as error:
        # Stock raises a bare Exception for a path outside of the output folder.
        raise _leads_out(filename_prefix) from error
    if not os.access(folder, os.W_OK):
        raise SinkError(
            f"filename_prefix {filename_prefix!r}: the folder {folder} cannot be written to; choose another prefix, or "
            "give ComfyUI the right to write there"
        )
    return Target(folder, filename, counter, subfolder)


def saved_at(path: Path) -> dict[str, str]:
    """A file in the output folder, as ComfyUI's views name it."""
    folder = os.path.relpath(path.parent, folder_paths.get_output_directory())
    return {
        "filename": path.name,
        "subfolder": "" if folder == os.curdir else folder,
        "type": io.FolderType.output.value,
    }


def metadata_of(hidden: Any) -> dict[str, str]:
    """Prompt and workflow as text, under stock's keys; empty with ``--disable-metadata``.

    Args:
        hidden: the node's hidden inputs (``prompt`` and ``extra_pnginfo``).
    """
    if args.disable_metadata:
        return {}
    texts = {}
    if hidden.prompt is not None:
        texts["prompt"] = json.dumps(hidden.prompt)
    for key, value in (hidden.extra_pnginfo or {}).items():
        texts[key] = json.dumps(value)
    return texts
