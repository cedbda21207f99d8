"""Diffusers' VAEs, every one: the frames are those of ``vae.decode``, bit for bit, with all that it can switch on."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import async_decode
from async_decode.decoding import Decoding

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")

from tests.engine.diffusers_families import FAMILIES, IMAGES, Family, at_a_timestep, expected  # noqa: E402

PAGE = Path(__file__).parents[2] / "web" / "docs" / "python.md"
BY_NAME = {family.name: family for family in FAMILIES}
#: How the page says it.
HOW = {"tapped": "pieces", "whole": "whole", "batches": "one by one"}
MODES = ("plain", "framewise", "tiled", "tiled and framewise", "two clips", "two clips, sliced")
#: The columns of the page's table.
COLUMNS = ("plain", "framewise", "tiled", "two clips", "two clips, sliced")


@functools.cache
def seen(name: str, mode: str) -> tuple[bool, Decoding] | None:
    """Whether the frames were equal, and how they were decoded; ``None`` where the VAE has no such thing."""
    family = BY_NAME[name]
    vae = family.vae()
    tiled, clips = "tiled" in mode, 2 if "two" in mode else 1
    if "framewise" in mode:
        if family.framewise is None:
            return None
        family.framewise(vae)
    if tiled:
        if family.tiled is None:
            return None
        vae.enable_tiling(**family.tiled)
    if "sliced" in mode:
        if not hasattr(vae, "enable_slicing") or name == "Stable Video Diffusion":
            return None
        vae.enable_slicing()
    latent = family.latent(clips, family.size(tiled=tiled))
    more: dict[str, Any] = {"num_frames": family.frames} if name == "Stable Video Diffusion" else {}
    try:
        frames = expected(vae, latent, family.frames)
    except RuntimeError:
        # Diffusers itself cannot.
        return None

    result = async_decode.decode(vae, latent, normalized=False, **more)

    assert result.report.decoding is not None
    return torch.equal(result.frames, frames), result.report.decoding


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", BY_NAME)
def test_frames_are_those_of_the_vaes_own_decode(name: str, mode: str) -> None:
    result = seen(name, mode)
    if result is None:
        pytest.skip(f"{name} has nothing that is called {mode}")
    equal, decoding = result

    assert equal
    assert decoding.exact


@pytest.mark.parametrize("latents", [1, 2, 3, 4])
@pytest.mark.parametrize("name", [family.name for family in FAMILIES if family.name not in (*IMAGES, "Allegro")])
def test_clips_of_any_length(name: str, latents: int) -> None:
    family = BY_NAME[name]
    vae = family.vae()
    if family.framewise is not None:
        family.framewise(vae)
    latent = dataclasses.replace(family, frames=latents).latent()

    result = async_decode.decode(vae, latent, normalized=False)

    assert torch.equal(result.frames, expected(vae, latent, latents))
    assert result.report.total_frames == len(result.frames)


@pytest.mark.parametrize("name", ["Wan 2.1", "LTX-Video", "HunyuanVideo 1.5", "SD, SDXL, SD3, Flux"])
@pytest.mark.parametrize("how", ["model", "sequential", "group"])
def test_an_offloaded_vae_decodes_where_its_hook_says(name: str, how: str) -> None:
    accelerate = pytest.importorskip("accelerate", reason="offloading is accelerate's")
    family = BY_NAME[name]
    vae, latent = family.vae(), family.latent()
    if family.framewise is not None:
        family.framewise(vae)
    frames = expected(vae, latent, family.frames)
    if how == "model":
        accelerate.cpu_offload_with_hook(vae, torch.device("cpu"))
    elif how == "sequential":
        # The weights are on no device at all meanwhile.
        accelerate.cpu_offload(vae, torch.device("cpu"))
        assert vae.device.type == "meta"
    else:
        vae.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")

    result = async_decode.decode(vae, latent, normalized=False)

    assert torch.equal(result.frames, frames)
    assert result.report.device == "cpu"


def test_a_compiled_vae_and_one_of_a_derived_class_are_known() -> None:
    class Mine(diffusers.AutoencoderKLCogVideoX):  # type: ignore[name-defined,misc]
        pass

    family = BY_NAME["CogVideoX"]
    torch.manual_seed(0)
    vae = Mine(latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2).eval()
    latent = family.latent()

    result = async_decode.decode(vae, latent, normalized=False)

    assert result.report.decoding is not None and result.report.decoding.kind == "tapped"
    assert torch.equal(result.frames, expected(vae, latent, 5))


def test_a_decode_that_treats_its_pieces_in_another_way_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later version of Diffusers might."""
    family = BY_NAME["LTX-Video"]
    vae = family.vae()
    assert family.framewise is not None
    family.framewise(vae)
    own = vae._temporal_tiled_decode

    def other(*arguments: Any, **options: Any) -> Any:
        output = own(*arguments, **options)
        output.sample = output.sample.flip(2)
        return output

    monkeypatch.setattr(vae, "_temporal_tiled_decode", other)

    with pytest.raises(async_decode.DecodeError, match="cannot be exact"):
        async_decode.decode(vae, family.latent(), normalized=False)


