"""Counts the bytes that torch operations of one thread hold, on any device and without a GPU."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class AllocationCounter(TorchDispatchMode):
    """Counts the memory of every tensor that an operation makes while the mode is on, until the tensor dies.

    What an operation allocates and frees within itself is not seen.

    Attributes:
        live: bytes held now; ``peak``: the most bytes ever held.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if is_tensor(tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if is_tensor(tensor):
                self._see(tensor.untyped_storage(), before)
        return result

    def _see(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in before or key in self._known:
            return

        def died(_reference: Any) -> None:
            self.live -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, died)
        self.live += size
        self.peak = max(self.peak, self.live)


def is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type != "meta"
