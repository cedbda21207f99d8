"""Kernels that do what torch does in several passes in one, rounding where torch rounds; each beside its reference.

Sizes of frames are not specialised on: every size would have its compilation, of seconds, and no load depends on them,
since those go along the channels.

Triton is optional: nothing outside of this folder imports it, and the files in it are imported only once
``why_not`` has said that they can be used.
"""

from __future__ import annotations

import functools

import torch


@functools.cache
def why_not(device: torch.device) -> str:
    """Why the kernels cannot run on ``device``, in words for the report; empty where they can."""
    if device.type != "cuda":
        return f"it runs on {device.type}, which has no kernels"
    if torch.version.hip is not None:
        return "nobody has tried the kernels on ROCm"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        return f"nobody has tried the kernels on a card of compute capability {major}.{minor}"
    try:
        import triton
        import triton.language.extra.libdevice
    except Exception as error:  # a broken installation raises anything
        return f"Triton is not installed ({type(error).__name__})"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 0):
        return f"Triton {triton.__version__} is too old: the kernels need 3.0"
    return ""