def test_a_failed_decode_leaves_no_hook_behind() -> None:
    family = BY_NAME["HunyuanVideo, Kandinsky 5"]
    vae, latent = family.vae(), family.latent()
    assert family.framewise is not None
    family.framewise(vae)
    before = expected(vae, latent, 5)

    def fail(_done: int, _all: int | None) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async_decode.decode(vae, latent, normalized=False, on_progress=fail)

    assert torch.equal(expected(vae, latent, 5), before)
    assert not vae.decoder._forward_hooks
    assert "tiled_decode" not in vars(vae)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in IMAGES])
def test_a_stream_that_is_left_half_way_leaves_nothing_in_the_vae(name: str) -> None:
    family = BY_NAME[name]
    vae, latent = family.vae(), family.latent()
    if family.framewise is not None:
        family.framewise(vae)
    before = expected(vae, latent, family.frames)

    for _ in async_decode.stream(vae, latent, normalized=False, chunk_size=1, buffer_depth=1):
        break

    assert torch.equal(expected(vae, latent, family.frames), before)
    assert torch.equal(async_decode.decode(vae, latent, normalized=False).frames, before)


def _no_decode(*_arguments: Any, **_options: Any) -> Any:
    raise AssertionError("it was decoded")


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda latent: torch.cat([latent, latent[:, :1]], 1), r"expected \d+ channels for Autoencoder\w+, got"),
        # A mean of four channels would make four of one.
        (lambda latent: latent[:, :1], r"expected \d+ channels for Autoencoder\w+, got 1 in"),
        (lambda latent: latent[0], r"expected \(N, C, T, H, W\) for Autoencoder\w+, got"),
        (lambda latent: latent[0, 0], r"expected \(N, C, T, H, W\) for Autoencoder\w+, got"),
        (lambda latent: list(latent.split(1)), "got a list of 1; decode each"),
        (lambda latent: latent.to("meta"), "device meta"),
        (lambda latent: latent.to_sparse(), "to_dense"),
        (lambda latent: (latent * 255).to(torch.uint8), "got torch.uint8"),
        (lambda latent: latent.to(torch.complex64), "got torch.complex64"),
    ],
)
@pytest.mark.parametrize("name", ["Wan 2.1", "LTX-Video", "HunyuanVideo 1.5", "Mochi"])
def test_latents_that_make_no_sense_are_refused_before_anything_is_decoded(
    name: str, spoil: Callable[[torch.Tensor], Any], words: str, normalized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = BY_NAME[name]
    vae = family.vae()
    monkeypatch.setattr(vae, "decode", _no_decode)

    with pytest.raises(async_decode.DecodeError, match=words):
        async_decode.decode(vae, spoil(family.latent()), normalized=normalized)


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("Wan 2.1", {"num_frames": 17}, "num_frames: AutoencoderKLWan decodes all frames"),
        ("Stable Video Diffusion", {"num_frames": 0}, "expected a divisor of 5 latents, got 0"),
        ("Stable Video Diffusion", {"num_frames": 2}, "expected a divisor of 5 latents, got 2"),
        ("Stable Video Diffusion", {"num_frames": "5"}, "expected a divisor of 5 latents, got '5'"),
        ("Cosmos", {"sigma_data": 0}, "sigma_data: expected .* a positive number, got 0"),
        ("Cosmos", {"sigma_data": "0.5"}, "sigma_data: expected .* a positive number, got '0.5'"),
    ],
)
def test_facts_that_make_no_sense_are_refused_before_anything_is_decoded(
    name: str, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = BY_NAME[name]
    vae = family.vae()
    signature = inspect.signature(vae.decode)
    monkeypatch.setattr(vae, "decode", _no_decode)
    monkeypatch.setattr(_no_decode, "__signature__", signature, raising=False)

    with pytest.raises(async_decode.DecodeError, match=words):
        async_decode.decode(vae, family.latent(), normalized=False, **options)


@pytest.mark.parametrize("size", [5, "32x48", (32,), (17, 32, 48, 3), (17, 32.0, 48.0), (0, 32, 48)])
def test_a_size_that_makes_no_sense_is_refused(size: Any) -> None:
    vae = BY_NAME["LTX-Video"].vae()

    with pytest.raises(async_decode.DecodeError, match="size: expected"):
        async_decode.decode(vae, torch.zeros(1, 24, 8), size=size)


@pytest.mark.parametrize("name", ["Wan 2.1", "SD, SDXL, SD3, Flux"])
def test_what_torch_compile_returns_is_decoded_as_the_vae_in_it(name: str) -> None:
    family = BY_NAME[name]
    vae, latent = family.vae(), family.latent()

    result = async_decode.decode(torch.compile(vae, backend="eager"), latent, normalized=False)

    assert torch.equal(result.frames, expected(vae, latent, family.frames))


_H3 = {
    "latent_channels": 4,
    "block_out_channels": (8,) * 6,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "decoder_num_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_attention_head_dim": 16,
    "latents_mean": (0.1,) * 4,
    "latents_std": (1.5,) * 4,
}


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize(
    "name, options, latents",
    [
        ("AutoencoderKLMiniMaxH3", _H3, 7),
        ("AutoencoderVidTok", {"ch": 8}, 3),
        ("AutoencoderKLKVAEVideo", {"ch": 32, "z_channels": 4}, 3),
    ],
)
def test_video_vaes_that_came_to_diffusers_later(name: str, options: dict[str, Any], latents: int, clips: int) -> None:
    if not hasattr(diffusers, name):
        pytest.skip(f"this version of Diffusers has no {name}")
    torch.manual_seed(0)
    vae = getattr(diffusers, name)(**options).eval().requires_grad_(False)
    latent = torch.randn(clips, 4, latents, 2, 3)
    with torch.inference_mode():
        pixels = vae.decode(latent)
    # VidTok's returns a tensor.
    pixels = getattr(pixels, "sample", pixels).movedim(1, 2).flatten(0, 1)

    frames = async_decode.decode(vae, latent, normalized=False).frames

    assert torch.equal(frames, torch.clamp((pixels + 1) / 2, 0, 1).movedim(1, -1))


def test_a_scaling_factor_that_is_none_is_not_guessed() -> None:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=32,
    )

    with pytest.raises(async_decode.DecodeError, match="is not known here"):
        async_decode.decode(vae, torch.zeros(1, 4, 2, 2), normalized=True)


