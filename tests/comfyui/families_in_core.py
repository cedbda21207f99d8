"""Decodes every VAE family through the pack and through stock, inside one ComfyUI, and prints what it found as JSON.

    python core_shim/bootstrap.py families_in_core.py [part …]

Runs in a checkout's interpreter with the checkout as its working directory, on the CPU unless ``COMFYUI_TEST_GPU`` is
set (for ``exactness`` and ``shapes``; the others measure host memory). Each part prints one line of JSON for each thing
that it tried; what failed says so in its line, so that one family cannot hide another.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]

#: MiniMax H3 takes 5k + 2; of 5k + 1 its TAEHV makes blank frames.
LATENTS = (1, 2, 3, 6, 7, 12)
CLIPS = (1, 2)
#: Latent frames of the two clips whose memory is compared: 8 times the frames, and both 5k + 2. MiniMax H3 blends two
#: windows from 12 on.
SHORT, LONG = 12, 92
SIZE = (2, 3)


def prepare() -> None:
    """Make ``comfy`` and the families importable, and torch quick with models this small."""
    import torch

    # They gain nothing from a second thread, and lose much where others use the cores.
    torch.set_num_threads(1)
    # The checkout first: it has modules named like folders of ours.
    sys.path[:0] = [os.getcwd(), str(Path(__file__).parent)]
    sys.argv[1:] = [] if os.environ.get("COMFYUI_TEST_GPU") else ["--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("comfy.sd")
    with contextlib.suppress(ImportError, AttributeError):
        ltx = importlib.import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
        # It cuts its work at a number of MiB, which models this small never reach.
        ltx.get_max_chunk_size = lambda _device: 16_384


def pack_module(name: str) -> Any:
    """A module of the pack, without running the pack's entry points, which want a server."""
    for package, path in (("pack", ROOT), ("pack.nodes", ROOT / "nodes")):
        if package not in sys.modules:
            module = types.ModuleType(package)
            module.__path__ = [str(path)]
            sys.modules[package] = module
    return importlib.import_module(f"pack.{name}")


def latent_for(family: Any, vae: Any, latents: int, clips: int) -> Any:
    """``(clips, C, latents, H, W)``, or a batch of ``latents`` images."""
    import torch

    lead = (clips, vae.latent_channels, latents) if family.video else (latents, vae.latent_channels)
    return torch.randn((*lead, *family.size), generator=torch.Generator().manual_seed(latents))


def stock_frames(vae: Any, latent: Any, together: int) -> Any:
    """What stock's VAE Decode makes of each ``together`` clips or images: ``(T, H, W, C)``."""
    import torch

    with torch.inference_mode():
        parts = [vae.decode(part) for part in latent.split(together)]
    return torch.cat([part.flatten(0, 1) if part.ndim == 5 else part for part in parts])


def pack_frames(vae: Any, latent: Any) -> tuple[Any, Any, list[int]]:
    """What the pack makes of it, the tap that did, and the lengths of its pieces."""
    engine, vae_side = pack_module("async_decode"), pack_module("nodes.vae")
    sink = pack_module("async_decode.sinks").TensorSink()
    vae_side.check_vae(vae)
    latent = vae_side.latent_of({"samples": latent}, vae)
    tap = engine.choose_tap(vae_side.decoder_of(vae), images_per_step=4)
    vae_side.load(vae, tap, latent, ring_bytes=0)
    pieces: list[int] = []
    finish = vae_side.output_of(vae)
    with engine.FramePipeline([sink], chunk_size=3, device=vae.device, finish=finish) as pipeline:
        submit = pipeline.submit

        def noted(piece: Any) -> None:
            pieces.append(piece.shape[0])
            submit(piece)

        pipeline.submit = noted
        pipeline.decode(tap, latent)
    return sink.tensor, tap, pieces


def together(family: Any, tap: Any) -> int:
    """How many entries of the batch axis stock is given at once, to compare with."""
    if family.video:
        return 1
    return 4 if type(tap).__name__ == "ImageBatches" else 10**6


def exactness() -> Iterator[dict[str, Any]]:
    """Every family: the tap, its pieces, and whether each clip came out as stock's."""
    import torch

    for family, vae in loaded():
        row: dict[str, Any] = {"family": family.name, "pieces": {}, "unequal": {}, "error": None}
        if isinstance(vae, str):
            yield {**row, "missing": vae}
            continue
        try:
            for latents in LATENTS:
                for clips in CLIPS if family.video else (1,):
                    latent = latent_for(family, vae, latents, clips)
                    torch.manual_seed(7)
                    frames, tap, pieces = pack_frames(vae, latent)
                    torch.manual_seed(7)
                    expected = stock_frames(vae, latent, together(family, tap))
                    if not torch.equal(frames, expected):
                        row["unequal"][f"{clips}x{latents}"] = difference(frames, expected)
                    if clips == 1:
                        row["pieces"][latents] = pieces
            row.update(
                seed_matters=seed_matters(vae, latent_for(family, vae, 2, 1)),
                spread=frames.std().item() if frames.isfinite().all() else None,
                tap=type(tap).__name__,
                kind=tap.decoding.kind,
                exact=tap.decoding.exact,
                bounded=tap.decoding.bounded,
                detail=tap.decoding.detail,
            )
        except Exception:
            row["error"] = traceback.format_exc()
        yield row


