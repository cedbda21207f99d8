"""ComfyUI's entry point to Async VAE Decode, and nothing else."""

try:
    from comfy_api.v0_0_2 import ComfyExtension as _  # noqa: F401
except ImportError as error:
    raise ImportError("Async VAE Decode needs ComfyUI 0.3.64 or newer: please update ComfyUI") from error

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
