"""Texts in a TIFF directory, which is what EXIF is as well: where ComfyUI looks for prompt and workflow.

Each is ``key:text`` in a tag of its own, as stock's Save Animated WEBP has them. Readers go by what is in front of the
colon.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Literal

#: Where the prompt is, and the other texts: tags that describe the picture, then those that anybody may use.
_PROMPT_TAG = 0x0110
_TAGS = (0x010F, 0x010E, 0x010D, *range(65000, 65536))

#: Type, number of values, and the values.
Field = tuple[int, int, bytes]


def text_fields(metadata: Mapping[str, str]) -> dict[int, Field]:
    """``metadata`` as fields of a directory, by tag. There are 540 tags; texts beyond them are left out.

    So are those that are no Unicode, as ``storable`` says.
    """
    free = iter(_TAGS)
    fields = {}
    for key, text in storable(metadata).items():
        tag = _PROMPT_TAG if key == "prompt" else next(free, None)
        if tag is not None:
            value = f"{key}:{text}\0".encode()
            fields[tag] = (2, len(value), value)
    return fields


def without_tag(metadata: Mapping[str, str]) -> list[str]:
    """The keys of the texts that ``text_fields`` leaves out."""
    kept = storable(metadata)
    return [key for key in metadata if key not in kept] + [key for key in kept if key != "prompt"][len(_TAGS) :]


def storable(metadata: Mapping[str, str], *, keys: str = "utf-8") -> dict[str, str]:
    """The texts that a file can hold: half of a surrogate pair, which JSON can carry, is no character of any file.

    Args:
        metadata: text by key.
        keys: how the file stores the keys.
    """

    def encodes(text: str, encoding: str) -> bool:
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return False
        return True

    return {key: text for key, text in metadata.items() if encodes(key, keys) and encodes(text, "utf-8")}


def left_out(why: str, keys: Sequence[str]) -> list[str]:
    """A note on texts that are not in the files, if there are any."""
    shown = ", ".join(keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")
    # A browser must be able to show it.
    return [f"{why}, left out: {shown}".encode(errors="replace").decode()] if keys else []


def exif_of(metadata: Mapping[str, str]) -> bytes:
    """``metadata`` as EXIF, the bytes that Pillow makes of it; empty if there is none."""
    if not metadata:
        return b""
    header = b"MM\0*" + struct.pack(">I", 8)
    return b"Exif\0\0" + header + directory(text_fields(metadata), len(header), order=">")


def directory(fields: Mapping[int, Field], offset: int, *, order: Literal["<", ">"]) -> bytes:
    """A directory that stands at ``offset``, with the values that do not fit into it behind it.

    Args:
        fields: by tag; values of more than a byte in the order that ``order`` says, as struct does.
        offset: from the start of the TIFF file, even.
    """
    entries, beside = [], []
    free = offset + 2 + 12 * len(fields) + 4
    for tag, (kind, count, values) in sorted(fields.items()):
        if len(values) <= 4:
            place = values.ljust(4, b"\0")
        else:
            place = struct.pack(f"{order}I", free)
            values += bytes(len(values) % 2)
            beside.append(values)
            free += len(values)
        entries.append(struct.pack(f"{order}HHI", tag, kind, count) + place)
    return struct.pack(f"{order}H", len(fields)) + b"".join(entries) + bytes(4) + b"".join(beside)
