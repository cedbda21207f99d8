"""Pipelines of Diffusers, small and whole: the latents that they return become the frames that they make themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import async_decode

diffusers = pytest.importorskip("diffusers", reason="the extra 'diffusers' is not installed")
transformers = pytest.importorskip("transformers", reason="pipelines of Diffusers need it")

from tests.engine.diffusers_families import FAMILIES  # noqa: E402

VAES = {family.name: family.vae for family in FAMILIES}
#: Embeddings of a prompt: there is no text encoder.
WORDS = {"prompt_embeds": torch.ones(1, 4, 16)}
MASK = torch.ones(1, 4, dtype=torch.long)
NO_TEXT = {"tokenizer": None, "text_encoder": None}


def _cogvideox() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=16,
        num_layers=1,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
        max_text_seq_length=4,
        use_rotary_positional_embeddings=True,
    )
    pipe = diffusers.CogVideoXImageToVideoPipeline(
        **NO_TEXT, vae=VAES["CogVideoX"](), transformer=transformer, scheduler=diffusers.CogVideoXDDIMScheduler()
    )
    more = {"image": torch.full((1, 3, 64, 64), 0.3), "height": 64, "width": 64, "num_frames": 9}
    return pipe, {**WORDS, **more, "guidance_scale": 1.0}


def _qwen_image() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    pipe = diffusers.QwenImagePipeline(
        **NO_TEXT,
        vae=VAES["Qwen-Image"](),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    return pipe, {**WORDS, "prompt_embeds_mask": MASK, "height": 64, "width": 96, "true_cfg_scale": 1.0}


def _easyanimate() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=16,
        num_layers=1,
        sample_width=16,
        sample_height=16,
        patch_size=2,
    )
    pipe = diffusers.EasyAnimatePipeline(
        **NO_TEXT,
        vae=VAES["EasyAnimate (Magvit)"](),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )
    more = {"prompt_attention_mask": MASK, "height": 64, "width": 64, "num_frames": 9, "guidance_scale": 1.0}
    return pipe, {**WORDS, **more}


def _allegro() -> tuple[Any, dict[str, Any]]:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        cross_attention_dim=48,
        sample_width=4,
        sample_height=4,
        sample_frames=6,
        caption_channels=16,
    )
    pipe = diffusers.AllegroPipeline(
        **NO_TEXT, vae=VAES["Allegro"](), transformer=transformer, scheduler=diffusers.DDIMScheduler()
    )
    more = {"prompt_attention_mask": MASK, "height": 32, "width": 48, "num_frames": 24, "guidance_scale": 1.0}
    return pipe, {**WORDS, **more, "negative_prompt": None}


def _stable_video_diffusion() -> tuple[Any, dict[str, Any]]:
    encoder = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=32,
            projection_dim=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            intermediate_size=32,
            patch_size=8,
        )
    )
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=8,
        projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
        num_frames=5,
    )
    pipe = diffusers.StableVideoDiffusionPipeline(
        vae=VAES["Stable Video Diffusion"](),
        image_encoder=encoder.eval(),
        unet=unet.eval(),
        scheduler=diffusers.EulerDiscreteScheduler(prediction_type="v_prediction"),
        feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
    )
    return pipe, {"image": torch.full((1, 3, 32, 32), 0.3), "height": 32, "width": 32, "num_frames": 5}


def _hunyuan_video_15() -> tuple[Any, dict[str, Any]]:
    from diffusers.guiders import ClassifierFreeGuidance

    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        text_embed_2_dim=16,
        image_embed_dim=16,
        rope_axes_dim=(4, 6, 6),
        target_size=32,
        task_type="t2v",
    )
    pipe = diffusers.HunyuanVideo15Pipeline(
        **NO_TEXT,
        vae=VAES["HunyuanVideo 1.5"](),
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder_2=None,
        tokenizer_2=None,
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
    )
    words = {
        **WORDS,
        "prompt_embeds_mask": MASK,
        "prompt_embeds_2": WORDS["prompt_embeds"],
        "prompt_embeds_mask_2": MASK,
    }
    words |= {f"negative_{name}": value for name, value in words.items()}
    return pipe, {**words, "height": 32, "width": 48, "num_frames": 9}


@pytest.mark.parametrize(
    "make, options",
    [
        (_cogvideox, {}),
        (_qwen_image, {"size": (64, 96)}),
        (_easyanimate, {}),
        (_allegro, {}),
        (_stable_video_diffusion, {}),
        (_hunyuan_video_15, {}),
    ],
)
def test_latents_of_a_pipeline_become_its_own_frames(
    make: Callable[[], tuple[Any, dict[str, Any]]], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    pipe, asked = make()
    pipe.set_progress_bar_config(disable=True)

    def run(output_type: str) -> Any:
        return pipe(**asked, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type=output_type)

    own = run("np")
    frames = torch.from_numpy(np.asarray(own.images if "images" in own else own.frames[0]))

    result = async_decode.decode(pipe.vae, run("latent"), finish="diffusers", **options)

    assert torch.equal(result.frames, frames)
