"""Which frames of a clip a file shows, and in what order: once, again, backwards, or only as long as its sound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Playback:
    """How often and which way a clip plays.

    Attributes:
        repeats: how often its frames follow once more.
        ping_pong: it plays backwards too, without its first and last frame, which would be seen twice.
        limit: the most frames of the file; ``None``: all.

    Raises:
        ValueError: ``repeats`` is less than 0.
    """

    repeats: int = 0
    ping_pong: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.repeats < 0:
            raise ValueError(f"expected 0 or more repeats, got {self.repeats}")

    @property
    def is_once(self) -> bool:
        """No frame is wanted twice."""
        return not self.repeats and not self.ping_pong

    def is_full(self, frames: int) -> bool:
        """Whether a file that has so many frames takes no more."""
        return self.limit is not None and frames >= self.limit

    def rest(self, frames: int) -> Iterator[int]:
        """The numbers of the frames that follow when the ``frames`` of the clip have been shown once."""
        back = range(frames - 2, 0, -1) if self.ping_pong else range(0)
        yield from back
        for _ in range(self.repeats):
            yield from range(frames)
            yield from back
