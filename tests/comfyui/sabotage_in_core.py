"""Replacements that are wrong in ways that are easily overlooked, inside one ComfyUI; prints what it found as JSON.

    python core_shim/bootstrap.py sabotage_in_core.py hunyuan15 …

Core's own decoders whose frames leave within a call, small. On the GPU with ``COMFYUI_TEST_GPU``: the kernels as they
are, beside cuDNN's bits. Without: their references in plain torch (``decoder_on_cpu.py``).

Each kind of sabotage is tried as it is for a user, and once more where nobody compares: there it must show.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from blocks_in_core import CHUNK, DECODERS, decoded, latent_for, same, vae_of
from families_in_core import ROOT, pack_module, prepare

ON_GPU = bool(os.environ.get("COMFYUI_TEST_GPU"))
#: Latent frames, height and width: so long that steps are alike, so small that it is quick.
SIZE = (5, 8, 12) if ON_GPU else (5, 2, 3)

#: Pixels in which another order of adding shows for sure.
MANY = 200

#: How often what is wrong was called.
calls: Counter[str] = Counter()


def kernel(name: str) -> Any:
    """The file of kernels of this name."""
    return pack_module(f"{DECODERS}.kernels.{name}")


@contextmanager
def honest() -> Iterator[None]:
    """Nothing is wrong; counts what is used."""
    with ExitStack() as stack:
        for file, name in (("norm", "norm_into"), ("moments", "moments"), ("residual", "add_residual")):
            used = getattr(kernel(file), name)

            def counted(*arguments: Any, used: Any = used, name: str = name) -> Any:
                calls[name] += 1
                return used(*arguments)

            stack.enter_context(mock.patch.object(kernel(file), name, counted))
        yield


@contextmanager
def order() -> Iterator[None]:
    """A norm that adds the channels of a pixel, or the numbers of a group, from the last one to the first."""
    import torch

    norm, moments = kernel("norm"), kernel("moments")
    given = pack_module(f"{DECODERS}.kernels.order").Order("given")
    norm_into, in_order = norm.norm_into, moments.moments

    def norm_backwards(out: Any, x: Any, bias: Any, gamma: Any, formula: Any, asked: Any, norms: Any) -> None:
        if asked.kind != "given":
            calls["order"] += 1
            wide = (x if bias is None else x + bias.view(1, -1, 1, 1, 1)).float()
            total = torch.zeros_like(wide[:, 0])
            for channel in wide.flip(1).unbind(1):
                total += (channel * channel).to(x.dtype if formula.mean else total.dtype)
            made = total * (1 / x.shape[1]) if formula.mean else total.double().sqrt().float()
            norms.view(total.shape).copy_(made)
        norm_into(out, x, bias, gamma, formula, given, norms)

    def moments_backwards(x: Any, groups: int, epsilon: float) -> Any:
        calls["order"] += 1
        return in_order(x.view(len(x), groups, -1).flip(-1).view(x.shape), groups, epsilon)

    with (
        mock.patch.object(norm, "norm_into", norm_backwards),
        mock.patch.object(moments, "moments", moments_backwards),
    ):
        yield


@contextmanager
def once() -> Iterator[None]:
    """A sum of three or four that is rounded once."""

    def add_residual(x: Any, bias: Any, y: Any = None, y_bias: Any = None) -> Any:
        calls["once"] += 1
        wide = x.float()
        for one in (bias, y_bias):
            wide = wide if one is None else wide + one.float().view(1, -1, 1, 1, 1)
        return x.copy_(wide if y is None else wide + y.float())

    with mock.patch.object(kernel("residual"), "add_residual", add_residual):
        yield


@contextmanager
def stale() -> Iterator[None]:
    """A convolution that goes on keeping what it kept of the first piece."""
    import torch

    with ExitStack() as stack:
        for file, name in (("hunyuan", "CarriedConv"), ("seedvr", "KeyedConv"), ("ltx", "TimedConv")):
            kind = getattr(pack_module(f"{DECODERS}.{file}"), name)

            def run(self: Any, *arguments: Any, used: Any = kind.run, told: str = name) -> Any:
                # Each takes its own from one side of it.
                past = arguments[3]
                before = past[-1 if told == "CarriedConv" else 0] if past else None
                out, bias, kept = used(self, *arguments)
                new = kept[0] if isinstance(kept, list) else kept
                if isinstance(before, torch.Tensor) and isinstance(new, torch.Tensor) and before.shape == new.shape:
                    calls["stale"] += 1
                    kept = [before, *kept[1:]] if isinstance(kept, list) else before
                return out, bias, kept

            stack.enter_context(mock.patch.object(kind, "run", run))
        yield


@contextmanager
def neighbours() -> Iterator[None]:
    """A block that flips a bit where what it gets lies as a replaced block hands it on, and not as stock's does."""
    import torch

    with ExitStack() as stack:
        for file in ("hunyuan", "seedvr", "ltx"):
            kind = pack_module(f"{DECODERS}.{file}").ResidualBlock

            def run(self: Any, x: Any, *rest: Any, used: Any = kind.run) -> Any:
                out, kept = used(self, x, *rest)
                if x.stride(1) == 1 and out.shape[2]:
                    calls["neighbours"] += 1
                    out.view(torch.int16)[0, 0, -1, 0, 0] ^= 1
                return out, kept

            stack.enter_context(mock.patch.object(kind, "run", run))
        yield


