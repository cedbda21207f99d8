"""What the decoder remembers of each tile between two steps: on the device where it fits, else in host memory."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import Tensor


class TileCaches:
    """One cache for each tile, in the form in which the model hands its own to its decoder: a list, or ``None``.

    Args:
        device: where the decoder wants them.
        room: bytes that they may take there. Default ``None``: as many as they like.
    """

    def __init__(self, device: torch.device, room: int | None = None) -> None:
        self.device = device
        self.room = room
        #: Bytes on the device.
        self.held = 0
        self._caches: dict[int, Any] = {}
        self._bytes: dict[int, int] = {}
        self._hosts: dict[tuple[int, int], Tensor] = {}

    def take(self, tile: int, given: Any) -> Any:
        """The cache of ``tile``, on the device; before its first step, a copy of the model's own, ``given``."""
        if given is None:
            return None
        if tile not in self._caches:
            return copy.copy(given)
        self.held -= self._bytes.pop(tile)
        return [
            entry.to(self.device, non_blocking=entry.is_pinned()) if isinstance(entry, Tensor) else entry
            for entry in self._caches.pop(tile)
        ]

    def keep(self, tile: int, cache: Any) -> None:
        """Store what the decoder has left in the cache of ``tile``, which is empty afterwards."""
        if cache is None:
            return
        entries = [_compact(entry) for entry in cache]
        cache.clear()
        size = sum(entry.nbytes for entry in entries if isinstance(entry, Tensor))
        if self.room is not None and self.held + size > self.room:
            entries, size = [self._park(tile, number, entry) for number, entry in enumerate(entries)], 0
        self._caches[tile], self._bytes[tile] = entries, size
        self.held += size

    def _park(self, tile: int, number: int, entry: Any) -> Any:
        """``entry`` in host memory, in the same place as in the step before.

        Copies from and to pinned memory are work of one stream: each waits for the one before, and nobody for them.
        """
        if not isinstance(entry, Tensor):
            return entry
        host = self._hosts.get((tile, number))
        if host is None or host.shape != entry.shape or host.dtype != entry.dtype:
            host = self._hosts[tile, number] = _host_memory(entry)
        return host.copy_(entry, non_blocking=host.is_pinned())


def _compact(entry: Any) -> Any:
    """``entry`` without the rest of the tensor that it is cut from, which would live as long as it does."""
    if isinstance(entry, Tensor) and entry.untyped_storage().nbytes() > entry.nbytes:
        return entry.clone()
    return entry


def _host_memory(like: Tensor) -> Tensor:
    """Room for ``like``, pinned where that can be had."""
    pinned = like.device.type == "cuda"
    try:
        # Else memory is pinned by way of the current device, which may be one that nobody uses.
        with torch.cuda.device(like.device) if pinned else contextlib.nullcontext():
            return torch.empty(like.shape, dtype=like.dtype, pin_memory=pinned)
    except RuntimeError:
        return torch.empty(like.shape, dtype=like.dtype)
