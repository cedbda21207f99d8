"""Stands for VideoHelperSuite's Video Combine: its inputs, of which some are there by format in the real one."""

from __future__ import annotations

from typing import Any


class VideoCombine:
    """Saves nothing; tests look at what a workflow says, not at what it does."""

    CATEGORY = "tests"
    FUNCTION = "combine"
    OUTPUT_NODE = True
    RETURN_TYPES = ("VHS_FILENAMES",)
    RETURN_NAMES = ("Filenames",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        formats = ["image/gif", "image/webp", "video/h264-mp4", "video/h265-mp4", "video/av1-webm", "video/webm"]
        return {
            "required": {
                "images": ("IMAGE",),
                "frame_rate": ("FLOAT", {"default": 8, "min": 1, "step": 1}),
                "loop_count": ("INT", {"default": 0, "min": 0, "max": 100, "step": 1}),
                "filename_prefix": ("STRING", {"default": "AnimateDiff"}),
                "format": (formats, {"default": "video/h264-mp4"}),
                "pix_fmt": (["yuv420p", "yuv420p10le"],),
                "crf": ("INT", {"default": 19, "min": 0, "max": 100, "step": 1}),
                "save_metadata": ("BOOLEAN", {"default": True}),
                "trim_to_audio": ("BOOLEAN", {"default": False}),
                "pingpong": ("BOOLEAN", {"default": False}),
                "save_output": ("BOOLEAN", {"default": True}),
            },
            "optional": {"audio": ("AUDIO",), "meta_batch": ("VHS_BatchManager",), "vae": ("VAE",)},
        }

    def combine(self, **inputs: Any) -> tuple[tuple[bool, list[str]]]:
        return ((True, []),)
