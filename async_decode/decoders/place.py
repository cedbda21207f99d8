"""A place of a decoder where a block of ours stands for one of stock's: one call, one of four ways.

- *stock*: as if we were not there.
- *proof*: stock's block makes the result; ours is compared with it.
- *run*: our block makes the result, in the ways that were proven for just this call.
- *audit*: ours makes the result, and stock's is compared with it; so is the first use after a proof.
"""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from .call import Cached, Call, Carried, Kept
from .fingerprint import Fingerprint
from .kernels.order import Formula
from .layout import Layout
from .operations import Operations, Unsuited
from .proof import StockNorms, TrialOperations, values_that_differ
from .stopwatch import Stopwatch
from .verdicts import Verdict, digest
from .weights import Weights

T = TypeVar("T")
#: A block's result, and what it keeps.
Made: TypeAlias = tuple[Tensor, list[Kept]]


class Guide(Protocol):
    """What a place has to know of the step that it is called in."""

    mode: Literal["stock", "proof", "run"]
    #: The call that is audited in this step: the name of its place, ``#`` and its number.
    audited: str | None
    #: Stock's code makes the rest of the step.
    given_up: bool
    poll: Callable[[], None]

    def begin(self, call: Carried) -> None:
        """This call is the first one of a step."""

    def number_of(self, name: str) -> int:
        """How many times this place was called in the step before."""

    def verdict_of(self, name: str, number: int) -> Verdict:
        """Of this call in the step."""

    def note_call(self, name: str, number: int, key: str) -> Verdict | None:
        """Note, in a step that is learnt, which call this is; its verdict, if there is one."""

    def note_verdict(self, key: str, verdict: Verdict) -> None:
        """Note what a proof has found out."""

    def not_now(self) -> None:
        """The proof could not be made: the step is not learnt."""

    def ran(self, name: str, verdict: Verdict, *, replaced: bool) -> None:
        """Note who ran a call."""

    def both_ways(self, name: str, number: int, verdict: Verdict, lies: list[Layout | str | None]) -> bool:
        """Whether this call is made in both ways: it is audited, or what it gets has not lain so before."""

    def were_equal(self, name: str, verdict: Verdict, lies: list[Layout | str | None]) -> None:
        """Both ways gave the same bits."""

    def no_room(self, name: str, verdict: Verdict) -> None:
        """There is no memory for both ways."""

    def note_difference(self, occasion: str, name: str, reason: str) -> None:
        """Both ways gave other bits: no replacement is used again on this machine, whatever comes next."""

    def failed_audit(self, occasion: str, name: str, reason: str) -> None:
        """As ``note_difference``, and a warning.

        Raises whatever ends the step, where it can be made anew; else stock's result is used, and its code from there.
        """


class Block(abc.ABC):
    """What is computed in stock's stead.

    ``norms``: stock's norms in the order in which stock's block calls them. ``options``: names of what else its calls
    tell, besides the frames and what is kept.
    """

    norms: list[tuple[torch.nn.Module, Formula]]
    options: tuple[str, ...] = ()

    @abc.abstractmethod
    def run(self, x: Tensor, kept: list[Kept], operations: Operations) -> tuple[Tensor, list[Kept]]:
        """The result for ``x``, and what to keep.

        Args:
            x: ``(1, C, T, H, W)`` in any layout.
            kept: what the call before has kept; it is emptied, so that its memory can be freed early.
            operations: computes norms and convolutions; knows the values of ``options``.

        Raises:
            Unsuited: it is for stock's block to make.
        """


