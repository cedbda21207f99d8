"""The faster decoder where core fetches weights when they are used, inside one ComfyUI; prints what it found as JSON.

    python core_shim/bootstrap.py fetched_weights_in_core.py "decodes wan21 low" "changes wan22 stays" …

Core's own VAE classes, small, and its own patchers: low VRAM in every core, dynamic VRAM where there is such a thing.
There is no card, so that the kernels are their references in plain torch (``decoder_on_cpu.py``). What is tried is
where weights come from, when, and for how long they are used.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from families_in_core import ROOT, pack_module, prepare

#: Without dynamic VRAM: all is loaded, so that nothing is fetched; low VRAM. For more see ``card_stand_in.Room``.
OLD = ("own", "low")
DECODERS = "async_decode.decoders"


def references() -> None:
    """Let blocks run on a CPU, without audits, which take weights as well."""
    sys.path.append(str(ROOT / "tests" / "engine"))
    importlib.import_module("decoder_on_cpu").let_it_run(pack_module, setattr)
    pack_module(f"{DECODERS}.audit").Auditor.choose = lambda *_: None


class Fetches:
    """Notes whose weights core is asked for, and what it gave."""

    def __init__(self) -> None:
        self.ops: Any = importlib.import_module("comfy.ops")
        self.asked: Counter[tuple[str, str]] = Counter()
        self._names: dict[int, str] = {}

    @contextlib.contextmanager
    def of(self, model: Any) -> Iterator[Counter[tuple[str, str]]]:
        self.asked, self._names = Counter(), {id(part): name for name, part in model.named_modules()}
        honest = self.ops.cast_bias_weight

        def noted(module: Any, *arguments: Any, **named: Any) -> Any:
            told = honest(module, *arguments, **named)
            self.asked[self._names[id(module)], f"{told[0].dtype} {told[0].device}"] += 1
            return told

        with mock.patch.object(self.ops, "cast_bias_weight", noted):
            yield self.asked


def loaded(make: str, how: str, stored: str = "bfloat16") -> Any:
    """The VAE of this family in bfloat16, its weights left where core leaves them."""
    import comfy.sd
    import families
    import torch
    from card_stand_in import CARD, put_elsewhere

    family = next(one for one in families.FAMILIES if one.make.__name__ == make)
    model = family.make()
    families.randomise(model)
    weights = {key: value.to(getattr(torch, stored)) for key, value in model.state_dict().items()}
    device = torch.device("cpu") if how in OLD else CARD
    with families.swapped(family.swap, model.bfloat16()):
        vae = comfy.sd.VAE(sd=weights, dtype=torch.bfloat16, device=device)
    options = {"own": {"full_load": True}, "low": {"lowvram_model_memory": 1}}
    vae.patcher.load(device, **options.get(how, {}))
    put_elsewhere(vae.first_stage_model)
    return vae


@contextlib.contextmanager
def memory_for(how: str) -> Iterator[Any]:
    """What stands for a card's memory in this case."""
    from card_stand_in import dynamic_vram, low_vram

    stand: Any = contextlib.nullcontext() if how == "own" else low_vram() if how == "low" else dynamic_vram(how)  # type: ignore[arg-type]
    with stand as memory:
        yield memory


def latent_for(vae: Any, seed: int = 0) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, vae.latent_channels, 5, 2, 3, generator=generator).to(vae.vae_dtype)


def same(one: Any, other: Any) -> bool:
    import torch

    return bool(one.isfinite().all()) and torch.equal(one.view(torch.int16), other.view(torch.int16))


