"""Where a program without a folder of its own, such as ComfyUI's, keeps what was proven."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path | None:
    """The folder in the user's cache where verdicts are kept; ``None`` where the user has no home.

    ``%LOCALAPPDATA%`` on Windows, ``~/Library/Caches`` on macOS, elsewhere ``$XDG_CACHE_HOME`` or ``~/.cache``; in it
    ``async-vae-decode/decoders``. It is not made here.
    """
    named = os.environ.get({"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME"), "")
    # XDG: a path that is not absolute is to be left out.
    if os.path.isabs(named):
        return Path(named, "async-vae-decode", "decoders")
    try:
        home = Path.home()
    except RuntimeError:
        return None
    usual = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    return home / usual / "async-vae-decode" / "decoders"
