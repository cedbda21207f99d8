"""How a clip is decoded: the word for it that taps, the pipeline and the report share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Decoding:
    """How a clip is decoded, as the report tells it.

    Attributes:
        kind: ``tapped`` (pieces taken while the VAE's own decode runs), ``batches`` (images, some at a time),
            ``windows`` (overlapping stretches of time, blended), ``tiles`` (overlapping parts of the frames, blended),
            ``whole`` (the clip in one go, then cut), ``images`` (nothing is decoded: the frames were there already).
        exact: the frames are bit-equal to those of the VAE's own decode.
        bounded: device memory does not grow with the clip, but for its latent.
        detail: one line for people, for example why it is not exact. Default: ``""``.
    """

    kind: Literal["tapped", "batches", "windows", "tiles", "whole", "images"]
    exact: bool
    bounded: bool
    detail: str = ""

    def after(self, earlier: Decoding | None) -> Decoding:
        """The same for a clip of which an earlier part may have been decoded otherwise."""
        if earlier is None or earlier == self:
            return self
        exact, bounded = earlier.exact and self.exact, earlier.bounded and self.bounded
        return Decoding(self.kind, exact, bounded, f"{self.detail}; earlier parts of the clip otherwise".lstrip("; "))
