r"""The faster decoder beside stock's, clip by clip, bit for bit; and how long both take. On a CUDA device.

    python tests/benchmarks/decoder_soak.py --family diffusers-wan2.1 --seconds 60 --out soak.json
    python tests/benchmarks/decoder_soak.py --family comfy-wan2.1 --core ~/ComfyUI --time 90x160x21 --out soak.json
    python tests/benchmarks/decoder_soak.py --family comfy-wan2.1 --core ~/ComfyUI --dynamic-vram \
        --time 90x160x21 60x104x21 --seconds 60 --out dynamic.json

With ``--dynamic-vram`` both ways get their weights as ComfyUI has them by default: fetched when they are used;
``--leave`` fills the card but for so many GiB, so that the weights cannot all stay on it.

Full-size models with random weights in bfloat16; sizes and lengths at random, odd ones too; latents of noise and soft
ones. Every clip is decoded by stock's decoder, by the faster one while it proves itself, again while its first uses are
compared, and as it is from then on.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import core_dynamic_vram

from async_decode.decoders import families, faster
from async_decode.decoders.audit import Auditor

#: Channels of the latents of each.
FAMILIES = {
    "comfy-wan2.1": 16,
    "comfy-wan2.2": 48,
    "comfy-hunyuan1.0": 16,
    "comfy-hunyuan1.5": 32,
    "comfy-seedvr2": 16,
    "comfy-ltx": 128,
    "comfy-ltx0.9.5": 128,
    "diffusers-wan2.1": 16,
    "diffusers-wan2.2": 48,
    "diffusers-qwen-image": 16,
}
#: Kernels that a profile tells of.
_KERNELS = 30
#: How many values differ, as a reason tells it.
_TOLD = re.compile(r"^([\d,]+) of (?:its )?([\d,]+) values")
#: Decodes of a clip by the faster decoder: proven, confirmed, as it is from then on.
_TIMES = 3
DEVICE, DTYPE = torch.device("cuda", 0), torch.bfloat16
Decode = Callable[[Tensor], Tensor]


def model_of(family: str, core: Path | None, file: Path | None) -> tuple[Any, Decode, int]:
    """The model, its decode, and the channels of its latent.

    Args:
        family: one of ``FAMILIES``.
        core: a checkout of ComfyUI.
        file: where its weights are put, for core to fetch them from; ``None``: they are on the card.
    """
    if core is not None and file is None:
        sys.path.insert(0, str(core))
        # Nothing of it is needed here, and it may not be installed.
        kitchen: Any = types.ModuleType("comfy_kitchen")
        kitchen.int8_attention_is_available = lambda: False
        sys.modules.setdefault("comfy_kitchen", kitchen)
        import comfy.options

        comfy.options.enable_args_parsing(False)
    shape = {
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_scales": [],
        "temperal_downsample": [False, True, True],
    }
    if family == "comfy-wan2.1":
        from comfy.ldm.wan.vae import WanVAE

        model: Any = WanVAE(dim=96, z_dim=16, **shape)
    elif family == "comfy-wan2.2":
        from comfy.ldm.wan.vae2_2 import WanVAE as WanVAE22

        model = WanVAE22(dim=160, dec_dim=256, z_dim=48, **shape)
    elif family == "comfy-hunyuan1.5":
        model = _hunyuan15()
    elif family == "comfy-hunyuan1.0":
        model = _hunyuan10()
    elif family == "comfy-seedvr2":
        from comfy.ldm.seedvr.vae import VideoAutoencoderKLWrapper

        model = VideoAutoencoderKLWrapper()
        model.encoder = torch.nn.Identity()
    elif family in ("comfy-ltx", "comfy-ltx0.9.5"):
        model = _ltx(told=family == "comfy-ltx0.9.5")
    else:
        import diffusers

        if family == "diffusers-qwen-image":
            model = diffusers.AutoencoderKLQwenImage()
        elif family == "diffusers-wan2.1":
            model = diffusers.AutoencoderKLWan()
        else:
            model = diffusers.AutoencoderKLWan(
                base_dim=160,
                decoder_base_dim=256,
                z_dim=48,
                is_residual=True,
                patch_size=2,
                in_channels=12,
                out_channels=12,
                scale_factor_spatial=16,
                latents_mean=[0.0] * 48,
                latents_std=[1.0] * 48,
            )
    drawn, generator = model.state_dict(), torch.Generator().manual_seed(1)
    for name, weight in drawn.items():
        noise = torch.randn(weight.shape, generator=generator)
        if "std-of-means" in name:
            drawn[name] = torch.ones_like(noise)
        elif "gamma" in name or ("norm" in name and name.endswith("weight") and weight.ndim == 1):
            drawn[name] = 1 + 0.1 * noise
        else:
            drawn[name] = noise * ((1 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.02)
    channels = FAMILIES[family]
    if file is not None:
        vae = core_dynamic_vram.vae_out_of({name: weight.to(DTYPE) for name, weight in drawn.items()}, file, DEVICE)
        core_dynamic_vram.made_ready(vae)()
        return vae.first_stage_model, _seeded(vae.first_stage_model.decode), channels
    model.load_state_dict(drawn)
    model = model.to(DEVICE, DTYPE).eval().requires_grad_(False)
    of_core = family.startswith("comfy-")
    return model, _seeded(model.decode) if of_core else lambda latent: model.decode(latent).sample, channels


def _hunyuan10() -> Any:
    """Core's, without its encoder."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    shape = {
        "double_z": True,
        "z_channels": 16,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 128,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "dropout": 0.0,
        "conv3d": True,
        "time_compress": 4,
    }
    model = AutoencoderKL(ddconfig=shape, embed_dim=16)
    model.encoder = torch.nn.Identity()
    return model


