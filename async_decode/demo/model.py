"""A small causal video VAE in the shape of Wan 2.1's: 8x in space, 4x in time, the first frame alone.

The architecture and the names in its state dict are those of Wan 2.1's VAE ("Wan: Open and Advanced Large-Scale Video
Generative Models", arXiv:2503.20314, section 4.1), at a twelfth of its width. So what streams Wan's VAE streams this
one, and ComfyUI loads the same weights with its own class. This room holds the network only: no files, no training.

Every layer that looks back in time owns one slot of ``feat_cache``, a list that the caller makes and hands to every
step; ``feat_idx`` is a list with one number, the slot of the next such layer. Without a cache a call sees a whole clip
from its first frame and gives what the steps give together: that is how the network is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What each layer that looks back in time remembers: ``None`` before the first step.
FeatCache: TypeAlias = list[Tensor | None]

LATENT_CHANNELS = 16


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution that sees the frame itself and those before it; before the first one there are zeros."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int, int]) -> None:
        self.sides = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, padding=self.sides)
        self.reach = kernel[0] - 1

    def forward(self, x: Tensor, feat_cache: FeatCache | None = None, feat_idx: list[int] | None = None) -> Tensor:
        past = None
        if feat_cache is not None and feat_idx is not None:
            past = feat_cache[feat_idx[0]]
        x = torch.cat([self.nothing_before(x) if past is None else past, x], 2)
        if feat_cache is not None and feat_idx is not None:
            # A copy: a view would keep the whole step alive.
            feat_cache[feat_idx[0]] = x[:, :, -self.reach :].clone()
            feat_idx[0] += 1
        if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
            # For a single clip torch picks its own loop over oneDNN, which is ten times faster at this width.
            return torch.mkldnn_convolution(
                x, self.weight, self.bias, self.sides, self.stride, self.dilation, self.groups
            )
        return super().forward(x)

    def nothing_before(self, x: Tensor) -> Tensor:
        """The past of a first frame: as many frames of zeros as the kernel looks back."""
        return x.new_zeros((*x.shape[:2], self.reach, *x.shape[3:]))


class RMSNorm(nn.Module):
    """Brings each position to the same length over its channels, then scales each channel (arXiv:1910.07467)."""

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = F.normalize(x, dim=1) * self.scale * self.gamma
        return normalized


class ResidualBlock(nn.Module):
    """Two normalised causal convolutions beside a straight way through."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            RMSNorm(in_channels, 3),
            nn.SiLU(),
            CausalConv3d(in_channels, out_channels, (3, 3, 3)),
            RMSNorm(out_channels, 3),
            nn.SiLU(),
            # Wan's dropout, which is 0: here to keep the numbers of the keys.
            nn.Identity(),
            CausalConv3d(out_channels, out_channels, (3, 3, 3)),
        )
        same = in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, feat_cache: FeatCache | None = None, feat_idx: list[int] | None = None) -> Tensor:
        straight: Tensor = self.shortcut(x)
        return straight + _through(self.residual, x, feat_cache, feat_idx)


class AttentionBlock(nn.Module):
    """Self-attention with one head over the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, channels * 3, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        frames = _as_images(x)
        # One head: (frames, 1, positions, channels).
        q, k, v = self.to_qkv(self.norm(frames)).flatten(2).mT.unsqueeze(1).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v).squeeze(1).mT.reshape(frames.shape)
        return x + _as_clip(self.proj(seen), like=x)


class Upsample(nn.Module):
    """Doubles each side and halves the channels; where ``in_time``, makes two frames of each but the clip's first."""

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact"),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
        )
        self.time_conv = CausalConv3d(channels, channels * 2, (3, 1, 1)) if in_time else None

    def forward(self, x: Tensor, feat_cache: FeatCache | None = None, feat_idx: list[int] | None = None) -> Tensor:
        if self.time_conv is not None:
            x = self._double_frames(self.time_conv, x, feat_cache, feat_idx)
        return _as_clip(self.resample(_as_images(x)), like=x)

    @staticmethod
    def _double_frames(
        time_conv: CausalConv3d, x: Tensor, feat_cache: FeatCache | None, feat_idx: list[int] | None
    ) -> Tensor:
        first = None
        if feat_cache is None or feat_idx is None or feat_cache[feat_idx[0]] is None:
            # The first frame stays one frame, and what comes after it does not see it here: it sees zeros.
            first, x = x[:, :, :1], x[:, :, 1:]
            if x.shape[2] == 0:
                if feat_cache is not None and feat_idx is not None:
                    feat_cache[feat_idx[0]] = time_conv.nothing_before(first)
                    feat_idx[0] += 1
                return first
        # Of the doubled channels one half is the earlier frame, the other half the later.
        pairs = time_conv(x, feat_cache, feat_idx).unflatten(1, (2, -1))
        doubled = torch.stack(pairs.unbind(1), 3).flatten(2, 3)
        return doubled if first is None else torch.cat([first, doubled], 2)


class Downsample(nn.Module):
    """Halves each side; where ``in_time``, makes one frame of each two after the clip's first."""

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1)) if in_time else None

    def forward(self, x: Tensor, feat_cache: FeatCache | None = None, feat_idx: list[int] | None = None) -> Tensor:
        x = _as_clip(self.resample(_as_images(x)), like=x)
        if self.time_conv is None:
            return x
        past = None
        if feat_cache is not None and feat_idx is not None:
            past = feat_cache[feat_idx[0]]
            feat_cache[feat_idx[0]] = x[:, :, -1:].clone()
            feat_idx[0] += 1
        if past is not None:
            halved: Tensor = self.time_conv(torch.cat([past, x], 2))
            return halved
        # The clip's first frame is its own half; with the two after it, it is also the past of the next.
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], self.time_conv(x)], 2)


