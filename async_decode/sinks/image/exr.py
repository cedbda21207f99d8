"""OpenEXR files: half or float, ZIP-compressed scan lines, with the metadata that ffmpeg's encoder cannot carry.

Written here because the format is small where one needs so little of it, and because a process for each file would cost
more than the file. (OpenEXR's own package is faster, but would be a second way beside this one, which has to stay for
those who have not installed it.)

The layout is the one in OpenEXR's "File Layout": header, table of offsets, blocks of 16 lines.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import IO, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from ...frames import FrameArray, PixelFormat
from .exif import storable
from .formats import ImageEncoder, check_range

#: What the frames' values mean.
ColorSpace = Literal["sRGB", "HDR", "linear"]
Floats = npt.NDArray[np.float32]

#: Lines of a block of ZIP compression.
_BLOCK = 16
#: The format's numbers for ZIP with such blocks, and for the types of channels.
_ZIP, _HALF, _FLOAT = 3, 1, 2
#: CIE xy of red, green, blue and white.
_REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_REC2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)
#: From here on a value is nearer to what would follow half's largest, 65504, than to that: it becomes infinite.
_HALF_ENDS = 65520
#: What a frame may hold that few programs show as it was meant.
_NAN = (
    "NaN (not a number), which exr files keep and most programs show as black; where a decoder made it, a wider type "
    "helps (float32; ComfyUI: --fp32-vae)"
)
_INFINITE = "infinite values, which exr files keep and few programs take for light; clip the frames first"
_BEYOND_HALF = (
    "values beyond 65504, the most of exr half, where they became infinite; save as exr float, or scale the frames "
    "first"
)


class ExrEncoder(ImageEncoder):
    """OpenEXR in linear light, as its readers expect it.

    Alpha is written as it is, not multiplied in.

    Args:
        half: 16-bit floats instead of 32-bit ones. Default: ``True``.
        color_space: what the frames are: ``sRGB`` (the curve of sRGB is taken off), ``HDR`` (HLG in Rec. 2020: the
            curve of BT.2100 is taken off) or ``linear`` (written as they are). Default: ``"sRGB"``.
        compress_level: zlib's, 0 (large, fast) to 9. Default: ``4``.
        metadata: text by key, in attributes of those names. Default: ``None``.
    """

    name = "exr"
    extension = ".exr"
    pixel_format = PixelFormat.FLOAT32

    def __init__(
        self,
        *,
        half: bool = True,
        color_space: ColorSpace = "sRGB",
        compress_level: int = 4,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        check_range("compress_level", compress_level, 0, 9)
        if color_space not in _CURVES:
            raise ValueError(f"expected a color_space of {', '.join(_CURVES)}, got {color_space!r}")
        self._half = half
        self._linear = _CURVES[color_space]
        self._primaries = _REC2020 if color_space == "HDR" else _REC709
        self._level = compress_level
        self._metadata = {key: text for key, text in storable(metadata or {}).items() if _is_free(key)}
        left_out = [key for key in metadata or {} if key not in self._metadata]
        if left_out:
            self.notes = [
                f"exr files have no place for texts of these names, left out: {', '.join(map(repr, left_out))}"
            ]

    def encode(self, frame: FrameArray, file: IO[bytes]) -> Collection[str]:
        pixels = cast("Floats", frame)
        height = len(pixels)
        header = self._header(*pixels.shape)
        file.write(header)
        count = -(-height // _BLOCK)
        # Filled in at the end, when they are known.
        file.write(bytes(8 * count))
        offset = len(header) + 8 * count
        offsets = []
        odd: set[str] = set()
        for first in range(0, height, _BLOCK):
            values = self._light(pixels[first : first + _BLOCK])
            odd |= self._odd(values)
            block = self._block(values)
            file.write(struct.pack("<ii", first, len(block)))
            file.write(block)
            offsets.append(offset)
            offset += 8 + len(block)
        file.seek(len(header))
        file.write(struct.pack(f"<{count}Q", *offsets))
        return odd

    def _header(self, height: int, width: int, channels: int) -> bytes:
        kind = _HALF if self._half else _FLOAT
        named = b"".join(
            name.encode() + b"\0" + struct.pack("<iBxxxii", kind, 0, 1, 1) for name in sorted(_NAMES[channels])
        )
        window = struct.pack("<iiii", 0, 0, width - 1, height - 1)
        attributes = [
            ("channels", "chlist", named + b"\0"),
            ("compression", "compression", bytes([_ZIP])),
            ("dataWindow", "box2i", window),
            ("displayWindow", "box2i", window),
            ("lineOrder", "lineOrder", b"\0"),
            ("pixelAspectRatio", "float", struct.pack("<f", 1)),
            ("screenWindowCenter", "v2f", struct.pack("<ff", 0, 0)),
            ("screenWindowWidth", "float", struct.pack("<f", 1)),
            ("chromaticities", "chromaticities", struct.pack("<8f", *self._primaries)),
        ]
        attributes += [(key, "string", text.encode()) for key, text in self._metadata.items()]
        # Names of more than 31 bytes have to be announced.
        long_names = any(len(name.encode()) > 31 for name, *_ in attributes)
        return (
            struct.pack("<II", 20000630, 2 | (0x400 if long_names else 0))
            + b"".join(
                name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value
                for name, kind, value in attributes
            )
            + b"\0"
        )

    def _light(self, lines: Floats) -> Floats:
        """What is written of ``lines``: linear light, and alpha as it is."""
        values = lines.copy()
        colours = values[..., :3]
        # What is far beyond a curve's end becomes infinite, which is told.
        with np.errstate(over="ignore"):
            colours[...] = self._linear(colours)
        return values

    def _odd(self, values: Floats) -> set[str]:
        """What these values will be in the file that few programs show as it was meant."""
        # Both pass NaN on, which is not below anything.
        if max(values.max(), -values.min()) < (_HALF_ENDS if self._half else np.inf):
            return set()
        found = {
            _NAN: np.isnan(values),
            _INFINITE: np.isinf(values),
            _BEYOND_HALF: (np.abs(values) >= _HALF_ENDS) & np.isfinite(values) & self._half,
        }
        return {what for what, where in found.items() if where.any()}

    def _block(self, values: Floats) -> bytes:
        """Up to 16 lines, compressed: channel by channel in each line, in the order of their names."""
        names = _NAMES[values.shape[2]]
        order = [names.index(name) for name in sorted(names)]
        planes = values[..., order].swapaxes(1, 2)
        # What is beyond half's 65504 becomes infinite, as it should.
        with np.errstate(over="ignore"):
            raw = np.ascontiguousarray(planes, "<f2" if self._half else "<f4").view(np.uint8).ravel()
        # All first bytes of each pair, then all second ones; each less the one before; the differences around 128.
        split = np.concatenate([raw[::2], raw[1::2]])
        split[1:] -= split[:-1].copy()
        split[1:] += 128
        data = zlib.compress(split.data, self._level)
        # Where nothing is gained, readers expect the values themselves.
        return data if len(data) < raw.nbytes else raw.tobytes()


def _is_free(key: str) -> bool:
    """Whether a text may have this name: 1 to 255 bytes, none of them NUL, and none that the format uses itself."""
    return 0 < len(key.encode()) < 256 and "\0" not in key and key not in _RESERVED


#: What the format's readers take for something else than a text.
_RESERVED = {
    *("channels", "compression", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio"),
    *("screenWindowCenter", "screenWindowWidth", "chromaticities", "tiles", "type", "version", "chunkCount", "view"),
}

#: The channels of a pixel in their order in a frame, by their number.
_NAMES: Mapping[int, str] = {1: "Y", 3: "RGB", 4: "RGBA"}


def _srgb_to_linear(values: Floats) -> Floats:
    """The inverse of IEC 61966-2-1's curve."""
    above = ((np.maximum(values, 0) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(values <= np.float32(0.04045), values / np.float32(12.92), above)


def _hlg_to_linear(values: Floats) -> Floats:
    """The inverse of BT.2100's HLG curve, to light in the scene from 0 to 1."""
    a, b, c = np.float32(0.17883277), np.float32(0.28466892), np.float32(0.55991073)
    above = (np.exp((np.maximum(values, np.float32(0.5)) - c) / a) + b) / np.float32(12)
    return np.where(values <= np.float32(0.5), values * values / np.float32(3), above)


_CURVES: Mapping[str, Callable[[Any], Any]] = {
    "sRGB": _srgb_to_linear,
    "HDR": _hlg_to_linear,
    "linear": lambda values: values,
}
