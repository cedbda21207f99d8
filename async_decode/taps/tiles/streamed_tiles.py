"""Tap for long and large videos: cut into tiles in space, streamed in time, one decoder cache for each tile.

The model's own decode runs once, over the whole frames, and calls its decoder step by step, handing it the cache in
which a causal decoder keeps its past. Each of these calls is made once for each tile instead: with the tile's part of
the step, and with a cache of the tile's own. The tiles of a step are blended and leave, so that a clip is never cut in
time and memory does not grow with it.
"""

from __future__ import annotations

import copy
import inspect
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...decoding import Decoding
from ..base import Submit, VideoDecoder
from ..compiled import original
from ..step_hook import StepHook
from .tile_cache import TileCaches
from .tiling import Scale, Sums, Tiling, spans


class StreamedTiles(StepHook):
    """Tiles of a video whose decoder is called step by step as ``decoder(x, feat_cache=…, feat_idx=…)``.

    The frames are those of ComfyUI's tiled decode with windows as long as the clip, to rounding. What the model does
    before its decoder sees whole frames, which changes nothing where it works pixel by pixel.

    Args:
        decoder: the VAE.
        module: the submodule that is called for each step.
        scale: from latents to pixels, for time, height and width.
        tiling: which tiles; it has no windows.
        finish_piece: as in ``StepHook``. Default: ``None``.
        cache_room: asked when a clip begins: how many bytes the caches of all tiles may take on the device. What does
            not fit waits in host memory for its tile's next step. Default: ``None``, all of them stay.
    """

    def __init__(
        self,
        decoder: VideoDecoder,
        *,
        module: torch.nn.Module,
        scale: Scale,
        tiling: Tiling,
        finish_piece: Callable[[Tensor], Tensor] | None = None,
        cache_room: Callable[[], int] | None = None,
    ) -> None:
        if tiling.tile is None or tiling.window is not None:
            raise ValueError(f"expected tiles without windows, got {tiling}")
        super().__init__(decoder, module=module, finish_piece=finish_piece, at_latent_size=True)
        self.tile, self.overlap = tiling.tile, tiling.overlap
        self.scale = scale
        self.cache_room = cache_room
        self.decoding = Decoding(
            "tiles", exact=False, bounded=True, detail=f"{tiling}; streamed in time, which has no seams"
        )
        self._blended: deque[Tensor] = deque()

    def live_shape(self, latent: Tensor) -> torch.Size:
        *before, height, width = super().live_shape(latent)
        return torch.Size((*before, min(height, self.tile), min(width, self.tile)))

    def frames_of_piece(self, piece: Tensor) -> Tensor:
        return self._blended.popleft()

    def _run_clip(self, clip: Tensor, submit: Submit) -> None:
        self._blended.clear()
        room = None if self.cache_room is None else self.cache_room()
        attributes: dict[str, Any] = vars(self.module)
        replaced = attributes.get("forward")
        self.module.forward = self._forward_by_tiles(self.module.forward, TileCaches(self.decoder.device, room))
        try:
            super()._run_clip(clip, submit)
        finally:
            if replaced is None:
                del self.module.forward
            else:
                self.module.forward = replaced
            self._blended.clear()

    def _forward_by_tiles(self, forward: Callable[..., Any], caches: TileCaches) -> Callable[..., Any]:
        """``forward``, for each tile in turn; what it returns only stands for the blended pieces."""
        # What torch.compile makes of it tells nothing of its parameters.
        signature = inspect.signature(original(self.module).forward)

        def tiled_forward(x: Tensor, *arguments: Any, **named: Any) -> Any:
            call = signature.bind(x, *arguments, **named)
            cache, index = (call.arguments.get(name) for name in ("feat_cache", "feat_idx"))
            stand_for: Any = None
            sums: list[Sums] = []
            for number, (row, rows, column, columns) in enumerate(self._tiles(x)):
                if self.decoder.poll is not None:
                    self.decoder.poll()
                part = x.narrow(3, row, rows).narrow(4, column, columns)
                own: dict[str, Any] = {"feat_cache": caches.take(number, cache)}
                if index is not None:
                    own["feat_idx"] = copy.copy(index)
                call.arguments.update(own)
                output = forward(part, *call.args[1:], **call.kwargs)
                caches.keep(number, own["feat_cache"])
                pieces = [self.finish_piece(piece) for piece in pieces_of(output) if piece.shape[2] > 0]
                if stand_for is None:
                    stand_for, sums = output, [self._sums_for(piece, x) for piece in pieces]
                corner = (0, self.scale.place_of(1, row), self.scale.place_of(2, column))
                feathers = (1, self.scale.size_of(1, self.overlap), self.scale.size_of(2, self.overlap))
                for piece, blend in zip(pieces, sums, strict=True):
                    blend.add(piece.float(), corner, feathers)
            self._blended.extend(stretch for blend in sums for stretch in blend.take(blend.size[0], 0))
            return stand_for

        return tiled_forward

    def _tiles(self, x: Tensor) -> Iterator[tuple[int, int, int, int]]:
        """First row, rows, first column and columns of each tile, in ComfyUI's order."""
        for row, rows in spans(x.shape[3], self.tile, self.overlap):
            for column, columns in spans(x.shape[4], self.tile, self.overlap):
                yield row, rows, column, columns

    def _sums_for(self, piece: Tensor, x: Tensor) -> Sums:
        """For whole frames of the length of ``piece``."""
        height, width = (self.scale.size_of(axis, x.shape[axis + 2]) for axis in (1, 2))
        return Sums((piece.shape[2], height, width), piece.device)


def pieces_of(output: Any) -> list[Tensor]:
    """The pieces in what a decoder returned: a tensor, a list of tensors, or a tuple that starts with one."""
    if isinstance(output, list):
        return output
    return [output[0] if isinstance(output, tuple) else output]
