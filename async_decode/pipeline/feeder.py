"""The thread that submits frames which are there already, so that whoever has them need not wait."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import torch
from torch import Tensor

from ..sinks.workers import running_future


class Feeder:
    """Submits pieces one after the other, then ends the clip.

    Args:
        pieces: what is submitted; they may not be there yet, but will be, on the caller's current stream.
        submit: takes a piece.
        end: says that there are no more; gives a future that is done when the sinks have closed.
        fail: takes the error by which any of this ended.
        device: where the pieces are.

    Attributes:
        done: done with the run, or after ``fail`` was called. It cannot be cancelled.
    """

    def __init__(
        self,
        pieces: Iterable[Tensor],
        *,
        submit: Callable[[Tensor], None],
        end: Callable[[], Future[None]],
        fail: Callable[[BaseException], None],
        device: torch.device,
    ) -> None:
        self.done = running_future()
        self._pieces = pieces
        self._submit = submit
        self._end = end
        self._fail = fail
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._thread = threading.Thread(target=self._run, name="async-decode feeder")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended; after an error of the run it does by itself."""
        self._thread.join()

    def _run(self) -> None:
        try:
            with contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                for piece in self._pieces:
                    self._submit(piece)
                self._end().add_done_callback(lambda _: self.done.set_result(None))
        except BaseException as error:
            # Before anybody who waits wakes up: what he finds then is the cause.
            self._fail(error)
            self.done.set_result(None)