def seed_matters(vae: Any, latent: Any) -> bool:
    """Whether its frames depend on the seed."""
    import torch

    frames = []
    for seed in (7, 8):
        torch.manual_seed(seed)
        frames.append(pack_frames(vae, latent)[0])
    return not torch.equal(*frames)


def memory() -> Iterator[dict[str, Any]]:
    """Every tapped family: the peak of what its decode allocates, for a clip and for one eight times as long."""
    from allocations import AllocationCounter

    engine, null = pack_module("async_decode"), pack_module("async_decode.sinks.null")
    vae_side = pack_module("nodes.vae")
    for family, vae in loaded():
        if isinstance(vae, str) or not family.video:
            continue
        tap = engine.choose_tap(vae_side.decoder_of(vae))
        if tap.decoding.kind != "tapped":
            continue
        peaks = {}
        for latents in (SHORT, LONG):
            latent = latent_for(family, vae, latents, 1)
            sink = null.NullSink()
            with (
                AllocationCounter() as counter,
                engine.FramePipeline([sink], finish=vae_side.output_of(vae)) as pipeline,
            ):
                pipeline.decode(tap, latent)
            peaks[latents] = (counter.peak, sink.frames, latent.nbytes)
        (short, frames, of_short), (long, more_frames, of_long) = peaks[SHORT], peaks[LONG]
        height, width = (family.size[axis] * int(vae.upscale_ratio[axis + 1]) for axis in (0, 1))
        yield {
            "family": family.name,
            "bounded": tap.decoding.bounded,
            "frames": [frames, more_frames],
            "peak": short,
            "growth": (long - short) / short,
            # The model takes the whole latent, so it is on the device; narrow models make it a large part of the peak.
            "growth_beside_latent": (long - short - (of_long - of_short)) / short,
            "clips": (long - short) / ((more_frames - frames) * 3 * height * width * 4),
            "asked": [asked(vae, tap, latents) for latents in (21, 250)],
        }


def shapes() -> Iterator[dict[str, Any]]:
    """Latents and VAEs of every form, and whether the frames are stock's or what the error says."""
    for case in (
        nested,
        video_latent_for_images,
        image_latent_for_video,
        collapsed_latent,
        one_channel,
        four_channels,
        unknown_model,
        unknown_frames,
        foreign_vae,
        sound,
    ):
        try:
            yield {"case": case.__name__, "error": None, "missing": None, **case()}
        except (ImportError, AttributeError) as error:
            yield {"case": case.__name__, "error": None, "missing": str(error)}
        except Exception:
            yield {"case": case.__name__, "error": traceback.format_exc(), "missing": None}


def compared(vae: Any, latent: Any, for_stock: Any) -> dict[str, Any]:
    """Whether the pack's frames of ``latent`` are those that stock makes of ``for_stock``."""
    import torch

    frames, tap, _ = pack_frames(vae, latent)
    # How many clips stock decodes together depends on the free memory, and changes how it rounds.
    equal = torch.equal(frames, stock_frames(vae, for_stock, 1 if for_stock.ndim == 5 else len(for_stock)))
    return {"equal": equal, "shape": list(frames.shape), "tap": type(tap).__name__, "exact": tap.decoding.exact}


def a_vae(make: str) -> Any:
    """The family whose ``make`` has this name, loaded."""
    import families

    return families.load(next(family for family in families.FAMILIES if family.make.__name__ == make))


def noise(*shape: int) -> Any:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def nested() -> dict[str, Any]:
    """Video and audio in one latent: the first is the video."""
    nested_tensor = importlib.import_module("comfy.nested_tensor").NestedTensor
    video = noise(1, 16, 3, *SIZE)
    return compared(a_vae("wan21"), nested_tensor((video, noise(1, 8, 20))), video)


def video_latent_for_images() -> dict[str, Any]:
    """Stock decodes the first frame of each clip, or fails where it is older than that."""
    latent = noise(2, 4, 3, *SIZE)
    return compared(a_vae("stable_diffusion"), latent, latent[:, :, 0])


def image_latent_for_video() -> dict[str, Any]:
    """One frame."""
    latent = noise(1, 16, *SIZE)
    return compared(a_vae("wan21"), latent, latent.unsqueeze(2))


