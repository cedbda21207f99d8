"""Decoders of core's whose blocks are replaced, beside stock's, inside one ComfyUI; prints what it found as JSON.

    python core_shim/bootstrap.py blocks_in_core.py hunyuan15 …

Core's own classes, small, on the CPU: the kernels are their references in plain torch (``decoder_on_cpu.py``). What is
tried is all that goes on around them: what is handed on between pieces, layouts, odd sizes, the tap's hook, audits.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from families_in_core import ROOT, pack_module, prepare, stock_frames

DECODERS = "async_decode.decoders"
#: Latent frames, height and width, in this order with one folder of verdicts.
SIZES = ((1, 2, 3), (2, 2, 3), (5, 3, 5), (7, 3, 5), (4, 1, 1), (10, 2, 4))
#: Bytes that LTX works on at once.
CHUNK = 50_000
#: In which many pieces are alike.
LONG = SIZES[-1]


def vae_of(make: str, device: Any = "cpu") -> Any:
    """The VAE of this family, small, in bfloat16."""
    import comfy.sd
    import families
    import torch

    name, made = VARIANTS[make]
    family = next(one for one in families.FAMILIES if one.make.__name__ == name)
    model = made()
    families.randomise(model)
    weights = {key: value.bfloat16() for key, value in model.state_dict().items()}
    with families.swapped(family.swap, model.bfloat16()):
        vae = comfy.sd.VAE(sd=weights, dtype=torch.bfloat16, device=torch.device(device))
    vae.patcher.load(torch.device(device), full_load=True)
    return vae


def wan22() -> Any:
    import families

    return families.wan22()


def hunyuan15() -> Any:
    """With blocks of several widths, and shortcuts that repeat channels differently."""
    import families

    return families.refiner({"block_out_channels": [16, 32, 32, 64, 64], "num_res_blocks": 1})


def hunyuan() -> Any:
    """With blocks of several widths, and groups of one channel and of two."""
    import families

    options = families.kl_options(z_channels=16, conv3d=True, time_compress=4, ch_mult=[1, 2, 2, 2])
    return families.class_named("comfy.ldm.models.autoencoder.AutoencoderKL")(ddconfig=options, embed_dim=16)


def seedvr2() -> Any:
    """With blocks of several widths, cut into parts."""
    import families

    module = importlib.import_module("comfy.ldm.seedvr.vae")
    with (
        mock.patch.object(families, "NARROW", [32, 64, 64, 64]),
        mock.patch.object(module, "BYTEDANCE_VAE_CONV_MEM_GIB", 3e-4),
        mock.patch.object(module, "BYTEDANCE_VAE_NORM_MEM_GIB", 3e-4),
    ):
        return families.seedvr2()


def reflecting_ltx() -> Any:
    """As LTX-2: it reflects its edges, and sees later frames."""
    import families

    return families.quiet_ltx()


def causal_ltx() -> Any:
    """Edges of zeros, no later frames, time and space apart; with a block of other channels, which stays stock's."""
    import families

    config = families.ltx_config(noisy=False)
    config["decoder_blocks"][1:2] = [["compress_space", {"multiplier": 2}], ["compress_time", {"multiplier": 2}]]
    config["decoder_blocks"].insert(1, ["res_x_y", {"multiplier": 2}])
    config.update(causal_decoder=True, spatial_padding_mode="zeros")
    with mock.patch.object(families, "ltx_config", lambda **_: config):
        return families.quiet_ltx()


def told_ltx() -> Any:
    """As LTX 0.9.5: told a time step; it draws noise before the decoder only."""
    import families

    config = families.ltx_config(noisy=True)
    for _, options in config["decoder_blocks"]:
        options.pop("inject_noise", None)
    with mock.patch.object(families, "ltx_config", lambda **_: config):
        return families.noisy_ltx()


#: What is tried: a family of ``families.py``, and how it is made.
VARIANTS = {
    "wan22": ("wan22", wan22),
    "hunyuan15": ("hunyuan15", hunyuan15),
    "hunyuan": ("hunyuan", hunyuan),
    "seedvr2": ("seedvr2", seedvr2),
    "reflecting_ltx": ("quiet_ltx", reflecting_ltx),
    "causal_ltx": ("quiet_ltx", causal_ltx),
    "told_ltx": ("noisy_ltx", told_ltx),
}


def latent_for(vae: Any, size: tuple[int, ...], seed: int = 0) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, vae.latent_channels, *size, generator=generator).to(vae.vae_dtype)


def decoded(model: Any, latent: Any) -> Any:
    """Its frames; what noise it draws is the same each time."""
    import torch

    torch.manual_seed(7)
    return model.decode(latent)


def same(one: Any, other: Any) -> bool:
    import torch

    return bool(one.isfinite().all()) and torch.equal(one, other)


@contextlib.contextmanager
def convolved(odd: set[Any]) -> Iterator[None]:
    """Notes strides of what our blocks convolve where they are not those of a new channels-last tensor."""
    import torch

    with contextlib.ExitStack() as stack:
        for room in ("operations", "proof"):
            module = pack_module(f"{DECODERS}.{room}")

            def noted(x: Any, *rest: Any, honest: Any = module.cudnn_conv) -> Any:
                last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
                if x.stride() != torch.empty(x.shape, memory_format=last).stride():
                    odd.add((tuple(x.shape), x.stride()))
                return honest(x, *rest)

            stack.enter_context(mock.patch.object(module, "cudnn_conv", noted))
        yield