@pytest.mark.parametrize("mode", ["plain", "framewise", "two clips"])
@pytest.mark.parametrize("noise_scale", [None, 0.025])
def test_a_vae_that_decodes_at_a_timestep_gets_it_and_its_pipelines_noise(noise_scale: float | None, mode: str) -> None:
    vae = at_a_timestep()
    if mode == "framewise":
        BY_NAME["LTX-Video"].framewise(vae)  # type: ignore[misc]
    clips = 2 if mode == "two clips" else 1
    latent = torch.randn(clips, 8, 5, 2, 3, generator=torch.Generator().manual_seed(1))
    # The last lines of LTXPipeline.
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))
    scale = torch.tensor([0.05 if noise_scale is None else noise_scale] * clips)[:, None, None, None, None]
    noisy = (1 - scale) * (latent * 1.5) + scale * noise
    with torch.inference_mode():
        pixels = vae.decode(noisy, torch.tensor([0.05] * clips)).sample
    frames = torch.clamp((pixels + 1) / 2, 0, 1).movedim(1, -1).flatten(0, 1)
    options: dict[str, Any] = {"normalized": True, "decode_timestep": 0.05, "decode_noise_scale": noise_scale}

    result = async_decode.decode(vae, latent, generator=torch.Generator().manual_seed(2), **options)
    streamed = list(async_decode.stream(vae, latent, generator=torch.Generator().manual_seed(2), **options))

    assert torch.equal(result.frames, frames)
    assert torch.equal(torch.cat(streamed), frames)


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "decode_timestep: this AutoencoderKLLTXVideo decodes at a timestep"),
        ({"decode_timestep": "0.05"}, "decode_timestep: expected a number, got '0.05'"),
        (
            {"decode_timestep": 0.05, "decode_noise_scale": float("nan")},
            "decode_noise_scale: expected a number, got nan",
        ),
    ],
)
def test_a_vae_that_decodes_at_a_timestep_is_not_decoded_without(
    options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = at_a_timestep()
    monkeypatch.setattr(vae, "decode", _no_decode)

    with pytest.raises(async_decode.DecodeError, match=words):
        async_decode.decode(vae, torch.zeros(1, 8, 2, 2, 2), normalized=False, **options)


@pytest.mark.parametrize("options", [{"decode_timestep": 0.0}, {"generator": torch.Generator()}])
def test_a_timestep_that_the_vae_has_no_use_for_is_refused(options: dict[str, Any]) -> None:
    family = BY_NAME["Wan 2.1"]

    with pytest.raises(async_decode.DecodeError, match="leave it out"):
        async_decode.decode(family.vae(), family.latent(), normalized=False, **options)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["Wan 2.1", "LTX-Video", "Stable Video Diffusion"])