def collapsed_latent() -> dict[str, Any]:
    """SeedVR2 takes time and channels in one axis."""
    latent = noise(1, 3 * 16, *SIZE)
    return compared(a_vae("seedvr2"), latent, latent)


def one_channel() -> dict[str, Any]:
    import families

    latent = noise(1, 16, 3, *SIZE)
    return compared(families.load(families.ONE_CHANNEL), latent, latent)


def four_channels() -> dict[str, Any]:
    import families

    latent = noise(1, 16, 3, *SIZE)
    return compared(families.load(families.FOUR_CHANNELS), latent, latent)


def unknown_model(announced: Callable[[int], int] = lambda latents: 2 * latents) -> dict[str, Any]:
    """A model that core may add tomorrow: nothing but ``decode`` in it is known."""
    import comfy.model_patcher
    import torch

    class Tomorrow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.Conv3d(4, 3, 3, padding=1)

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            frames = self.mix(z).repeat_interleave(2, 2)
            # It depends on the whole clip.
            frames = frames - frames.mean((1, 2, 3, 4), keepdim=True)
            return torch.nn.functional.interpolate(frames, scale_factor=(1, 8, 8))

    vae = a_vae("stable_diffusion")
    model = Tomorrow().eval()
    vae.first_stage_model, vae.latent_dim, vae.latent_channels = model, 3, 4
    vae.upscale_ratio = (announced, 8, 8)
    vae.patcher = comfy.model_patcher.ModelPatcher(model, load_device=vae.device, offload_device=vae.device)
    latent = noise(2, 4, 3, *SIZE)
    return compared(vae, latent, latent.clone())


def unknown_frames() -> dict[str, Any]:
    """The same, announcing another number of frames than it makes, which stock does not look at."""
    return unknown_model(lambda latents: 4 * latents - 3)


def foreign_vae() -> dict[str, Any]:
    """Another pack's own object, with nothing but ``decode``, and that pack's nodes among ComfyUI's."""
    nodes = types.ModuleType("nodes")
    pack = {"__module__": "/somewhere/custom_nodes/ComfyUI-OtherWrapper"}
    nodes.NODE_CLASS_MAPPINGS = {
        "VAEDecode": type("VAEDecode", (), {"__module__": "nodes"}),
        "OtherDecode": type("OtherDecode", (), pack),
        "OtherSampler": type("OtherSampler", (), pack),
    }
    nodes.NODE_DISPLAY_NAME_MAPPINGS = {"OtherDecode": "Other Video Decode"}
    vae = type("OtherVideoVAE", (), {"__module__": pack["__module__"] + ".models.vae", "decode": lambda *_: None})()
    with mock.patch.dict(sys.modules, {"nodes": nodes}):
        return {"message": refusal(vae)}


def sound() -> dict[str, Any]:
    """A VAE that decodes to two channels of sound, loaded as an image VAE is."""
    vae = a_vae("stable_diffusion")
    vae.output_channels = 2
    return {"message": refusal(vae)}


def refusal(vae: Any) -> str | None:
    """What the pack says to a VAE that it cannot take."""
    try:
        pack_module("nodes.vae").check_vae(vae)
    except pack_module("async_decode").DecodeError as error:
        return str(error)
    return None


def asked(vae: Any, tap: Any, latents: int) -> int:
    """Bytes that the pack asks core to make room for before it decodes so many latent frames at 720p."""
    import torch
    from comfy import model_management

    size = [720 // vae.upscale_ratio[1], 1280 // vae.upscale_ratio[2]]
    latent = torch.empty(1, vae.latent_channels, latents, *size, device="meta")
    with mock.patch.object(model_management, "load_models_gpu") as load:
        pack_module("nodes.vae").load(vae, tap, latent, ring_bytes=0)
    (call,) = load.call_args_list
    return int(call.kwargs["memory_required"])


def difference(frames: Any, expected: Any) -> str:
    """How far two clips are from each other, for people."""
    if frames.shape != expected.shape:
        return f"{tuple(frames.shape)} instead of {tuple(expected.shape)}"
    return f"off by up to {(frames - expected).abs().max().item():.3g}"


def loaded() -> Iterator[tuple[Any, Any]]:
    """Each family with its VAE, or with the reason why this core does not have it."""
    import families

    wanted = os.environ.get("FAMILIES")
    for family in families.FAMILIES:
        if wanted and wanted not in family.name:
            continue
        try:
            yield family, families.load(family)
        except (ImportError, AttributeError) as error:
            yield family, str(error)


PARTS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"exactness": exactness, "shapes": shapes, "memory": memory}


def main() -> None:
    wanted = sys.argv[1:]
    prepare()
    parts = {**PARTS, **importlib.import_module("family_tiling").PARTS}
    for part in wanted or parts:
        for row in parts[part]():
            print(json.dumps({"part": part, **row}), flush=True)


if __name__ == "__main__":
    main()