def decodes(make: str) -> dict[str, Any]:
    """Each size twice: stock's decode beside ours, first while it proves itself."""
    import torch

    faster = pack_module(DECODERS).faster
    vae, odd = vae_of(make), set[Any]()
    model, equal, summaries, steps, left = vae.first_stage_model, [], [], [], Counter[str]()
    with torch.inference_mode(), TemporaryDirectory() as folder, convolved(odd):
        for size in SIZES if make not in ("reflecting_ltx", "told_ltx") else [one for one in SIZES if min(one[1:]) > 1]:
            latent = latent_for(vae, size)
            expected = decoded(model, latent)
            for _ in range(2):
                with faster(model, device=latent.device, verdicts=Path(folder)) as use:
                    equal.append(same(decoded(model, latent), expected))
                if use._step is None:
                    return {"unknown": use.reason, "equal": equal}
                steps.append([use._step.tally.proven_steps, use._step.tally.steps])
                summaries.append(use.summary)
                left.update(one.reason for one in use._step.verdicts.verdicts.values() if not one.proven)
    return {
        "equal": equal,
        "steps": steps,
        "summaries": summaries,
        "left": dict(left),
        "odd_strides": sorted(odd),
        "replaced": [name for name, part in model.named_modules() if "forward" in vars(part)],
    }


def taps(make: str) -> dict[str, Any]:
    """Through the pack's own tap, which hooks a part of the decoder; the second time by what was proven."""
    import torch

    engine, vae_side = pack_module("async_decode"), pack_module("nodes.vae")
    sinks = pack_module("async_decode.sinks")
    vae = vae_of(make)
    latent = latent_for(vae, LONG, seed=1).float()
    torch.manual_seed(7)
    expected = stock_frames(vae, latent, 1)
    row: dict[str, Any] = {"equal": [], "pieces": [], "reports": []}
    with TemporaryDirectory() as folder:
        for _ in range(2):
            sink, pieces = sinks.TensorSink(), []
            tap = engine.choose_tap(vae_side.decoder_of(vae))
            finish = vae_side.output_of(vae)
            with engine.FramePipeline([sink], chunk_size=3, device=vae.device, finish=finish) as pipeline:
                submit = pipeline.submit

                def noted(piece: Any, submit: Any = submit, pieces: list[int] = pieces) -> None:
                    pieces.append(piece.shape[0])
                    submit(piece)

                pipeline.submit = noted
                torch.manual_seed(7)
                pipeline.decode(tap, latent, verdicts=Path(folder))
            row["equal"].append(same(sink.tensor, expected))
            row["pieces"].append(pieces)
            row["reports"].append(pipeline.report.decoder)
    return row


def audits(make: str) -> dict[str, Any]:
    """A block that goes wrong once after its proof, in a call that is audited."""
    import torch

    package = pack_module(DECODERS)
    auditor = pack_module(f"{DECODERS}.audit").Auditor
    vae = vae_of(make)
    model, latent = vae.first_stage_model, latent_for(vae, LONG)
    found: dict[str, Any] = {}
    with torch.inference_mode(), TemporaryDirectory() as folder:
        expected = decoded(model, latent)
        for _ in range(2):
            with package.faster(model, device=latent.device, verdicts=Path(folder)) as use:
                decoded(model, latent)
        if use._step is None:
            return {"unknown": use.reason}
        steps, wrong = use._step.tally.steps, [one.name for one in use._step.places if one.block is not None][1]
        now = {"step": 0, "call": 0, "audited": -1}

        def choose(_self: Any, times: Any) -> str | None:
            calls = [call for call in times if call.startswith(f"{wrong}#")]
            now["step"] += 1
            if now["step"] != max(1, steps - 1):
                return None
            now.update(call=0, audited=len(calls) // 2)
            return calls[len(calls) // 2]

        with package.faster(model, device=latent.device, verdicts=Path(folder)) as bad:
            block = next(one for one in bad._step.places if one.name == wrong).block
            honest = block.run

            def run(*arguments: Any) -> Any:
                out, kept = honest(*arguments)
                if now["call"] == now["audited"]:
                    out.view(torch.int16)[0, 0, 0, 0, 0] ^= 1
                now["call"] += 1
                return out, kept

            block.run = run
            with mock.patch.object(auditor, "choose", choose):
                found["equal"] = same(decoded(model, latent), expected)
        found.update(audited=wrong, warnings=bad.warnings)
        with package.faster(model, device=latent.device, verdicts=Path(folder)) as after:
            found["equal_after"] = same(decoded(model, latent), expected)
        found["after"] = after.summary
    return found


def doubted(make: str) -> dict[str, Any]:
    """Why stock's decoder runs for it, as the pack comes."""
    import torch

    with pack_module(DECODERS).faster(vae_of(make).first_stage_model, device=torch.device("cpu")) as use:
        return {"reason": use.reason}


def main() -> None:
    wanted = sys.argv[1:]
    prepare()
    with contextlib.suppress(ImportError, AttributeError):
        # Some frames at once.
        ltx = importlib.import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
        ltx.get_max_chunk_size = lambda _device: CHUNK
    sys.path.append(str(ROOT / "tests" / "engine"))
    importlib.import_module("decoder_on_cpu").let_it_run(pack_module, setattr)
    doubts = pack_module(f"{DECODERS}.families").DOUBTED
    as_it_comes = dict(doubts)
    for make in wanted:
        doubts.update(as_it_comes)
        for part in (doubted, decodes, taps, audits):
            row: dict[str, Any] = {"case": f"{part.__name__} {make}", "error": None}
            try:
                row.update(part(make))
            except Exception:
                row["error"] = traceback.format_exc()
            print(json.dumps(row), flush=True)
            # They are tried here all the same.
            doubts.clear()


if __name__ == "__main__":
    main()
