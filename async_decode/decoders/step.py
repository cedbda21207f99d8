"""One step of a decode: stock's loop runs it, and every place in it learns what to do.

A step is a call of the decoder; where the decoder takes the whole clip and goes through it in pieces, it is a piece.

A step that begins as an earlier one did, with inputs of the same shapes and with what the decoder keeps lying in the
same layouts in stock, is the same step: stock's run of it was seen, and every call in it proven or not. Any other step
is stock's to run, and ours to learn from.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from .audit import Auditor
from .call import Carried, Cells, Shelf
from .history import CACHE, SHELF, History, note
from .layout import Layout
from .place import Place
from .stopwatch import current
from .verdicts import StepPlan, Verdict, Verdicts, digest


class Again(Exception):
    """An audit has found a difference: the step is to be made anew."""


class Tally:
    """What was done in a run, for the report."""

    def __init__(self) -> None:
        #: Milliseconds of stock's that replacements stood for, and all of the steps that were seen.
        self.replaced = 0.0
        self.all = 0.0
        self.proven_steps = 0
        self.steps = 0
        #: Why a place ran stock's code, by its name.
        self.reasons: dict[str, str] = {}
        self.places: set[str] = set()
        #: Places that were used in a new way: with the same bits in both ways, or without room for both.
        self.confirmed: set[str] = set()
        self.unconfirmed: set[str] = set()


class Step:
    """Stands where a decoder's ``forward`` stood, for the time of a run.

    Args:
        module: the decoder: what is called once a step, or once a clip.
        places: in it.
        verdicts: of this model on this machine.
        poll: called at every call of a place that runs ours; raises what shall end the decode.
        usable: says why the places cannot run just now (weights have been moved away); empty where they can.
        settings: what else decides how the loop goes.
        auditor: chooses what to audit.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        places: list[Place],
        verdicts: Verdicts,
        *,
        poll: Callable[[], None],
        usable: Callable[[Tensor], str],
        settings: Callable[[Tensor], Any],
        auditor: Auditor,
    ) -> None:
        self.stock: Callable[..., Any] = module.forward
        self.__signature__ = inspect.signature(self.stock)
        self.places = places
        self.verdicts = verdicts
        self.poll = poll
        self.tally = Tally()
        self.mode: Literal["stock", "proof", "run"] = "stock"
        #: The call that is audited in this step: the name of its place, ``#`` and its number.
        self.audited: str | None = None
        #: An audit has found a difference in a step that cannot be made anew: stock's code makes the rest of it.
        self.given_up = False
        self.warnings: list[str] = []
        self.auditor = auditor
        self._usable, self._settings = usable, settings
        self._plan = StepPlan()
        self._numbers: Counter[str] = Counter()
        self._key = ""
        self._unfinished = False
        self._history: History | None = None
        #: What the decoder keeps of the piece that is being made.
        self._carried: list[Any] | None = None
        self._of_pieces = any(place.begins for place in places)
        self._leaves = any(place.leaves for place in places)
        for place in places:
            place.step = self

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        told = self.__signature__.bind(*arguments, **named).arguments
        x = next(one for one in (*arguments, *named.values()) if isinstance(one, Tensor))
        with current(x.device):
            if not self._of_pieces:
                return self._make(x, told, arguments, named)
            try:
                out = self.stock(*arguments, **named)
                self._end(self._carried)
                return out
            finally:
                self._reset()

    def begin(self, call: Carried) -> None:
        """This call is the first one of a step within a call of the decoder; the step before is over."""
        self._end(self._carried)
        self._reset()
        # A step cannot be made anew: pieces of the clip have left.
        self._begin(call.x, {"x": call.x, "last": call.carried_out is None}, call.carried_in)
        self._carried = call.carried_out

    def _make(self, x: Tensor, told: dict[str, Any], arguments: Any, named: Any) -> Any:
        """A step that is a call of the decoder."""
        cache: Cells | None = told.get(CACHE)
        if told.get(SHELF) is not None:
            cache = Shelf(told[SHELF])
        history = None if self._leaves else History.of(told)
        try:
            # What frames leave to is another thing each time.
            own = {name: one for name, one in told.items() if name != CACHE}
            if self._leaves:
                own = {"x": x, "state": told.get("memory_state")}
            self._begin(x, {**own, "settings": self._settings(x)}, cache)
            self._history = history
            out = self.stock(*arguments, **named)
            self._end(cache)
            note(history, cache)
            return out
        except Again:
            # Not here: as long as the error is handled, all that the step was working on is kept.
            pass
        finally:
            self._reset()
        assert history is not None
        return history.again(self.stock, told, self.poll)

    def _begin(self, x: Tensor, told: dict[str, Any], cache: Cells | None) -> None:
        """Decide whose the step is.

        Args:
            x: its frames.
            told: what it is called with, by name, without ``cache``.
            cache: what the decoder has kept.
        """
        self.tally.steps += 1
        self._numbers.clear()
        reason = self.verdicts.out or self._usable(x)
        if reason:
            self.tally.reasons["all"] = reason
            restore_layouts(cache)
            return
        self._key = _name_of(told, cache)
        plan = self.verdicts.steps.get(self._key)
        if plan is None:
            restore_layouts(cache)
            self.mode, self._plan, self._unfinished = "proof", StepPlan(), False
            self.tally.proven_steps += 1
        else:
            self.mode, self._plan = "run", plan
            self.audited = self.auditor.choose(self._times(plan))

    def _end(self, cache: Cells | None) -> None:
        """The step is made; ``cache``: what the decoder keeps after it."""
        if self.mode == "proof":
            self._plan.after = [Layout.of(one) if isinstance(one, Tensor) else None for one in cache or []]
            if not self._unfinished:
                self.verdicts.steps[self._key] = self._plan
                self.verdicts.changed = True
        elif self.mode == "run":
            for one, layout in zip(cache or [], self._plan.after, strict=True):
                if isinstance(one, Tensor) and layout is not None:
                    layout.mark(one)

    def _reset(self) -> None:
        """No step is being made."""
        self.mode, self.audited, self.given_up = "stock", None, False
        self._history = self._carried = None

    def _times(self, plan: StepPlan) -> dict[str, float]:
        """Milliseconds of stock's in ``plan`` for each call of a place that is replaced."""
        times: dict[str, float] = {}
        for call, key in plan.calls.items():
            verdict = self.verdicts.verdicts[key]
            if verdict.proven:
                times[call] = verdict.milliseconds
        return times

    def number_of(self, name: str) -> int:
        """How many times this place was called in the step before."""
        self._numbers[name] += 1
        return self._numbers[name] - 1

    def verdict_of(self, name: str, number: int) -> Verdict:
        """Of this call in the step."""
        return self.verdicts.verdicts[self._plan.calls[f"{name}#{number}"]]

    def note_call(self, name: str, number: int, key: str) -> Verdict | None:
        """Note, in a step that is learnt, which call this is; its verdict, if there is one."""
        self._plan.calls[f"{name}#{number}"] = key
        return self.verdicts.verdicts.get(key)

    def note_verdict(self, key: str, verdict: Verdict) -> None:
        """Note what a proof has found out."""
        self.verdicts.verdicts[key] = verdict
        self.verdicts.changed = True

    def not_now(self) -> None:
        """The proof could not be made: the step is not learnt."""
        self._unfinished = True

    def ran(self, name: str, verdict: Verdict, *, replaced: bool) -> None:
        """Note who ran a call."""
        self.tally.all += verdict.milliseconds
        if replaced:
            self.tally.replaced += verdict.milliseconds
            self.tally.places.add(name)
        elif verdict.reason:
            self.tally.reasons[name] = verdict.reason

    def both_ways(self, name: str, number: int, verdict: Verdict, lies: list[Layout | str | None]) -> bool:
        """Whether this call is made in both ways: it is audited, or what it gets has not lain so before.

        Args:
            name, number: of the call.
            verdict: of it.
            lies: layouts of what it gets, as it is and not as it would be in stock.
        """
        first = lies not in verdict.confirmed and not verdict.no_room
        return first or self.audited == f"{name}#{number}"

    def were_equal(self, name: str, verdict: Verdict, lies: list[Layout | str | None]) -> None:
        """Both ways gave the same bits."""
        if lies not in verdict.confirmed:
            verdict.confirmed.append(lies)
            self.verdicts.changed = True
            self.tally.confirmed.add(name)

    def no_room(self, name: str, verdict: Verdict) -> None:
        """There is no memory for both ways: not tried again in this run."""
        verdict.no_room = True
        self.tally.unconfirmed.add(name)

    def note_difference(self, occasion: str, name: str, reason: str) -> None:
        """Both ways gave other bits: no replacement is used again on this machine, whatever comes next."""
        self.verdicts.rule_out(f"{occasion} of {name} failed: {reason}")

    def failed_audit(self, occasion: str, name: str, reason: str) -> None:
        """As ``note_difference``, and a warning.

        All replacements are out, not this place's: they share their code and what torch decides, and of the others this
        run knows no more than it knew of this one.

        Raises:
            Again: the step is made anew, by stock's code.
        """
        self.note_difference(occasion, name, reason)
        made = "The step was made anew by stock's decoder, which is used from now on"
        if self._history is None:
            made = "Stock's result was used, and stock's decoder from there on"
        self.warnings.append(
            f"decoder: {name} was computed in both ways, and {reason}. {made}: the faster one is out on this machine "
            "for this model. Please report it"
        )
        self.given_up = True
        if self._history is not None:
            raise Again


def _name_of(told: dict[str, Any], cache: Cells | None) -> str:
    """A name for a step that begins like this one."""
    plain: dict[str, Any] = {}
    for name, value in told.items():
        plain[name] = Layout.in_stock(value).to_json() if isinstance(value, Tensor) else repr(value)
    if cache is not None:
        plain[CACHE] = [Layout.in_stock(one).to_json() if isinstance(one, Tensor) else one for one in cache]
    return digest(plain)


def restore_layouts(cache: Cells | None) -> None:
    """Put what the decoder keeps into the layouts that it has in stock, for stock's code to go on."""
    for number, one in enumerate(cache or []):
        if isinstance(one, Tensor) and cache is not None:
            cache[number] = Layout.in_stock(one).applied_to(one)