def _hunyuan15() -> Any:
    """Core's, without its encoder."""
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    shape = {
        "in_channels": 3,
        "out_channels": 3,
        "z_channels": 32,
        "num_res_blocks": 2,
        "ffactor_spatial": 16,
        "ffactor_temporal": 4,
        "downsample_match_channel": True,
        "upsample_match_channel": True,
    }
    refiner = "comfy.ldm.hunyuan_video.vae_refiner"
    model = AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.EmptyRegularizer"},
        encoder_config={"target": f"{refiner}.Encoder", "params": {**shape, "block_out_channels": [32] * 5}},
        decoder_config={
            "target": f"{refiner}.Decoder",
            "params": {**shape, "block_out_channels": [128, 256, 512, 1024, 1024]},
        },
    )
    model.encoder = torch.nn.Identity()
    return model


def _ltx(*, told: bool) -> Any:
    """Core's with the structure of 0.9.5, without its encoder; not ``told`` a time step, it is as LTX-2's."""
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE

    model = VideoVAE(config={**VideoVAE.get_default_config(None, 2), "timestep_conditioning": told})
    model.encoder = torch.nn.Identity()
    return model


def _seeded(decode: Decode) -> Decode:
    """``decode`` with the same noise each time, where it draws some."""

    def seeded(latent: Tensor) -> Tensor:
        torch.manual_seed(0)
        return decode(latent)

    return seeded