class Place:
    """Stands where a module's ``forward`` stood, for the time of a run.

    Args:
        name: of the module in the decoder.
        module: whose ``forward`` it replaces.
        block: what is computed instead; ``None``: nothing, but stock's code gets the layout that it has in stock.
        entries: how many things the loop keeps for this block.
        leaf: the module is a norm, or a convolution, called by stock's own loop.
        calls: the loop's way to hand on what is kept.
        begins: each call of it begins a step, of which there are several in one call of the decoder.
    """

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        block: Block | None,
        entries: int,
        leaf: bool = False,
        calls: type[Call] = Cached,
        begins: bool = False,
    ) -> None:
        self.name, self.module, self.block, self.entries, self.leaf = name, module, block, entries, leaf
        self.begins, self.leaves, self._calls = begins, calls.leaves, calls
        self.stock: Callable[..., Any] = module.forward
        self.__signature__ = signature_of(self.stock)
        self.step: Guide | None = None
        self.weights = Weights()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        step = self.step
        if step is None:
            return self.stock(*arguments, **named)
        call = self._calls(self.stock, self.entries, self.__signature__, arguments, named)
        if self.begins:
            assert isinstance(call, Carried)
            step.begin(call)
        if step.mode == "stock":
            return self.stock(*arguments, **named)
        number = step.number_of(self.name)
        if step.mode == "proof":
            return self._prove(step, call, number, arguments, named)
        verdict = step.verdict_of(self.name, number)
        if self.block is None or not verdict.proven or step.given_up:
            step.ran(self.name, verdict, replaced=False)
            x = verdict.x.applied_to(call.x)
            out, kept = call.in_stock(x, in_layouts(call.take(), verdict.caches))
            call.keep(kept)
            return out
        step.poll()
        step.ran(self.name, verdict, replaced=True)
        lies = [Layout.of(one) if isinstance(one, Tensor) else one for one in (call.x, *call.kept)]
        if step.both_ways(self.name, number, verdict, lies):
            return self._audit(step, call, verdict, lies)
        operations = Operations(verdict.algorithms, self.weights, self._options(call))
        out, kept = self.block.run(call.x, call.take(), operations)
        call.keep(kept)
        return out

    def _options(self, call: Call) -> dict[str, Any]:
        return {} if self.block is None else {name: call.option(name) for name in self.block.options}

    def _prove(self, step: Guide, call: Call, number: int, arguments: Any, named: Any) -> Any:
        x, kept = call.x, call.kept
        layout, caches = Layout.of(x), [Layout.of(one) if isinstance(one, Tensor) else one for one in kept]
        told_caches = [one.to_json() if isinstance(one, Layout) else one for one in caches]
        options = {
            name: Layout.of(one).to_json() if isinstance(one, Tensor) else one
            for name, one in self._options(call).items()
        }
        key = digest([self.name, layout.to_json(), told_caches, options])
        known = step.note_call(self.name, number, key)
        heard = StockNorms([] if self.block is None else self.block.norms)
        if known is None and self.leaf and heard.modules:
            heard.hear(x, heard.modules[0][1])
            heard.modules = []
        watch = Stopwatch(x.device)
        if known is None and self.block is not None:
            with heard.listening():
                out = self.stock(*arguments, **named)
        else:
            out = self.stock(*arguments, **named)
        watch.stop()
        if known is not None:
            known.milliseconds = min(known.milliseconds, watch.milliseconds)
            return out
        operations = TrialOperations(heard, self.weights, self._options(call))
        reason = "" if self.block is not None else "left as it is"
        if self.block is not None:
            try:
                ours, ours_kept = self.block.run(x, list(kept), operations)
                reason = difference(out, ours, call.after(), ours_kept)
            except torch.cuda.OutOfMemoryError:
                # Not proven now; there may be room another time.
                step.not_now()
                reason = "no memory for the proof"
            except Unsuited as why:
                reason = str(why)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        step.note_verdict(key, Verdict(not reason, operations.algorithms, layout, caches, watch.milliseconds, reason))
        return out

    def _audit(self, step: Guide, call: Call, verdict: Verdict, lies: list[Layout | str | None]) -> Tensor:
        """Ours, compared with stock's, of which no more is in memory meanwhile than what it is computed from."""
        block, x, kept = self.block, call.x, call.take()
        assert block is not None
        operations = Operations(verdict.algorithms, self.weights, self._options(call))

        def in_stock() -> Made:
            return call.in_stock(verdict.x.applied_to(x), in_layouts(list(kept), verdict.caches))

        def both() -> tuple[bool, Made]:
            expected = Fingerprint(*in_stock())
            made = block.run(x, list(kept), operations)
            return Fingerprint(*made) == expected, made

        def counted(ours: Made) -> tuple[str, Made]:
            stock = in_stock()
            reason = difference(stock[0], ours[0], stock[1], ours[1])
            return reason or "stock's own result is another one each time", stock

        compared = if_there_is_room(both)
        if compared is None:
            step.no_room(self.name, verdict)
            made = block.run(x, kept, operations)
        else:
            equal, made = compared
            if equal:
                step.were_equal(self.name, verdict, lies)
            else:
                occasion = "an audit" if lies in verdict.confirmed else "the first use"
                step.note_difference(occasion, self.name, "its result differs")
                found = if_there_is_room(lambda: counted(made))
                # Stock's has room where ours has gone.
                del compared, made
                step.failed_audit(occasion, self.name, "its result differs" if found is None else found[0])
                made = in_stock() if found is None else found[1]
        call.keep(made[1])
        return made[0]


def if_there_is_room(make: Callable[[], T]) -> T | None:
    """What ``make`` returns, or ``None``: the device has no memory for it.

    What it was working on has gone then, which an error that is handled would hold.
    """
    try:
        return make()
    except torch.cuda.OutOfMemoryError:
        return None


def signature_of(forward: Callable[..., Any]) -> inspect.Signature:
    """That of a module's ``forward``; where ComfyUI's hands on whatever it gets, that of torch's modules."""
    told = inspect.signature(forward)
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in told.parameters.values()):
        return inspect.Signature([inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD)])
    return told


def in_layouts(kept: list[Kept], layouts: list[Layout | str | None]) -> list[Kept]:
    """``kept``, each tensor in its layout."""
    return [
        layout.applied_to(one) if isinstance(one, Tensor) and isinstance(layout, Layout) else one
        for one, layout in zip(kept, layouts, strict=True)
    ]


def difference(stock: Tensor, ours: Tensor, stock_kept: list[Kept], ours_kept: list[Kept]) -> str:
    """In which way our result is not stock's, in words; empty where it is."""
    if (stock.shape, stock.dtype) != (ours.shape, ours.dtype):
        return "its result has another shape or type"
    count = values_that_differ(stock, ours)
    if count:
        return f"{count:,} of its {stock.numel():,} values differ{'s' if count == 1 else ''}"
    for one, other in zip(stock_kept, ours_kept, strict=True):
        if isinstance(one, Tensor) and isinstance(other, Tensor):
            count = values_that_differ(one, other)
            if count:
                return f"{count:,} of {one.numel():,} values that it keeps differ{'s' if count == 1 else ''}"
        elif one is not other and one != other:
            return "it keeps something else"
    return ""
