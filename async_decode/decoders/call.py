"""A call of a block in a loop of stock: what it gets, and where what it keeps is put; a class for each kind of loop."""

from __future__ import annotations

import abc
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

from torch import Tensor

#: What a block keeps for its next call: tensors, words, or nothing.
Kept = Tensor | str | None
#: Behind what was kept: nothing is kept of this call.
LAST = "last"
#: There is no state at all; something is true.
ABSENT, TRUE = "absent", str(True)


class Call(abc.ABC):
    """A call of a block.

    Args:
        stock: stock's own forward.
        entries: how many things the loop keeps for the block.
        signature: of ``stock``.
        arguments, named: of the call.

    Attributes:
        leaves: frames leave the loop while it goes on, so that it cannot be begun again.
        x: what the block is called with.
    """

    leaves = False

    def __init__(
        self,
        stock: Callable[..., Any],
        entries: int,
        signature: inspect.Signature,
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        self._stock, self._entries = stock, entries
        self._told = signature.bind(*arguments, **named).arguments
        self._parameters = signature.parameters
        self._name = next(iter(self._parameters))
        self.x: Tensor = self._told[self._name]

    def option(self, name: str) -> Any:
        """What else the block is told; ``None`` where it is not, and stock's forward has its own default."""
        return self._told.get(name)

    @property
    @abc.abstractmethod
    def kept(self) -> list[Kept]:
        """What the loop keeps for this block now; empty where it keeps nothing."""

    @abc.abstractmethod
    def take(self) -> list[Kept]:
        """``kept``, which the loop lets go."""

    @abc.abstractmethod
    def keep(self, kept: list[Kept]) -> None:
        """Put ``kept`` where stock's block would, and count on as it would."""

    @abc.abstractmethod
    def after(self) -> list[Kept]:
        """What stock's block has put there; nothing, where the loop does that itself."""

    @abc.abstractmethod
    def in_stock(self, x: Tensor, kept: list[Kept]) -> tuple[Tensor, list[Kept]]:
        """What stock's block makes of these, and keeps; the loop's own list is left as it is."""


class Cached(Call):
    """Wan's way: one list for all, ``feat_cache``, from ``feat_idx`` on; a lone convolution is handed ``cache_x``."""

    def __init__(self, *call: Any) -> None:
        super().__init__(*call)
        self._cache: list[Any] | None = self._told.get("feat_cache") if self._entries else None
        self._index: list[int] = self._told["feat_idx"] if self._cache is not None else [0]
        self._first = self._index[0]
        self._handed = self._entries > 0 and "cache_x" in self._parameters

    @property
    def kept(self) -> list[Kept]:
        if self._handed:
            return [self._told.get("cache_x")]
        return [] if self._cache is None else self._cache[self._first : self._first + self._entries]

    def take(self) -> list[Kept]:
        kept = self.kept
        if self._cache is not None:
            self._cache[self._first : self._first + self._entries] = [None] * self._entries
        return kept

    def keep(self, kept: list[Kept]) -> None:
        if self._cache is not None:
            self._cache[self._first : self._first + self._entries] = kept
            self._index[0] = self._first + self._entries

    def after(self) -> list[Kept]:
        return [] if self._handed else self.kept

    def in_stock(self, x: Tensor, kept: list[Kept]) -> tuple[Tensor, list[Kept]]:
        told = dict(self._told)
        told[self._name] = x
        cache: list[Kept] = []
        if self._handed:
            told["cache_x"] = kept[0]
        elif self._cache is not None:
            cache = kept
            told.update(feat_cache=cache, feat_idx=[0])
        out: Tensor = self._stock(**told)
        return out, cache


class Carried(Call):
    """HunyuanVideo's way: what the piece before has kept is taken off the front of one list, which ends up empty, and
    what this one keeps is put at the end of another one.

    There is no first list in the first piece of a clip, and no second one in the last.
    """

    leaves = True

    def __init__(self, *call: Any) -> None:
        super().__init__(*call)
        #: What the piece before has kept, for this block and those behind it.
        self.carried_in: list[Any] | None = self._told.get("conv_carry_in")
        #: What this piece has kept so far.
        self.carried_out: list[Any] | None = self._told.get("conv_carry_out")
        self._first = len(self.carried_out or [])

    @property
    def kept(self) -> list[Kept]:
        if self.carried_in is None:
            return [] if self.carried_out is None else [None] * self._entries
        return [*self.carried_in[: self._entries], *([LAST] if self.carried_out is None else [])]

    def take(self) -> list[Kept]:
        kept = self.kept
        if self.carried_in is not None:
            del self.carried_in[: self._entries]
        return kept

    def keep(self, kept: list[Kept]) -> None:
        if self.carried_out is not None:
            self.carried_out.extend(kept)

    def after(self) -> list[Kept]:
        return [] if self.carried_out is None else self.carried_out[self._first :]

    def in_stock(self, x: Tensor, kept: list[Kept]) -> tuple[Tensor, list[Kept]]:
        cache: list[Kept] = []
        told = dict(self._told)
        told[self._name] = x
        told["conv_carry_in"] = None if self.carried_in is None else kept[: self._entries]
        told["conv_carry_out"] = None if self.carried_out is None else cache
        out: Tensor = self._stock(**told)
        return out, cache


class Remembered(Call):
    """LTX's way: modules keep what is theirs themselves, for each thread, in ``temporal_cache_state``.

    A convolution keeps frames, and whether the clip ends with this call; a block keeps frames that it will need.
    """

    leaves = True

    def __init__(self, *call: Any) -> None:
        super().__init__(*call)
        module = cast(Any, self._stock).__self__
        self._keepers = [part for part in module.modules() if hasattr(part, "temporal_cache_state")]
        self._thread = threading.get_ident()

    @property
    def kept(self) -> list[Kept]:
        """Of each keeper its frames, and a word for the rest: its truths, nothing, or that there is no state."""
        kept: list[Kept] = []
        for keeper in self._keepers:
            state = keeper.temporal_cache_state.get(self._thread)
            if self._thread not in keeper.temporal_cache_state:
                kept += [None, ABSENT]
            elif isinstance(state, tuple):
                kept += [state[0], " ".join(str(one) for one in state[1:])]
            else:
                kept += [state, ""]
        return kept

    def take(self) -> list[Kept]:
        kept = self.kept
        for keeper in self._keepers:
            keeper.temporal_cache_state.pop(self._thread, None)
        return kept

    def keep(self, kept: list[Kept]) -> None:
        for number, keeper in enumerate(self._keepers):
            frames, word = kept[2 * number : 2 * number + 2]
            keeper.temporal_cache_state.pop(self._thread, None)
            if word != ABSENT:
                truths = [one == TRUE for one in str(word).split()]
                keeper.temporal_cache_state[self._thread] = (frames, *truths) if truths else frames

    def after(self) -> list[Kept]:
        return self.kept

    def in_stock(self, x: Tensor, kept: list[Kept]) -> tuple[Tensor, list[Kept]]:
        self.keep(kept)
        kept.clear()
        told = dict(self._told)
        told[self._name] = x
        out: Tensor = self._stock(**told)
        return out, self.take()


class Cells(Protocol):
    """What a decoder keeps from step to step, one thing after the other."""

    def __iter__(self) -> Iterator[Any]: ...

    def __setitem__(self, number: Any, kept: Any, /) -> None: ...


class Shelf:
    """A dictionary, seen as ``Cells``."""

    def __init__(self, kept: dict[Any, Any]) -> None:
        self._kept = kept

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._kept.values()))

    def __setitem__(self, number: int, kept: Any) -> None:
        self._kept[list(self._kept)[number]] = kept


