"""Latents in files: ComfyUI's ``.latent``, ``.safetensors``, and ``.pt`` without any code in it; here or in a store."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from ..demo.weights import read_safetensors
from ..errors import DecodeError
from .stores import forget, is_store, reaching, stamp_in, store

#: Endings of files with latents.
ENDINGS = (".latent", ".safetensors", ".pt", ".pth")
#: Endings of files that name latents.
_MANIFESTS = (".txt", ".jsonl")
#: Names under which a latent is found in a file with several tensors, the first that is there.
_NAMES = ("latent_tensor", "samples", "latents", "latent", "frames")
#: What ComfyUI's LoadLatent multiplies the oldest files with.
_OLDEST = 1.0 / 0.18215


@dataclass(frozen=True)
class LatentFile:
    """What a file holds.

    Attributes:
        latent: the tensor; of a latent of several parts (video with sound) the first.
        of_comfyui: it is as ComfyUI keeps latents.
        content: a hash of the file's bytes.
    """

    latent: Tensor
    of_comfyui: bool
    content: str


def read_latent(place: str) -> LatentFile:
    """Read the latent at ``place``.

    Raises:
        DecodeError: it holds none, is damaged, or cannot be read.
    """
    data = read_bytes(place)
    content = hashlib.sha256(data).hexdigest()
    if PurePosixPath(place).suffix.lower() in (".pt", ".pth"):
        try:
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # What torch says here is how to run the code that such a file may hold.
            raise DecodeError(
                f"{place} holds more than tensors, or is damaged; no code in a file is ever run: save the latent "
                "alone, with torch.save(latent, PATH) or as .safetensors"
            ) from error
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise DecodeError(f"{place} is no whole file of tensors: {said}") from error
        return LatentFile(_plain(_latent_in(found, place), place), False, content)
    tensors = read_safetensors(data, place)
    latent = _latent_in(tensors, place)
    of_comfyui = "latent_tensor" in tensors or "latent_tensor.0" in tensors
    if "latent_tensor" in tensors and "latent_format_version_0" not in tensors:
        latent = latent.float() * _OLDEST
    return LatentFile(latent, of_comfyui, content)


def _plain(latent: Tensor, place: str) -> Tensor:
    """``latent``, which a decoder can take as numbers.

    Raises:
        DecodeError: it is sparse, quantized or complex.
    """
    if latent.layout is torch.strided and not latent.is_quantized and not latent.is_complex():
        return latent
    kind = latent.dtype if latent.layout is torch.strided else latent.layout
    raise DecodeError(
        f"{place}: expected a dense tensor of real numbers, got {kind}; save latent.to_dense(), dequantize() or .real"
    )


def _latent_in(found: Any, place: str) -> Tensor:
    """The latent among what a file holds."""
    if isinstance(found, Tensor):
        # Nested: video and sound together.
        return found.unbind()[0] if found.is_nested else found
    if isinstance(found, list | tuple) and found:
        return _latent_in(found[0], place)
    if isinstance(found, dict):
        for name in _NAMES:
            for key in (name, f"{name}.0", f"{name}_0"):
                if key in found:
                    return _latent_in(found[key], place)
        tensors = [value for value in found.values() if isinstance(value, Tensor) and value.ndim >= 3]
        if len(tensors) == 1:
            return tensors[0]
    keys = ", ".join(map(str, found))[:200] if isinstance(found, dict) else type(found).__name__
    raise DecodeError(f"{place}: expected a tensor called {', '.join(_NAMES)}, or only one, got {keys}")


def found_places(given: Iterable[str]) -> list[str]:
    """All latents that ``given`` names: files, folders, patterns, and manifests (a place a line, or JSON lines with
    one under ``latent``), in their order, each once.

    Raises:
        DecodeError: one of them names nothing.
    """
    places: dict[str, str] = {}
    given = list(given)
    forget(given)
    for place in given:
        found = _of(place)
        if not found:
            raise DecodeError(
                f"{place}: there are no latents ({', '.join(ENDINGS)}; lists of them end in {' or '.join(_MANIFESTS)})"
            )
        for name in found:
            # However it is written, by a folder and by itself: once.
            places.setdefault(name if is_store(name) else os.path.abspath(name), name)
    return list(places.values())


def _of(place: str) -> list[str]:
    if place.endswith(_MANIFESTS):
        return _of_manifest(place)
    if is_store(place):
        filesystem, path = store(place)
        scheme = place.partition("://")[0]
        with reaching(place, "listed", DecodeError):
            # One listing; what is no folder has nothing below it.
            pattern = any(sign in path for sign in "*?[")
            found = filesystem.glob(path) if pattern else filesystem.find(path) or [path]
        if not pattern and found != [path]:
            found = [name for name in found if not _is_hidden(name.removeprefix(path).split("/"))]
        return sorted(f"{scheme}://{name}" for name in found if name.lower().endswith(ENDINGS))
    if os.path.isdir(place):
        below = (path for path in Path(place).rglob("*") if path.name.lower().endswith(ENDINGS))
        return sorted(str(path) for path in below if not _is_hidden(path.relative_to(place).parts))
    if os.path.exists(place):
        return [place] if place.lower().endswith(ENDINGS) else []
    found = sorted(glob.glob(place, recursive=True))
    if not found and not glob.has_magic(place):
        raise DecodeError(f"{place}: there is no such file or folder")
    return [name for name in found if name.lower().endswith(ENDINGS)]


def _is_hidden(parts: Sequence[str]) -> bool:
    """Whether what is below a folder is there for programs only, as ``._clip.pt`` of macOS; no pattern finds it."""
    return any(part.startswith(".") for part in parts)


def _of_manifest(place: str) -> list[str]:
    try:
        lines = [line.strip() for line in read_bytes(place).decode("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise DecodeError(f"{place}: expected a manifest, text in UTF-8 with a place a line: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("{"):
            try:
                told = json.loads(line)["latent"]
            except (ValueError, KeyError):
                told = None
            if not isinstance(told, str):
                raise DecodeError(f'{place}, line {number}: expected {{"latent": PLACE}}, got {line[:80]}')
            line = told
        beside = "://" in line or os.path.isabs(line) or "://" in place
        found.append(line if beside else os.path.join(os.path.dirname(place), line))
    forget(found)
    return found


def stamp_of(place: str) -> str:
    """What tells, without reading it, that a file is the one of before: its size, and its time or its tag.

    Raises:
        OSError: there is no such file.
    """
    if is_store(place):
        filesystem, path = store(place)
        return stamp_in(filesystem.info(path))
    facts = os.stat(place)
    return f"{facts.st_size} {facts.st_mtime_ns}"


def read_bytes(place: str) -> bytes:
    """All of a file, here or in a store.

    Raises:
        DecodeError: it is not there, or cannot be read.
    """
    try:
        if is_store(place):
            filesystem, path = store(place)
            with reaching(place, "read", DecodeError):
                return bytes(filesystem.cat_file(path))
        return Path(place).read_bytes()
    except FileNotFoundError as error:
        raise DecodeError(f"{place}: there is no such file") from error
    except OSError as error:
        raise DecodeError(f"{place} cannot be read: {error.strerror or error}") from error
