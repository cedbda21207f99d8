"""Finds what the browser tests need beside a ComfyUI: playwright, and a Chromium that is installed on the machine."""

from __future__ import annotations

import importlib.util
import os
import shutil

VARIABLE = "CHROMIUM"
#: Under which names distributions install it.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
#: No sandbox, because tests may run as root; nothing that talks to the network by itself.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    # A test talks to its server and to nobody else. (A route in the browser's context would switch its cache off.)
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def find() -> str | None:
    """The browser's path, from ``CHROMIUM`` or from ``PATH``."""
    named = os.environ.get(VARIABLE)
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str | None:
    """Why the browser tests cannot run; None when they can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed, which drives the browser"
    if find() is None:
        return f"no Chromium on this machine: install one, or name its program in {VARIABLE}"
    return None
