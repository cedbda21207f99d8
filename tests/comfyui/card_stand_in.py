"""A card's memory, without a card: for core's low and dynamic VRAM on a CPU.

Core's patchers and the functions with which it fetches weights run as they are. What stands in lies below them: the
buffers that it copies through, and comfy-aimdo, with one block of bytes in which modules have their places. Both are as
hostile as the real ones may be: what is not in use can be taken away, and what has been taken away is no number.

Weights that core keeps elsewhere are on the CPU like everything else, and say that they are on another device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal
from unittest import mock

import torch

#: ``stays``: a weight stays where it was fetched to. ``goes``: it is taken away as soon as nobody has pinned it.
#: ``full``: there is no room for any; it goes through a buffer, which the next one gets as well.
Room = Literal["stays", "goes", "full"]

#: Where weights say that they are.
ELSEWHERE = torch.device("meta")
#: Core's patcher takes ``cpu`` for a device without dynamic VRAM.
CARD = torch.device("cpu", 0)
#: In bfloat16 and in float16 this is no number.
_GONE = 0xFF


class Memory:
    """All that the library is asked.

    Attributes:
        room: how much of it there is.
        pinned: how many times each place is pinned now.
        fetched: how many times the weights of a module were copied into it.
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.pinned: dict[int, int] = {}
        self.fetched = 0
        self._bytes = torch.zeros(1 << 26, dtype=torch.uint8)
        self._used = 0
        self._signatures: dict[int, int] = {}

    # Of a model, as ``ModelVBAR``.

    def alloc(self, size: int) -> tuple[Any, int, int]:
        place = (self, self._used, size)
        self._used += (size + 511) // 512 * 512
        return place

    def prioritize(self) -> None:
        """Nobody competes."""

    def loaded_size(self) -> int:
        return self._used

    def free_memory(self, _size: int) -> int:
        return 0

    # ``comfy_aimdo.model_vbar``.

    def fault(self, place: tuple[Any, int, int]) -> int | None:
        """The signature of what is there; ``None``: there is no room."""
        if self.room == "full":
            return None
        self.pinned[place[1]] = self.pinned.get(place[1], 0) + 1
        return self._signatures.setdefault(place[1], 0)

    def unpin(self, place: tuple[Any, int, int]) -> None:
        self.pinned[place[1]] -= 1
        if self.room == "goes" and not self.pinned[place[1]]:
            self._signatures[place[1]] += 1
            self.bytes_at(place).fill_(_GONE)

    def bytes_at(self, place: tuple[Any, int, int], _device: Any = None) -> torch.Tensor:
        _, first, size = place
        self.fetched += 1
        return self._bytes[first : first + size]


class Stream:
    """The only stream, whose buffer is gone when the weights in it were used, or when the next ones are to come."""

    def __init__(self) -> None:
        self.bytes = torch.zeros(1 << 22, dtype=torch.uint8)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_error: object) -> None:
        return None

    def wait_stream(self, _other: object) -> None:
        self.bytes.fill_(_GONE)

    def taken(self, _device: torch.device) -> Stream:
        """Itself, for the next weights."""
        self.bytes.fill_(_GONE)
        return self


class Buffer:
    """``VRAMBuffer``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def size(self) -> int:
        return len(self._stream.bytes)

    def get(self, size: int, offset: int) -> tuple[Any, int, int]:
        return self, offset, size

    def bytes_at(self, place: tuple[Any, int, int], _device: Any = None) -> torch.Tensor:
        _, first, size = place
        return self._stream.bytes[first : first + size]


class HostBuffer:
    """Pinned memory, of which there is none."""

    size = 0

    def __init__(self, *_sizes: int) -> None:
        pass


@contextlib.contextmanager
def _standing(stands: tuple[tuple[Any, str, Any], ...]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for home, name, stand in stands:
            stack.enter_context(mock.patch.object(home, name, stand))
        yield


@contextlib.contextmanager
def low_vram() -> Iterator[None]:
    """Core with a card too small for its VAEs, which are loaded to the CPU within the ``with`` block."""
    import comfy.model_management as management

    stream = Stream()
    stands: tuple[tuple[Any, str, Any], ...] = ((torch.Tensor, "device", property(_device_of)),)
    if hasattr(management, "get_cast_buffer"):
        stands += (
            (management, "get_offload_stream", stream.taken),
            (management, "get_cast_buffer", lambda stream, _device, size, _module: stream.bytes[:size]),
        )
    with _standing(stands):
        yield


@contextlib.contextmanager
def dynamic_vram(room: Room) -> Iterator[Memory]:
    """Core as ``main.py`` sets it up with comfy-aimdo, for VAEs that are loaded to ``CARD`` in the ``with`` block."""
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch
    from comfy.cli_args import args

    memory, stream = Memory(room), Stream()
    management, vbar = comfy.model_management, comfy_aimdo.model_vbar
    stands = (
        (comfy.memory_management, "aimdo_enabled", True),
        (comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic),
        (management, "is_device_cpu", lambda _device: False),
        (management, "get_offload_stream", stream.taken),
        (management, "get_aimdo_cast_buffer", lambda stream, _device: Buffer(stream)),
        (args, "disable_pinned_memory", True),
        (vbar, "ModelVBAR", lambda _size, _device: memory),
        (vbar, "vbar_fault", memory.fault),
        (vbar, "vbar_unpin", memory.unpin),
        (vbar, "vbar_signature_compare", lambda one, other: one is not None and one == other),
        (comfy_aimdo.torch, "aimdo_to_tensor", lambda place, device: place[0].bytes_at(place, device)),
        (comfy_aimdo.host_buffer, "HostBuffer", HostBuffer),
        (torch.Tensor, "device", property(_device_of)),
    )
    with _standing(stands):
        yield memory


def put_elsewhere(model: torch.nn.Module) -> None:
    """Let the weights that core's patcher has left where they were say that they are elsewhere."""
    for module in model.modules():
        if is_elsewhere(module):
            for weight in module.parameters(recurse=False):
                weight._elsewhere = True  # type: ignore[attr-defined]


def is_elsewhere(module: torch.nn.Module) -> bool:
    """Whether core's patcher has marked ``module`` as one whose weights are to be fetched."""
    return hasattr(module, "_v") or hasattr(module, "prev_comfy_cast_weights")


def _device_of(tensor: torch.Tensor) -> torch.device:
    if getattr(tensor, "_elsewhere", False):
        return ELSEWHERE
    device: torch.device = torch._C.TensorBase.device.__get__(tensor)  # type: ignore[attr-defined]
    return device
