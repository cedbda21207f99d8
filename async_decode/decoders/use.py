"""The way in: ``with faster(model, …)``, for the time of a decode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from ..errors import DecodeError
from .audit import Auditor
from .families import Unknown, find, settings_of, unusable
from .kernels import why_not
from .step import Step
from .verdicts import Verdicts, environment_of
from .weights import Weights

Mode = Literal["auto", "stock"]


def check_mode(mode: str) -> None:
    """Refuse what is no ``Mode``.

    Raises:
        DecodeError: the message names the value.
    """
    if mode not in get_args(Mode):
        raise DecodeError(f"decoder: expected {' or '.join(get_args(Mode))}, got {mode!r}")


class DecoderUse:
    """What became of a decoder in a run.

    Attributes:
        reason: why stock's decoder ran throughout; empty where it did not.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._step: Step | None = None

    @property
    def warnings(self) -> list[str]:
        """What somebody should know: an audit that failed."""
        return [] if self._step is None else list(self._step.warnings)

    @property
    def summary(self) -> str:
        """One line for the report; empty where nothing was decoded."""
        if self.reason or self._step is None:
            return f"stock's: {self.reason}" if self.reason else ""
        tally, auditor = self._step.tally, self._step.auditor
        if "all" in tally.reasons and not tally.replaced:
            return f"stock's: {tally.reasons['all']}"
        told = []
        if tally.all:
            told.append(f"{tally.replaced / tally.all:.0%} of the blocks' time in proven kernels")
            told.append(f"{len(tally.places)} places, {auditor.audited} audited")
        if tally.confirmed:
            told.append(f"{len(tally.confirmed)} were used in a new way, and confirmed")
        if tally.unconfirmed:
            told.append(f"of {len(tally.unconfirmed)} there was no memory for computing them in both ways")
        if tally.proven_steps:
            told.append(f"{tally.proven_steps} of {tally.steps} steps were stock's, to prove them")
        left = {name: why for name, why in tally.reasons.items() if why != "left as it is"}
        if left:
            name, why = next(iter(left.items()))
            others = f" and {len(left) - 1} more" if len(left) > 1 else ""
            told.append(f"stock's at {name}{others}: {why}")
        return ", ".join(told)


@contextmanager
def faster(
    model: torch.nn.Module,
    *,
    device: torch.device,
    verdicts: Path | None = None,
    mode: Mode = "auto",
    poll: Callable[[], None] | None = None,
    audit_seed: int | None = None,
) -> Iterator[DecoderUse]:
    """Let the blocks of ``model``'s decoder be replaced by faster ones with the same bits, within the ``with`` block.

    Args:
        model: a VAE, of ComfyUI or Diffusers; one that is not known is left alone.
        device: where it decodes.
        verdicts: a folder for what was proven on this machine; ``None``: every run proves anew.
        mode: ``stock`` leaves everything as it is.
        poll: called again and again while it decodes; raises what shall end it.
        audit_seed: for tests: makes the choice of what is audited the same each time.

    Yields:
        What becomes of it.

    Raises:
        DecodeError: ``mode`` is none.
    """
    check_mode(mode)
    use = DecoderUse()
    if mode == "stock":
        use.reason = "as asked for"
        yield use
        return
    use.reason = why_not(device)
    if use.reason:
        yield use
        return
    try:
        decoder, places, sources = find(model)
        dtype = next(decoder.parameters()).dtype
        known = Verdicts(verdicts, environment_of(decoder, device, dtype, sources))
    except Unknown as unknown:
        use.reason = str(unknown)
    except Exception as error:
        # Whatever is odd about this model or this machine, stock's decoder runs.
        use.reason = f"the faster one could not be made ready: {type(error).__name__}: {error}"
    if use.reason:
        yield use
        return
    step = use._step = Step(
        decoder,
        places,
        known,
        poll=poll if poll is not None else _nothing,
        usable=lambda x: unusable(places, x),
        settings=lambda x: settings_of(decoder, x),
        auditor=Auditor(audit_seed),
    )
    weights = Weights()
    # Before any is replaced: a place remembers the forward that it found.
    stands: list[tuple[Any, Any]] = [(decoder, step), *((place.module, place) for place in places)]
    for place in places:
        place.weights = weights
    try:
        for module, stand in stands:
            module.forward = stand
        yield use
    finally:
        for module, _ in stands:
            vars(module).pop("forward", None)
        weights.clear()
        known.save()


def _nothing() -> None:
    """No poll."""