class Encoder(nn.Module):
    """Pixels to the mean and log variance of latents: the clip's first frame alone, then four frames a latent."""

    def __init__(self, dim: int, z_dim: int, dim_mult: Sequence[int], blocks: int, in_time: Sequence[bool]) -> None:
        super().__init__()
        widths = [dim * mult for mult in dim_mult]
        self.conv1 = CausalConv3d(3, dim, (3, 3, 3))
        layers: list[nn.Module] = []
        before = dim
        for level, width in enumerate(widths):
            for _ in range(blocks):
                layers.append(ResidualBlock(before, width))
                before = width
            if level < len(in_time):
                layers.append(Downsample(width, in_time=in_time[level]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(before)
        self.head = nn.Sequential(RMSNorm(before, 3), nn.SiLU(), CausalConv3d(before, z_dim, (3, 3, 3)))

    def forward(self, x: Tensor, feat_cache: FeatCache | None = None, feat_idx: list[int] | None = None) -> Tensor:
        x = self.conv1(x, feat_cache, feat_idx)
        for part in (self.downsamples, self.middle, self.head):
            x = _through(part, x, feat_cache, feat_idx)
        return x


class Decoder(nn.Module):
    """Latents to pixels: one frame for the clip's first latent, four for each after it."""

    def __init__(self, dim: int, z_dim: int, dim_mult: Sequence[int], blocks: int, in_time: Sequence[bool]) -> None:
        super().__init__()
        widths = [dim * mult for mult in reversed(dim_mult)]
        self.conv1 = CausalConv3d(z_dim, widths[0], (3, 3, 3))
        self.middle = _middle(widths[0])
        layers: list[nn.Module] = []
        before = widths[0]
        for level, width in enumerate(widths):
            for _ in range(blocks + 1):
                layers.append(ResidualBlock(before, width))
                before = width
            if level < len(in_time):
                layers.append(Upsample(width, in_time=in_time[level]))
                before = width // 2
        self.upsamples = nn.Sequential(*layers)
        self.head = nn.Sequential(RMSNorm(before, 3), nn.SiLU(), CausalConv3d(before, 3, (3, 3, 3)))

    def forward(self, x: Tensor, feat_cache: FeatCache | None = None, feat_idx: list[int] | None = None) -> Tensor:
        x = self.conv1(x, feat_cache, feat_idx)
        for part in (self.middle, self.upsamples, self.head):
            x = _through(part, x, feat_cache, feat_idx)
        return x


class DemoVAE(nn.Module):
    """Wan 2.1's VAE at width ``dim``: pixels in [-1, 1], 16 latent channels.

    Args:
        dim: channels at full resolution (Wan 2.1 has 96).
        z_dim: latent channels.
        dim_mult: channels of each level, in units of ``dim``; each level has half the sides of the one before.
        num_res_blocks: residual blocks per level of the encoder; the decoder has one more.
        temperal_downsample: which of the halvings in space also halve the time (upstream's spelling).
    """

    def __init__(
        self,
        *,
        dim: int = 8,
        z_dim: int = LATENT_CHANNELS,
        dim_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        temperal_downsample: Sequence[bool] = (False, True, True),
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.temperal_downsample = list(temperal_downsample)
        self.temperal_upsample = self.temperal_downsample[::-1]
        self.encoder = Encoder(dim, z_dim * 2, dim_mult, num_res_blocks, self.temperal_downsample)
        self.conv1 = nn.Conv3d(z_dim * 2, z_dim * 2, 1)
        self.conv2 = nn.Conv3d(z_dim, z_dim, 1)
        self.decoder = Decoder(dim, z_dim, dim_mult, num_res_blocks, self.temperal_upsample)

    def decode(self, z: Tensor) -> Tensor:
        """Latents to clips, one latent at a time: pieces of 1, 4, 4, ... frames.

        Args:
            z: ``(N, 16, n, h, w)``.

        Returns:
            ``(N, 3, 4n - 3, 8h, 8w)``, about [-1, 1], not clamped.

        Raises:
            ValueError: the latent has another shape.
        """
        if z.dim() != 5 or z.shape[1] != self.z_dim or z.shape[2] == 0:
            raise ValueError(f"expected a latent (N, {self.z_dim}, n, h, w) with n > 0, got {z.shape = }")
        cache = new_cache(self.decoder)
        x = self.conv2(z)
        pieces = [self.decoder(latent, feat_cache=cache, feat_idx=[0]) for latent in x.split(1, 2)]
        return torch.cat(pieces, 2)


def new_cache(part: Encoder | Decoder) -> FeatCache:
    """An empty cache for one clip: a slot for every layer of ``part`` that looks back in time."""
    layers = [layer for layer in part.modules() if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] > 1]
    return [None] * len(layers)


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(channels, channels), AttentionBlock(channels), ResidualBlock(channels, channels))


def _through(layers: nn.Sequential, x: Tensor, feat_cache: FeatCache | None, feat_idx: list[int] | None) -> Tensor:
    """Run ``layers`` in order, handing the cache to those that look back in time."""
    for layer in layers:
        if isinstance(layer, CausalConv3d | ResidualBlock | Upsample | Downsample):
            x = layer(x, feat_cache, feat_idx)
        else:
            x = layer(x)
    return x


def _as_images(x: Tensor) -> Tensor:
    """``(N, C, T, H, W)`` to ``(N * T, C, H, W)``."""
    return x.transpose(1, 2).flatten(0, 1)


def _as_clip(images: Tensor, *, like: Tensor) -> Tensor:
    """``(N * T, C, H, W)`` back to ``(N, C, T, H, W)``, with the ``T`` of ``like``."""
    clip: Tensor = images.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)
    return clip
