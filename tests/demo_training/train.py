"""Trains the demo's VAE on clips that ``clip.py`` draws, and writes the two files that the demo reads.

    python -m tests.demo_training.train

A few minutes on a GPU, some hours on a CPU. Needs the package ``safetensors`` (in the extra ``test``). Half of what it
sees is the demo's own scene: the network is there to show that one clip at a size that fits into a repository, so its
PSNR says nothing about other clips.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from async_decode.demo import LATENT_PATH, WEIGHTS_PATH
from async_decode.demo.model import DemoVAE
from async_decode.demo.weights import read_safetensors

from .clip import demo_clip, training_clip
from .encode import encode


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Attributes:
        share: of the whole time.
        batch: clips a step.
        frames: frames of a clip.
        height: of the window that is cut out of a clip, in pixels.
        width: of that window.
        demo_share: share of a batch that is cut out of the demo's own clip.
    """

    share: float
    batch: int
    frames: int
    height: int
    width: int
    demo_share: float


#: Small and short windows first, for many steps; then the whole clip. A causal network that has only seen short clips
#: counts on their length: its picture falls apart after them.
PHASES = (Phase(0.3, 8, 17, 64, 64, 0.4), Phase(0.3, 4, 49, 96, 96, 0.6), Phase(0.4, 1, 49, 256, 384, 1.0))


class Clips:
    """Windows of the demo's clip and of a pool of drawn ones, as bytes on the device."""

    def __init__(self, pool: int, seed: int, device: torch.device) -> None:
        self._rng = random.Random(seed)
        self._demo = _bytes(demo_clip(device))
        self._pool = [
            _bytes(training_clip(number, frames=49, height=96, width=96, device=device)) for number in range(pool)
        ]

    def batch(self, phase: Phase) -> Tensor:
        """``(N, 3, T, H, W)`` in [-1, 1]."""
        of_demo = round(phase.batch * phase.demo_share)
        sources = [self._demo] * of_demo + self._rng.choices(self._pool, k=phase.batch - of_demo)
        windows = torch.stack([self._window(source, phase) for source in sources])
        return windows.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0

    def _window(self, source: Tensor, phase: Phase) -> Tensor:
        sizes = (phase.frames, phase.height, phase.width)
        starts = [self._rng.randint(0, full - size) for full, size in zip(source.shape, sizes, strict=False)]
        # The first frame follows nothing, which has to be seen as often as to be learnt.
        if self._rng.random() < 0.25:
            starts[0] = 0
        t, y, x = starts
        return source[t : t + phase.frames, y : y + phase.height, x : x + phase.width]


def train(model: DemoVAE, clips: Clips, *, seconds: float, learning_rate: float) -> None:
    """Train ``model`` in place for ``seconds`` of wall time, printing the PSNR of the batches now and then."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    began = said = time.monotonic()
    step = 0
    model.train()
    while (passed := (time.monotonic() - began) / seconds) < 1.0:
        phase = next(phase for phase, end in _ends() if passed < end)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * passed))
        clip = clips.batch(phase)
        latent, _ = model.conv1(model.encoder(clip)).chunk(2, 1)
        # As much noise as half-precision files add many times over: what is stored need not be exact.
        seen = model.decoder(model.conv2(latent + 0.01 * torch.randn_like(latent)))
        loss = F.l1_loss(seen, clip) + 2.0 * F.mse_loss(seen, clip) + 0.5 * _edges(seen, clip)
        loss = loss + 1e-4 * latent.square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        if time.monotonic() - said > seconds / 20:
            said = time.monotonic()
            print(f"{passed:4.0%}  step {step}  {psnr(seen.detach(), clip):.2f} dB", flush=True)
    model.eval()


def psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two clips in [-1, 1], the values clamped to that range."""
    error = (one.clamp(-1.0, 1.0) - other.clamp(-1.0, 1.0)).square().mean() / 4.0
    return float(-10.0 * error.log10())


def main() -> None:
    """Train, write the files, and say how good they are."""
    parser = argparse.ArgumentParser(description="Trains the demo's VAE and writes its weights and its latent.")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long to train (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pool", type=int, default=400, help="clips drawn beside the demo's own (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="at its highest (%(default)s)")
    parser.add_argument("--resume", type=Path, help="a file with weights to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH.parent, help="folder for the files (%(default)s)")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    device = torch.device(options.device)
    model = DemoVAE().to(device)
    if options.resume is not None:
        model.load_state_dict({name: value.float() for name, value in read_safetensors(options.resume).items()})
    train(
        model,
        Clips(options.pool, options.seed, device),
        seconds=options.seconds,
        learning_rate=options.learning_rate,
    )
    weights = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    clip = demo_clip(device).permute(3, 0, 1, 2)[None] * 2.0 - 1.0
    with torch.inference_mode():
        latent = encode(model, clip).to("cpu", torch.float16)
        shown = model.decode(latent.to(device, torch.float32))
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, options.out / WEIGHTS_PATH.name)
    # What ComfyUI's LoadLatent reads; the empty tensor says that the values are not to be scaled.
    save_file(
        {"latent_tensor": latent.contiguous(), "latent_format_version_0": torch.tensor([])},
        options.out / LATENT_PATH.name,
    )
    print(f"latent from {latent.min():.2f} to {latent.max():.2f}, clip {psnr(shown, clip):.2f} dB")


def _ends() -> list[tuple[Phase, float]]:
    """Each phase, and the share of the time that has passed when it ends."""
    ends = list(itertools.accumulate(phase.share for phase in PHASES))
    return list(zip(PHASES, [*ends[:-1], 1.0], strict=True))


def _edges(one: Tensor, other: Tensor) -> Tensor:
    """How much the differences between neighbouring pixels differ: keeps edges sharp."""
    apart = one - other
    return apart.diff(dim=-1).abs().mean() + apart.diff(dim=-2).abs().mean()


def _bytes(clip: Tensor) -> Tensor:
    return (clip * 255.0).round().to(torch.uint8)


if __name__ == "__main__":
    main()