def decodes(make: str, how: str, memory: Any) -> dict[str, Any]:
    """Stock's decode beside ours while it proves itself, is confirmed and has been; and what was fetched in each."""
    import torch
    from card_stand_in import is_elsewhere

    faster = pack_module(f"{DECODERS}").faster
    vae = loaded(make, how)
    model = vae.first_stage_model
    latent, fetches = latent_for(vae), Fetches()
    with torch.inference_mode():
        with fetches.of(model) as stock:
            expected = model.decode(latent)
        with faster(model, device=latent.device) as use:
            first = model.decode(latent)
            kept_first = use._step.places[0].weights.nbytes
            # What is used for the first time is computed in both ways.
            confirmed = model.decode(latent)
            with fetches.of(model) as ours:
                second = model.decode(latent)
            kept = use._step.places[0].weights.nbytes
            steps = use._step.verdicts
            summary = use.summary
        after = model.decode(latent)
    reasons = Counter(one.reason for one in steps.verdicts.values() if not one.proven)
    return {
        "equal": [same(frames, expected) for frames in (first, confirmed, second, after)],
        "elsewhere": len({name for name, _ in stock if is_elsewhere(model.get_submodule(name))}),
        "left": dict(reasons),
        "proven": sum(one.proven for one in steps.verdicts.values()),
        "summary": summary,
        "fetches": sum(stock.values()),
        "fetched_otherwise": [
            f"{key}: {stock[key]}, {ours[key]}" for key in {*stock, *ours} if stock[key] != ours[key]
        ],
        "pinned": 0 if memory is None else sum(memory.pinned.values()),
        "copied": None if memory is None else memory.fetched,
        "kept": [kept_first, kept, use._step.places[0].weights.nbytes],
        "replaced": [name for name, part in model.named_modules() if "forward" in vars(part)],
    }


def changes(make: str, how: str, memory: Any) -> dict[str, Any]:
    """Weights that change between two decodes of one run: as core changes them, and in place."""
    import torch

    faster = pack_module(f"{DECODERS}").faster
    vae = loaded(make, how)
    model = vae.first_stage_model
    latent, found = latent_for(vae), []
    block = next(part for part in model.decoder.modules() if type(part).__name__ == "ResidualBlock")
    conv = block.residual[2]

    def swapped() -> None:
        import comfy.utils
        from card_stand_in import put_elsewhere

        comfy.utils.set_attr_param(block, "residual.2.weight", conv.weight * 2)
        put_elsewhere(model)
        # So core marks a module whose patches have changed.
        conv._v_signature = None

    def in_place() -> None:
        conv.weight.mul_(0.5)
        conv._v_signature = None

    with torch.no_grad(), faster(model, device=latent.device) as use:
        for change in (None, swapped, in_place):
            if change is not None:
                change()
            for _ in range(3):
                frames = model.decode(latent)
            kept = use._step.places[0].weights.nbytes
            # Stock's code on the same weights, between two decodes of ours.
            with mock.patch.object(use._step.verdicts, "out", "for a comparison"):
                found.append([same(frames, model.decode(latent)), kept])
    return {"equal": [equal for equal, _ in found], "kept": [kept for _, kept in found], "summary": use.summary}


def refusals(make: str, how: str, memory: Any) -> dict[str, Any]:
    """Why weights that core computes anew each time that they are used are left to stock's code."""
    find, unusable = (getattr(pack_module(f"{DECODERS}.families"), name) for name in ("find", "unusable"))

    def reason(stored: str, *patches: str) -> str:
        vae = loaded(make, how, stored)
        for name in patches:
            setattr(vae.first_stage_model.decoder.middle[0].residual[2], name, [lambda weight: weight])
        _, places, _ = find(vae.first_stage_model)
        return str(unusable(places, latent_for(vae)))

    names = ("weight_function", "bias_function", "weight_lowvram_function", "bias_lowvram_function")
    found = {name: reason("bfloat16", name) for name in names}
    return {"reasons": {**found, "stored as float32": reason("float32"), "as it is": reason("bfloat16")}}


PARTS: dict[str, Callable[[str, str, Any], dict[str, Any]]] = {
    part.__name__: part for part in (decodes, changes, refusals)
}


def main() -> None:
    wanted = sys.argv[1:]
    prepare()
    references()
    has_dynamic = hasattr(importlib.import_module("comfy.model_patcher"), "ModelPatcherDynamic")
    for case in wanted:
        part, family, how = case.split()
        row: dict[str, Any] = {"case": case, "error": None, "missing": how not in OLD and not has_dynamic}
        try:
            if not row["missing"]:
                with memory_for(how) as memory:
                    row.update(PARTS[part](family, how, memory))
        except Exception:
            row["error"] = traceback.format_exc()
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
