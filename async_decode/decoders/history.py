"""What the steps of a clip were given so far: enough to make the last one again, with stock's code from the beginning.

Between two steps a decoder keeps what would fill much of a card a second time, so that nobody can hold on to it in case
a step has to be made anew. But all of it follows from the inputs of the steps, which are slices of the latent. They
hang on the tensors that the decoder keeps, and go with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

#: The attribute of a tensor that a decoder keeps under which it carries the steps that led to it.
_MARK = "_async_decode_history"
#: The arguments in which a decoder keeps things from one step to the next, and counts them within a step.
CACHE, INDEX = "feat_cache", "feat_idx"
#: The argument of a decoder that keeps them in a dictionary.
SHELF = "memory_cache"


@dataclass(frozen=True)
class History:
    """A step and those before it.

    Attributes:
        told: its arguments by name, without the cache; the index as it was before the step.
        before: the steps before it, or ``None``: it is the first one of its clip.
    """

    told: dict[str, Any]
    before: History | None

    @classmethod
    def of(cls, told: dict[str, Any]) -> History | None:
        """That of a step that is about to begin; ``None``: what led to its cache is not known."""
        cache: list[Any] | None = told.get(CACHE)
        own = {name: list(value) if name == INDEX else value for name, value in told.items() if name != CACHE}
        if cache is None or all(one is None for one in cache):
            return cls(own, None)
        marks = (getattr(one, _MARK, None) for one in cache if isinstance(one, Tensor))
        before = next((mark for mark in marks if mark is not None), None)
        return None if before is None else cls(own, before)

    def again(self, forward: Callable[..., Any], told: dict[str, Any], poll: Callable[[], None]) -> Any:
        """What ``forward`` returns for the step, after all those before it.

        Args:
            forward: the decoder's own.
            told: the arguments of the step; what is kept and counted is put into its lists.
            poll: called before each step.
        """
        steps = [self]
        while steps[-1].before is not None:
            steps.append(steps[-1].before)
        cache: list[Any] | None = told.get(CACHE)
        index: list[int] = told.get(INDEX, [])
        if cache is not None:
            cache[:] = [None] * len(cache)
        out: Any = None
        for step in reversed(steps):
            del out
            poll()
            own = dict(step.told)
            if cache is not None:
                own[CACHE] = cache
            if INDEX in own:
                index[:] = own[INDEX]
                own[INDEX] = index
            out = forward(**own)
        return out


def note(history: History | None, cache: Iterable[Any] | None) -> None:
    """Note on what the decoder keeps after a step which steps have led to it; ``None``: nobody knows."""
    for one in cache or []:
        if isinstance(one, Tensor):
            setattr(one, _MARK, history)
