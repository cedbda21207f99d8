"""Reads the demo's files: the safetensors format, with nothing but torch.

A safetensors file is eight bytes with the length of a header, the header in JSON (name to type, shape and place), and
the bytes of all tensors in a row: https://github.com/huggingface/safetensors#format. The package of that name is not
among what this one needs to run, so this room reads the format itself; writing is for the training alone.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DecodeError

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(file: Path | bytes, called: str = "") -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Args:
        file: the file, or its bytes.
        called: what to call bytes in errors.

    Returns:
        The tensors by name, on the host, each with memory of its own.

    Raises:
        FileNotFoundError: there is no such file.
        DecodeError: it is not a whole safetensors file, or holds a type that the demo's files never have.
    """
    content, path = (file, called) if isinstance(file, bytes) else (file.read_bytes(), str(file))
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or start > len(content):
        raise DecodeError(
            f"{path} is no whole safetensors file: its header should end at byte {start}, it has {len(content)}"
        )
    try:
        header = json.loads(content[8:start])
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        data = bytearray(content[start:])
        return {name: _tensor(entry, data) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DecodeError(f"{path} is no whole safetensors file: {error}") from error


def _tensor(entry: dict[str, Any], data: bytearray) -> Tensor:
    """The tensor that a header's ``entry`` describes, out of the file's ``data``."""
    dtype, shape, (begin, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{entry} does not fit into {len(data)} bytes of data")
    if begin == end:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(data[begin:end], dtype=dtype).reshape(shape)