class Keyed(Call):
    """SeedVR2's way: a convolution keeps frames in one dictionary for all, ``memory_cache``, under itself.

    Only a step that goes on from another one (``memory_state`` is ``ACTIVE``) looks into it, and a lone one
    (``DISABLED``) keeps nothing.
    """

    leaves = True

    def __init__(self, *call: Any) -> None:
        super().__init__(*call)
        self._cache: dict[Any, Any] | None = self._told.get("memory_cache")
        self._state = str(getattr(self._told.get("memory_state"), "name", None))
        module = cast(Any, self._stock).__self__
        parts = (part for part in module.modules() if hasattr(part, "memory_limit_conv"))
        self._keepers = [part for part in parts if part.kernel_size[0] > 1]

    def option(self, name: str) -> Any:
        """``memory_state`` by its name."""
        return self._state if name == "memory_state" else super().option(name)

    @property
    def kept(self) -> list[Kept]:
        if self._state != "ACTIVE" or self._cache is None:
            return [None for _ in self._keepers]
        return [self._cache.get(keeper) for keeper in self._keepers]

    def take(self) -> list[Kept]:
        kept = self.kept
        for keeper in self._keepers:
            if self._cache is not None and keeper in self._cache:
                # Its turn in the dictionary is kept.
                self._cache[keeper] = None
        return kept

    def keep(self, kept: list[Kept]) -> None:
        if self._cache is None:
            return
        for keeper, one in zip(self._keepers, kept, strict=True):
            if isinstance(one, Tensor):
                self._cache[keeper] = one
            else:
                self._cache.pop(keeper, None)

    def after(self) -> list[Kept]:
        return [(self._cache or {}).get(keeper) for keeper in self._keepers]

    def in_stock(self, x: Tensor, kept: list[Kept]) -> tuple[Tensor, list[Kept]]:
        told = dict(self._told)
        told[self._name] = x
        found = zip(self._keepers, kept, strict=True)
        cache = {keeper: one for keeper, one in found if isinstance(one, Tensor)}
        if self._cache is not None:
            told["memory_cache"] = cache
        out: Tensor = self._stock(**told)
        return out, [cache.get(keeper) for keeper in self._keepers]
