"""Writes a VAE with random weights, its shapes taken from a ComfyUI checkout's own class.

    python bootstrap.py random_vae.py CORE FAMILY WIDTH FILE

Weights are drawn with variance 1 / fan-in, norms are at one, biases small: frames come out finite, with about the
spread of real ones. Only what decoding needs is written, and what the loader looks at to tell the family; in bfloat16,
which the loader turns into the type that it computes in.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

#: The settings that core gives to both of Wan's VAEs.
WAN = {
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}
#: The settings that core gives to the VAE of Stable Diffusion.
SD = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
#: Of the encoders, core reads these: the number of Wan's image channels, and which LTX it is.
LOOKED_AT = ("encoder.conv1.weight", "encoder.down_blocks.1.conv.conv.bias")


def ltx_config():
    """Core's for LTX-Video 0.9.5, without the noise that its decode would draw anew each time (as LTX-2 has it)."""
    from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE

    return {**VideoVAE.get_default_config(None, 2), "timestep_conditioning": False}


def build(family: str, width: int):
    """Core's own class, at ``width`` channels in the decoder's last level (LTX: in its only width)."""
    if family == "wan21":
        from comfy.ldm.wan.vae import WanVAE

        return WanVAE(dim=width, z_dim=16, **WAN)
    if family == "wan22":
        from comfy.ldm.wan.vae2_2 import WanVAE

        return WanVAE(dim=width, dec_dim=width, z_dim=48, **WAN)
    if family == "sd":
        from comfy.ldm.models.autoencoder import AutoencoderKL

        return AutoencoderKL(ddconfig={**SD, "ch": width}, embed_dim=4)
    if family == "ltx":
        from comfy.ldm.lightricks.vae.causal_video_autoencoder import VideoVAE

        return VideoVAE(config=ltx_config())
    raise SystemExit(f"unknown family {family!r}: expected wan21, wan22, sd or ltx")


def main(core: str, family: str, width: str, file: str) -> None:
    """Draw the weights and write ``file``, which appears under its name when it is whole."""
    sys.path.insert(0, core)
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, like in build(family, int(width)).state_dict().items():
        if name.startswith("encoder.") and name not in LOOKED_AT:
            continue
        if "bias" in name:
            drawn = torch.randn(like.shape, generator=generator) * 0.02
        elif like.ndim > 1 and "gamma" not in name:
            drawn = torch.randn(like.shape, generator=generator) / math.sqrt(like[0].numel())
        else:
            drawn = torch.ones(like.shape)
        weights[name] = drawn.to(torch.bfloat16)
    # Two test runs may make it at the same time.
    part = Path(file).with_suffix(f".{os.getpid()}.part")
    # Its structure is told in the file.
    save_file(weights, part, {"config": json.dumps({"vae": ltx_config()})} if family == "ltx" else None)
    part.replace(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