def latent_of(seed: int, channels: int, size: tuple[int, int, int]) -> Tensor:
    """Noise, or, for every other seed, something as soft as a latent of a video."""
    time_, height, width = size[2], size[0], size[1]
    generator = torch.Generator().manual_seed(seed)
    if seed % 2:
        small = torch.randn(
            1, channels, max(1, time_ // 2), max(1, height // 6), max(1, width // 6), generator=generator
        )
        drawn = torch.nn.functional.interpolate(small, (time_, height, width), mode="trilinear")
        drawn = drawn + 0.05 * torch.randn(1, channels, time_, height, width, generator=generator)
    else:
        drawn = torch.randn(1, channels, time_, height, width, generator=generator)
    return (drawn * (0.5 + 0.1 * (seed % 8))).to(DEVICE, DTYPE)


def size_of(seed: int, largest: int) -> tuple[int, int, int]:
    """Height, width and frames of a latent."""
    drawn = random.Random(seed)
    return drawn.randint(6, largest), drawn.randint(6, largest), drawn.choice((1, 1, 2, 3, 4, 5, 6, 7, 9))


def _kind(reason: str) -> str:
    """``reason`` without its numbers."""
    return _TOLD.sub("some values", reason)


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int16), b.view(torch.int16))


def seconds(call: Callable[[], Any]) -> float:
    """The best of three, after one to warm up."""
    taken = []
    for _ in range(4):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def peak(call: Callable[[], Any]) -> int:
    """Bytes of device memory at the worst moment."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def found_out(verdicts: Any) -> dict[str, Any]:
    """What was proven, and how; and what was not, where, why and how many times."""
    known = list(verdicts.verdicts.values())
    names: dict[str, set[str]] = {}
    for step in verdicts.steps.values():
        for call, key in step.calls.items():
            names.setdefault(key, set()).add(call.partition("#")[0])
    refused = Counter(
        f"{name}: {_kind(one.reason)}"
        for key, one in verdicts.verdicts.items()
        for name in names.get(key, {"a step that is not known"})
        if not one.proven
    )
    told = [[int(number.replace(",", "")) for number in pair] for one in known for pair in _TOLD.findall(one.reason)]
    shares = [100 * differ / values for differ, values in told]
    return {
        "steps_known": len(verdicts.steps),
        "calls": dict(Counter("proven" if one.proven else _kind(one.reason) for one in known)),
        "confirmed": sum(bool(one.confirmed) for one in known),
        "ways_confirmed": sum(len(one.confirmed) for one in known),
        "refused": dict(refused),
        "percents_that_differ": [min(shares), max(shares)] if shares else [],
        "orders": dict(Counter(str(order.to_json()) for one in known for order in one.algorithms.orders)),
        "convolutions": dict(Counter(way for one in known for way in one.algorithms.convs)),
    }


def profile(call: Callable[[], Any]) -> list[dict[str, Any]]:
    """The device's time in one call, kernel by kernel, the longest ones first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    kernels = sorted(seen.key_averages(), key=lambda one: -one.self_device_time_total)
    return [
        {"kernel": one.key[:120], "milliseconds": round(one.self_device_time_total / 1e3, 3), "calls": one.count}
        for one in kernels[:_KERNELS]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--core", type=Path, help="a checkout of ComfyUI, for its own classes")
    parser.add_argument("--dynamic-vram", action="store_true", help="weights as ComfyUI has them by default")
    parser.add_argument("--leave", type=float, metavar="GIB", help="with --dynamic-vram: so much of the card is free")
    parser.add_argument("--seconds", type=float, default=0.0, help="soak for so long")
    parser.add_argument("--clips", type=int, default=10**6, help="soak so many clips at most")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=40, help="the longest side of a latent in the soak")
    parser.add_argument("--time", nargs="*", default=[], metavar="HxWxT", help="latents to time")
    parser.add_argument("--profile", action="store_true", help="of both ways, for the latents that are timed")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    if asked.dynamic_vram and (asked.core is None or not asked.family.startswith("comfy-")):
        parser.error("--dynamic-vram: expected a family of ComfyUI's, and its --core")
    if asked.leave is not None and not asked.dynamic_vram:
        parser.error("--leave: expected --dynamic-vram as well")
    # What is not used yet is measured here, too.
    families.DOUBTED.clear()
    folder = Path(tempfile.mkdtemp())
    if asked.dynamic_vram:
        core_dynamic_vram.switch_on(asked.core, DEVICE)
    file = folder / "vae.safetensors" if asked.dynamic_vram else None
    model, decode, channels = model_of(asked.family, asked.core, file)
    # It is there until the end.
    filling = None if asked.leave is None else core_dynamic_vram.filled(DEVICE, asked.leave)
    uses: list[Any] = []

    def ours(latent: Tensor) -> Tensor:
        with faster(model, device=DEVICE, verdicts=folder) as use:
            frames = decode(latent)
        uses.append(use)
        return frames

    result: dict[str, Any] = {
        "family": asked.family,
        "date": time.strftime("%Y-%m-%d"),
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "type": str(DTYPE),
        "dynamic_vram": asked.dynamic_vram,
        "gib_left": asked.leave,
        "modules_fetched": sum(hasattr(part, "_v") for part in model.modules()),
        "bytes_filled": 0 if filling is None else filling.nbytes,
        "timed": [],
    }
    with torch.inference_mode():
        for told in asked.time:
            height, width, frames = (int(number) for number in told.split("x"))
            latent = latent_of(0, channels, (height, width, frames))
            expected = decode(latent)
            equal, first = [], []
            for _ in range(_TIMES):
                began = time.perf_counter()
                frames_ours = ours(latent)
                torch.cuda.synchronize()
                first.append(time.perf_counter() - began)
                equal.append(same(frames_ours, expected))
                del frames_ours
            del expected
            stock, fast = seconds(lambda latent=latent: decode(latent)), seconds(lambda latent=latent: ours(latent))
            bytes_stock = peak(lambda latent=latent: decode(latent))
            # Which places are audited differs from run to run.
            bytes_fast = max(peak(lambda latent=latent: ours(latent)) for _ in range(4))
            with patch.object(Auditor, "choose", lambda _self, _times: None):
                bytes_unaudited = peak(lambda latent=latent: ours(latent))
            row = {
                "latent": told,
                "equal": equal,
                "stock_seconds": stock,
                "seconds": fast,
                "of_stock": fast / stock,
                "first_seconds": first,
                "peak_bytes_stock": bytes_stock,
                "peak_bytes_without_audits": bytes_unaudited,
                "peak_bytes": bytes_fast,
                "summary": uses[-1].summary,
                "reasons": {} if uses[-1]._step is None else uses[-1]._step.tally.reasons,
            }
            if uses[-1]._step is not None:
                row["found_out"] = found_out(uses[-1]._step.verdicts)
            if asked.profile:
                row["profile_stock"] = profile(lambda latent=latent: decode(latent))
                row["profile"] = profile(lambda latent=latent: ours(latent))
            result["timed"].append(row)
            print(json.dumps(row), flush=True)
            asked.out.write_text(json.dumps(result, indent=1))
        began, differ, clips, audited, seed = time.monotonic(), [], 0, 0, asked.first_seed
        while time.monotonic() - began < asked.seconds and clips < asked.clips:
            size = size_of(seed, asked.largest)
            latent = latent_of(seed, channels, size)
            expected = decode(latent)
            for number in range(_TIMES):
                if not same(ours(latent), expected):
                    differ.append([seed, list(size), number])
            clips, seed = clips + 1, seed + 1
        audited = sum(use._step.auditor.audited for use in uses if use._step is not None)
        known = uses[-1]._step.verdicts if uses and uses[-1]._step is not None else None
        result["soak"] = {
            "clips": clips,
            "seeds": [asked.first_seed, seed - 1],
            "largest_side": asked.largest,
            "differ": differ,
            "audited": audited,
            "without_room_for_both_ways": sum(
                len(use._step.tally.unconfirmed) for use in uses if use._step is not None
            ),
            "audits_failed": sum(len(use.warnings) for use in uses),
            "warnings": sorted({warning for use in uses for warning in use.warnings}),
            **({} if known is None else found_out(known)),
        }
    print(json.dumps(result["soak"]), flush=True)
    asked.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
