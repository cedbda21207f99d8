"""ComfyUI's AUDIO as the engine takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..async_decode import SinkError
from ..async_decode.sinks import Sound


def sound_of(audio: Any, notes: list[str]) -> Sound | None:
    """ComfyUI's AUDIO as the engine takes it: the first of a batch, on the host. Of further ones ``notes`` tells.

    Where it is one, but holds nothing that could be heard, there is no sound and ``notes`` says so: it is empty, its
    rate is none of sound, or it is made only when it is asked for (by loaders of video) and turns out to be none.

    Raises:
        SinkError: it is no AUDIO; the message names the value and the remedy.
    """
    if audio is None:
        return None
    try:
        waveform, rate = audio["waveform"], audio["sample_rate"]
    except Exception as error:
        if isinstance(audio, Mapping) and not isinstance(audio, dict):
            notes.append(f"audio: there is none to save ({error}), so the video is silent")
            return None
        raise SinkError(
            f"audio: expected an AUDIO with a waveform and a sample_rate, got {type(audio).__name__}; connect an "
            "output of that type"
        ) from error
    if not isinstance(waveform, torch.Tensor) or waveform.ndim not in (2, 3):
        got = tuple(waveform.shape) if isinstance(waveform, torch.Tensor) else type(waveform).__name__
        raise SinkError(f"audio: expected a waveform (batch, channels, samples), got {got}; trim or load it again")
    try:
        rate = int(rate)
    except (TypeError, ValueError, OverflowError) as error:
        raise SinkError(f"audio: expected a sample_rate as a number, got {rate!r:.100}; load it again") from error
    if waveform.numel() == 0:
        notes.append(
            f"audio: its waveform is empty, {tuple(waveform.shape)}, so the video is silent; trim or load it again"
        )
        return None
    if waveform.ndim == 3 and waveform.shape[0] > 1:
        notes.append(f"audio: it holds {waveform.shape[0]} clips of sound, and the first one is saved")
    samples = (waveform if waveform.ndim == 2 else waveform[0]).detach().to("cpu", torch.float32)
    try:
        return Sound(np.ascontiguousarray(samples.numpy()), rate)
    except ValueError as error:
        notes.append(f"audio: {error}, so the video is silent; resample or load it again")
        return None
