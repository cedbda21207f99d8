"""Ways to decode that need less and less memory: the next one takes over where the one before ran out of it.

Frames that have been delivered stay delivered. The next way leaves out clips and windows that are done, decodes again
what the missing frames depend on, and drops those of its frames that are there already.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..decoding import Decoding
from .base import Submit, Tap
from .tiles.temporal_windows import TemporalWindows

#: What torch says, on its various devices, when an allocation fails and the error has no type of its own.
_PHRASES = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory could not be allocated."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _PHRASES)


class Receiver(Protocol):
    """What a ladder has to know of the pipeline that it decodes into."""

    @property
    def received(self) -> int:
        """Frames taken so far; of the piece at which memory ran out it may have taken a part."""

    @property
    def error(self) -> BaseException | None:
        """What ended the run for good, such as the error of a sink."""


class Ladder(Tap):
    """Runs the first of several taps, and the next one whenever memory runs out.

    Args:
        taps: what to try, in this order, at least one.
        receiver: the pipeline that takes the frames.
        is_oom: tells whether an error is one of memory. Default: ``is_out_of_memory``.
        before_retry: called with the tap that is tried next, after the memory of the failed try has been let go: to
            empty caches and to make room. Default: ``None``, nothing.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        *,
        receiver: Receiver,
        is_oom: Callable[[BaseException], bool] = is_out_of_memory,
        before_retry: Callable[[Tap], None] | None = None,
    ) -> None:
        if not taps:
            raise ValueError("a ladder needs at least one tap, got none")
        super().__init__(taps[0].decoder)
        self.taps = tuple(taps)
        self.current = self.taps[0]
        self._receiver = receiver
        self._is_oom = is_oom
        self._before_retry = before_retry
        self._falls: list[tuple[int, Decoding]] = []

    @property
    def decoding(self) -> Decoding:  # type: ignore[override]
        """How the tap that is in use decodes."""
        return self.current.decoding

    @property
    def warning(self) -> str | None:
        """One sentence on what was changed because memory ran out; ``None`` if it did not."""
        if not self._falls:
            return None
        first, last = self._falls[0][0], self._falls[-1][0]
        where = f"at frame {first}" if first == last else f"{len(self._falls)} times, first at frame {first}"
        return (
            f"memory ran out {where} ({_label(self._falls[0][1])}): from frame {last} on, the frames were decoded in "
            f"another way ({_label(self.decoding)})"
        )

    def frames(self, latent: Tensor) -> int | None:
        return self.taps[0].frames(latent)

    def live_shape(self, latent: Tensor) -> torch.Size:
        return self.current.live_shape(latent)

    def run(self, latent: Tensor, submit: Submit) -> None:
        self._falls = []
        before = self._receiver.received
        for index, tap in enumerate(self.taps):
            self.current = tap
            if index > 0:
                gc.collect()
                if self._before_retry is not None:
                    self._before_retry(tap)
            if self._decode_rest(tap, latent, submit, before, last=index + 1 == len(self.taps)):
                return

    def _decode_rest(self, tap: Tap, latent: Tensor, submit: Submit, before: int, *, last: bool) -> bool:
        """Whether ``tap`` decoded all that is missing; if memory ran out, nothing refers to its try any more."""
        try:
            _run_rest(tap, latent, submit, self._receiver.received - before)
        except Exception as error:
            if last or error is self._receiver.error or not self._is_oom(error):
                raise
            # The error keeps the frames of the functions that it went through, and these keep their tensors.
            traceback.clear_frames(error.__traceback__)
            self._falls.append((self._receiver.received - before, tap.decoding))
            return False
        return True


def _run_rest(tap: Tap, latent: Tensor, submit: Submit, delivered: int) -> None:
    """Decode ``latent`` without its first ``delivered`` frames."""
    if delivered == 0:
        tap.run(latent, submit)
        return
    # Images and clips that are done need not be decoded again.
    of_one = tap.frames(latent[:1])
    done, skip = divmod(delivered, of_one) if of_one else (0, delivered)
    rest = latent[done:]
    if rest.shape[0] == 0:
        return
    if isinstance(tap, TemporalWindows):
        tap.run_from(rest, submit, skip)
        return

    def submit_rest(piece: Tensor) -> None:
        nonlocal skip
        dropped = min(skip, piece.shape[0])
        skip -= dropped
        if dropped < piece.shape[0]:
            submit(piece[dropped:])

    tap.run(rest, submit_rest)


def _label(decoding: Decoding) -> str:
    return f"{decoding.kind}: {decoding.detail}" if decoding.detail else decoding.kind