@contextmanager
def later() -> Iterator[None]:
    """A sum of which one bit is wrong, in a call that is audited and all those behind it."""
    import torch

    place, residual = pack_module(f"{DECODERS}.place").Place, kernel("residual")
    audited, add_residual = place._audit, residual.add_residual

    def goes_wrong(*arguments: Any) -> Any:
        calls["later"] += 1
        return audited(*arguments)

    def one_bit(*arguments: Any) -> Any:
        out = add_residual(*arguments)
        if calls["later"]:
            out.view(torch.int16)[0, 0, -1, 0, 0] ^= 1
        return out

    with mock.patch.object(place, "_audit", goes_wrong), mock.patch.object(residual, "add_residual", one_bit):
        yield


SABOTAGE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    one.__name__: one for one in (honest, order, once, stale, neighbours, later)
}


@contextmanager
def nobody_compares(norms: bool) -> Iterator[None]:
    """Whatever a proof or an audit looks at is as it should be; ``norms``: they are, too, before they are rounded."""
    proof, place = pack_module(f"{DECODERS}.proof"), pack_module(f"{DECODERS}.place")
    with (
        mock.patch.object(proof, "same_bits", (lambda *_: True) if norms else proof.same_bits),
        mock.patch.object(place, "difference", lambda *_: ""),
        mock.patch.object(place, "Fingerprint", lambda *_: None),
    ):
        yield


def audits_of(use: Any, begin: int) -> Any:
    """In place of an auditor's choice: in step ``begin`` a residual block in its middle, in no other one anything."""
    steps = {"begun": 0}
    blocks = {one.name for one in use._step.places if type(one.module).__name__.startswith("Resnet")}

    def choose(_self: Any, times: dict[str, float]) -> str | None:
        steps["begun"] += 1
        fitting = [call for call in times if call.partition("#")[0] in blocks]
        return fitting[len(fitting) // 2] if steps["begun"] == begin else None

    return choose


def orders_of(algorithms: Any) -> Iterator[str]:
    """How a call adds in its norms, but for those of few pixels, which may come out the same in any order."""
    for order, layout in itertools.zip_longest(algorithms.orders, algorithms.norm_layouts):
        if layout is None or math.prod(layout.shape) >= MANY * layout.shape[1]:
            yield order.kind


def tried(sabotage: str, make: str, vae: Any, latent: Any, expected: Any, *, compared: bool) -> dict[str, Any]:
    """A clip while blocks are proven, and with what was; of what goes wrong in its first use or later, once more."""
    faster, auditor = pack_module(DECODERS).faster, pack_module(f"{DECODERS}.audit").Auditor
    model, equal, warnings = vae.first_stage_model, [], []
    calls.clear()

    def clip(folder: str, choose: Any = lambda *_: None) -> Any:
        with (
            faster(model, device=vae.device, verdicts=Path(folder)) as use,
            mock.patch.object(auditor, "choose", choose),
        ):
            equal.append(same(decoded(model, latent), expected))
        warnings.extend(use.warnings)
        return use

    with TemporaryDirectory() as folder, nullcontext() if compared else nobody_compares(sabotage == "order"):
        if sabotage != "later":
            with SABOTAGE[sabotage]():
                for _ in range(3 if sabotage == "neighbours" else 2):
                    use = clip(folder)
        else:
            clip(folder)
            use = clip(folder)
            with SABOTAGE[sabotage]():
                clip(folder, audits_of(use, max(1, use._step.tally.steps - 1)))
                use = clip(folder)
    verdicts = list(use._step.verdicts.verdicts.values())
    return {
        "equal": equal,
        "calls": dict(calls),
        "warnings": warnings,
        "summary": use.summary,
        "proven": sum(one.proven for one in verdicts),
        "orders": sorted({kind for one in verdicts if one.proven for kind in orders_of(one.algorithms)}),
        "reasons": dict(Counter(one.reason for one in verdicts if not one.proven)),
    }


def main() -> None:
    wanted = sys.argv[1:]
    prepare()
    with contextlib.suppress(ImportError, AttributeError):
        # Some frames at once.
        ltx = importlib.import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
        ltx.get_max_chunk_size = lambda _device: CHUNK
    if not ON_GPU:
        sys.path.append(str(ROOT / "tests" / "engine"))
        importlib.import_module("decoder_on_cpu").let_it_run(pack_module, setattr)
    import torch

    pack_module(f"{DECODERS}.families").DOUBTED.clear()
    for make in wanted:
        vae = vae_of(make, torch.device("cuda", 0) if ON_GPU else torch.device("cpu"))
        latent = latent_for(vae, SIZE).to(vae.device)
        with torch.inference_mode():
            expected = decoded(vae.first_stage_model, latent)
            for sabotage in SABOTAGE:
                for compared in (True, False):
                    row: dict[str, Any] = {"case": f"{sabotage} {make}", "compared": compared, "error": None}
                    try:
                        row.update(tried(sabotage, make, vae, latent, expected, compared=compared))
                    except Exception:
                        row["error"] = traceback.format_exc()
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
