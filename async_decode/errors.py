"""The errors that this package raises on purpose."""

from __future__ import annotations


class AsyncDecodeError(Exception):
    """Base of every error below: its message names the value and the remedy."""


class DecodeError(AsyncDecodeError):
    """The latent, the VAE or what the VAE returned cannot be used."""


class SinkError(AsyncDecodeError):
    """Frames could not be written."""


class FFmpegError(SinkError):
    """ffmpeg is missing, could not be started, or failed; the message carries the end of what it printed."""


class Cancelled(AsyncDecodeError):
    """The run was cancelled from outside."""