def test_autocast_counts_for_the_thread_of_a_stream_too(name: str, dtype: torch.dtype) -> None:
    family = BY_NAME[name]
    vae, latent = family.vae(), family.latent()
    with torch.autocast("cpu", dtype):
        frames = expected(vae, latent, family.frames)
        stream = async_decode.stream(vae, latent, normalized=False)

        assert torch.equal(async_decode.decode(vae, latent, normalized=False).frames, frames)
    assert torch.equal(torch.cat(list(stream)), frames)
    assert not torch.equal(frames, expected(vae, latent, family.frames))


def test_what_a_failed_decode_of_diffusers_own_has_left_in_the_vae_is_not_decoded_on() -> None:
    family = BY_NAME["EasyAnimate (Magvit)"]
    vae, latent = family.vae(), family.latent()
    before = expected(vae, latent, family.frames)

    vae.decoder(latent[:, :, :1])

    assert torch.equal(async_decode.decode(vae, latent, normalized=False).frames, before)


def _cell(name: str, mode: str) -> str:
    result = seen(name, mode)
    if result is None:
        return "\N{EN DASH}"
    equal, decoding = result
    words = [HOW[decoding.kind], "exact" if equal and decoding.exact else "NOT EXACT"]
    return ", ".join([*words, *(["bounded"] if decoding.bounded else [])])


def test_the_page_has_this_table() -> None:
    lines = [f"| VAE | {' | '.join(COLUMNS)} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    lines += [f"| {name} | {' | '.join(_cell(name, mode) for mode in COLUMNS)} |" for name in BY_NAME]
    table = "\n".join(lines)

    assert table in PAGE.read_text(encoding="utf-8"), f"the table has to be:\n\n{table}\n"


def _wan(vae: Any, latent: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return latent / std + mean


#: What the last lines of each pipeline do to latents before ``vae.decode``, written out.
UNDONE: dict[str, Callable[[Any, torch.Tensor], torch.Tensor]] = {
    "Wan 2.1": _wan,
    "Qwen-Image": _wan,
    "LTX-Video": lambda vae, z: z * vae.latents_std.view(1, -1, 1, 1, 1) / 1.0 + vae.latents_mean.view(1, -1, 1, 1, 1),
    "LTX-2": lambda vae, z: z * vae.latents_std.view(1, -1, 1, 1, 1) / 1.0 + vae.latents_mean.view(1, -1, 1, 1, 1),
    "HunyuanVideo, Kandinsky 5": lambda vae, z: z / vae.config.scaling_factor,
    "HunyuanVideo 1.5": lambda vae, z: z / vae.config.scaling_factor,
    "CogVideoX": lambda vae, z: 1 / vae.config.scaling_factor * z.permute(0, 2, 1, 3, 4),
    "Mochi": lambda vae, z: (
        z * torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1) / vae.config.scaling_factor
        + torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    ),
    "Allegro": lambda vae, z: 1 / vae.config.scaling_factor * z,
    "EasyAnimate (Magvit)": lambda vae, z: 1 / vae.config.scaling_factor * z,
    "Stable Video Diffusion": lambda vae, z: 1 / vae.config.scaling_factor * z.flatten(0, 1),
    "SD, SDXL, SD3, Flux": lambda vae, z: z / vae.config.scaling_factor,
}


@pytest.mark.parametrize("name", UNDONE)
def test_what_a_pipeline_has_done_to_its_latents_is_undone(name: str) -> None:
    family = BY_NAME[name]
    vae, latent = family.vae(), _as_pipelines_return_it(family)
    if name in ("LTX-Video", "LTX-2"):
        vae.latents_mean.fill_(0.1), vae.latents_std.fill_(1.5)

    result = async_decode.decode(vae, latent, normalized=True)

    assert torch.equal(result.frames, expected(vae, UNDONE[name](vae, latent), family.frames))


def _as_pipelines_return_it(family: Family) -> torch.Tensor:
    latent = family.latent()
    if family.name == "CogVideoX":
        return latent.movedim(1, 2)
    return latent.unsqueeze(0) if family.name == "Stable Video Diffusion" else latent


def test_a_vae_of_ltx_2_is_told_by_whose_output_it_gets() -> None:
    """LTX-2's pipelines have undone mean and deviation of the latents that they return, Sana-Video's have not."""
    from diffusers.pipelines.ltx2.pipeline_output import LTX2PipelineOutput

    sana = pytest.importorskip("diffusers.pipelines.sana_video.pipeline_output")
    family = BY_NAME["LTX-2"]
    vae, latent = family.vae(), family.latent()
    vae.latents_mean.fill_(0.1), vae.latents_std.fill_(1.5)
    # The last lines of SanaVideoPipeline.
    undone = latent / (1.0 / vae.latents_std.view(1, -1, 1, 1, 1)) + vae.latents_mean.view(1, -1, 1, 1, 1)
    as_it_is = expected(vae, latent, family.frames)

    from_sana = async_decode.decode(vae, sana.SanaVideoPipelineOutput(frames=latent)).frames

    torch.testing.assert_close(from_sana, expected(vae, undone, family.frames))
    for output in (LTX2PipelineOutput(frames=latent, audio=None), (latent, None)):
        assert torch.equal(async_decode.decode(vae, output).frames, as_it_is)
    for output in ((latent,), (latent, None, latent), latent):
        with pytest.raises(async_decode.DecodeError, match="say normalized=True"):
            async_decode.decode(vae, output)


def test_cosmos_mean_and_deviation_are_by_time() -> None:
    family = BY_NAME["Cosmos"]
    vae, latent = family.vae(), family.latent()
    mean = torch.linspace(-1, 1, 32)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=(mean.abs() + 0.5).tolist())
    of_time = mean.view(1, 4, 8, 1, 1)[:, :, :5]

    with pytest.raises(async_decode.DecodeError, match=r"scheduler\.config\.sigma_data"):
        async_decode.decode(vae, latent, normalized=True)
    result = async_decode.decode(vae, latent, normalized=True, sigma_data=0.5)

    assert torch.equal(result.frames, expected(vae, latent * (of_time.abs() + 0.5) / 0.5 + of_time, 5))


@pytest.mark.parametrize("dtype, share", [(torch.float32, 1 / 2), (torch.bfloat16, 1 / 3)])
def test_finish_gives_the_bytes_of_video_processor(tmp_path: Path, dtype: torch.dtype, share: float) -> None:
    from diffusers.video_processor import VideoProcessor
    from PIL import Image

    family = BY_NAME["Wan 2.1"]
    vae, latent = family.vae().to(dtype), family.latent().to(dtype)
    with torch.inference_mode():
        video = vae.decode(latent).sample
    processor = VideoProcessor(vae_scale_factor=8)

    result = async_decode.decode(
        vae, latent, [None, tmp_path / "*.png"], normalized=False, finish="diffusers", chunk_size=3
    )

    assert torch.equal(result.frames, torch.from_numpy(processor.postprocess_video(video, "np")[0]))
    wanted = [image.tobytes() for image in processor.postprocess_video(video, "pil")[0]]
    assert [Image.open(file).tobytes() for file in result.files] == wanted
    # As the page says it of this very VAE and latent.
    ours = async_decode.decode(vae, latent, tmp_path / "ours" / "*.png", normalized=False).files
    images = [Image.open(file).tobytes() for file in ours]
    pairs = list(zip(b"".join(images), b"".join(wanted), strict=True))
    assert sum(a != b for a, b in pairs) / len(pairs) == pytest.approx(share, abs=0.03)
    assert max(abs(a - b) for a, b in pairs) == 1
