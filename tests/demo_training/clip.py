"""Draws the clips that the demo's VAE is trained on, and the one that the demo shows.

Everything is drawn from formulas, so there is no data set to fetch and no licence to ask for. A scene is a function
from time and place to colour, so any window of it can be drawn at once, on any device. Lengths are in canvas heights
(256 pixels), times in loops (49 frames): a scene whose motion has whole periods per loop plays without a seam.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

DEMO_FRAMES = 49
DEMO_HEIGHT = 256
DEMO_WIDTH = 384

Colour: TypeAlias = tuple[float, float, float]
#: ``(t, y, x)`` of shapes (T, 1, 1), (1, H, 1), (1, 1, W) to colours (T, H, W, 3).
Scene: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

_PIXEL = 1.0 / DEMO_HEIGHT
_TURN = 2.0 * math.pi


@dataclass(frozen=True)
class Window:
    """The pixels to draw: ``frames`` frames from ``first``, ``height`` x ``width`` pixels from ``top``, ``left``."""

    frames: int = DEMO_FRAMES
    height: int = DEMO_HEIGHT
    width: int = DEMO_WIDTH
    first: int = 0
    top: int = 0
    left: int = 0

    def draw(self, scene: Scene, device: torch.device | str = "cpu") -> Tensor:
        """``scene`` in this window: ``(T, H, W, 3)`` float32 in [0, 1] on ``device``."""
        t = (torch.arange(self.frames, device=device) + self.first).view(-1, 1, 1) / DEMO_FRAMES
        y = (torch.arange(self.height, device=device) + self.top + 0.5).view(1, -1, 1) * _PIXEL
        x = (torch.arange(self.width, device=device) + self.left + 0.5).view(1, 1, -1) * _PIXEL
        # One frame at a time stays in a processor's cache; a GPU would wait for the many small launches.
        steps = t.split(1) if t.device.type == "cpu" else (t,)
        return torch.cat([scene(step, y, x).clamp(0.0, 1.0) for step in steps])


def demo_clip(device: torch.device | str = "cpu") -> Tensor:
    """The clip that the demo shows: balloons over a mountain lake at dusk, seen by a camera that sways.

    Returns:
        ``(49, 256, 384, 3)`` float32 in [0, 1]; frame 49 would be frame 0 again.
    """
    return Window().draw(DEMO_SCENE, device)


def training_clip(
    seed: int, *, frames: int, height: int, width: int, demo_share: float = 0.0, device: torch.device | str = "cpu"
) -> Tensor:
    """One clip of the training set: a random window of a random scene.

    Args:
        seed: the same seed draws the same clip.
        frames: frames of the clip.
        height: its height in pixels.
        width: its width in pixels.
        demo_share: how often, from 0 to 1, the scene is the demo's own. The VAE is there to show that one clip, so its
            training looks at it too: the demo's PSNR is no measure of what the VAE does to clips that it has not seen.
        device: where to draw.

    Returns:
        ``(frames, height, width, 3)`` float32 in [0, 1].
    """
    rng = random.Random(seed)
    window = Window(
        frames=frames,
        height=height,
        width=width,
        first=rng.randrange(DEMO_FRAMES),
        top=rng.randint(0, max(0, DEMO_HEIGHT - height)),
        left=rng.randint(0, max(0, DEMO_WIDTH - width)),
    )
    if rng.random() < demo_share:
        # Frame 0 follows black, so the clip's own beginning has to be seen as well as its middle.
        first = rng.choice((0, rng.randint(0, max(0, DEMO_FRAMES - frames))))
        window = Window(window.frames, window.height, window.width, first, window.top, window.left)
        return window.draw(DEMO_SCENE, device)
    kind = rng.choice((Landscape.random, Landscape.random, Shapes.random, Waves.random, Strokes.random))
    return window.draw(kind(rng), device)


@dataclass(frozen=True)
class Balloon:
    """A striped hot-air balloon on a closed path around its place."""

    y: float
    x: float
    radius: float
    colours: tuple[Colour, Colour]
    phase: float = 0.0

    def paint(self, frame: Tensor, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Paint it over ``frame``."""
        turn = _TURN * (t + self.phase)
        y = (y - self.y - 0.05 * torch.sin(turn)) / self.radius
        x = (x - self.x - 0.07 * torch.cos(turn)) / self.radius
        edge = _PIXEL / self.radius
        # Below its widest place the envelope narrows towards the basket.
        across = x / (1.0 - 0.42 * y.clamp(min=0.0).square())
        envelope = _inside(1.0 - (across.square() + (y / 1.12).square()).sqrt(), edge)
        # Gores of a sphere: even in angle, so narrower to the sides.
        stripes = torch.sin(8.0 * torch.asin(across.clamp(-1.0, 1.0)) + 2.0 * torch.sin(turn))
        light = (0.80 - 0.35 * across - 0.20 * y).clamp(0.35, 1.1)
        gores = _mix(_colour(self.colours[0], y), _colour(self.colours[1], y), _inside(0.2 * stripes, edge))
        ropes = _inside(0.03 - ((x.abs() - 0.24 + 0.08 * (y - 1.1)).abs()), edge) * _between(y, 1.0, 1.42, edge)
        basket = _inside(0.22 - x.abs(), edge) * _between(y, 1.42, 1.72, edge)
        frame = _over(frame, (0.25, 0.16, 0.12), torch.maximum(ropes, basket))
        return _mix(frame, gores * light[..., None], envelope)


@dataclass(frozen=True)
class Landscape:
    """Ridges before a sky with a low sun, their reflection in a lake, balloons and birds; the camera sways."""

    sky: tuple[Colour, Colour, Colour]
    near: Colour
    sun: tuple[float, float]
    shore: float
    ridges: tuple[tuple[tuple[float, float, float], ...], ...]
    balloons: tuple[Balloon, ...]
    birds: tuple[tuple[float, float, float], ...]
    sway: float = 0.12

    def __call__(self, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        depth = (y - self.shore).clamp(min=0.0)
        ripple = torch.sin(38.0 * depth.sqrt() * 3.0 - 3.0 * _TURN * t) * (0.2 + depth)
        # In the lake everything is upside down, and moves with the water.
        above = torch.where(y > self.shore, 2.0 * self.shore - y + 0.035 * ripple, y)
        air = self._air(t, above, x + 0.008 * ripple * (depth > 0))
        water = _mix(air, _colour(self.sky[0], y) * 0.7, (0.25 + 0.5 * depth).clamp(0.0, 0.75))
        glint = (0.5 + 0.5 * ripple / (0.2 + depth)).pow(4) * torch.exp(-(((x - self.sun[1]) / (0.08 + depth)) ** 2))
        water = water + 0.35 * glint[..., None] * _colour(self.sky[2], y)
        return _mix(air, water, _inside(y - self.shore, _PIXEL))

    def _air(self, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """What is above the shore, at heights ``y`` of any shape."""
        up = (y / self.shore).clamp(0.0, 1.0)
        frame = _mix(_colour(self.sky[0], up), _colour(self.sky[1], up), _smooth(up / 0.65))
        frame = _mix(frame, _colour(self.sky[2], up), _smooth((up - 0.45) / 0.55))
        away = ((y - self.sun[0]).square() + (x - self.sun[1]).square()).sqrt()
        frame = frame + (0.45 * torch.exp(-away / 0.16))[..., None] * _colour(self.sky[2], up)
        frame = _over(frame, (1.0, 0.95, 0.80), _inside(0.085 - away, 1.5 * _PIXEL))
        pan = self.sway * torch.sin(_TURN * t)
        count = len(self.ridges)
        for number, waves in enumerate(self.ridges):
            closer = (number + 1) / count
            place = x + pan * closer**1.5
            top = sum((a * torch.sin(_TURN * (f * place + p)) for f, a, p in waves), torch.zeros_like(place))
            top = self.shore - 0.30 + 0.235 * closer + top * (1.0 - 0.55 * closer)
            haze = _mix(_colour(self.sky[1], y), _colour(self.near, y), torch.full_like(y, 0.25 + 0.75 * closer))
            haze = haze * (1.0 - 0.5 * (y - top).clamp(0.0, 0.4))[..., None]
            frame = _mix(frame, haze, _inside(y - top, _PIXEL))
            if number == count - 2:
                for balloon in self.balloons:
                    frame = balloon.paint(frame, t, y, x)
        for where_y, where_x, size in self.birds:
            frame = _over(frame, (0.10, 0.09, 0.16), self._bird(t, y - where_y, x - where_x, size))
        return frame

    @staticmethod
    def _bird(t: Tensor, y: Tensor, x: Tensor, size: float) -> Tensor:
        """Two wings that beat four times a loop, around a body that circles."""
        turn = _TURN * (t + 10.0 * size)
        y = (y - 0.03 * torch.sin(turn)) / size
        x = ((x - 0.16 * torch.cos(turn)) / size).abs()
        wing = 0.55 * torch.sin(4.0 * turn) * x - 0.5 * x * (1.0 - x)
        return _inside(0.16 * (1.0 - 0.8 * x) - (y - wing).abs(), _PIXEL / size) * _inside(1.0 - x, _PIXEL / size)

    @classmethod
    def random(cls, rng: random.Random) -> Scene:
        """Another hour, another place."""
        hue = rng.random()
        sky = (
            colorsys.hsv_to_rgb(hue + 0.6, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.8)),
            colorsys.hsv_to_rgb(hue, rng.uniform(0.2, 0.7), rng.uniform(0.6, 1.0)),
            colorsys.hsv_to_rgb(hue + 0.1, rng.uniform(0.1, 0.5), 1.0),
        )
        shore = rng.uniform(0.55, 0.85)
        balloons = tuple(
            Balloon(
                y=rng.uniform(0.1, 0.45),
                x=rng.uniform(0.1, 1.4),
                radius=rng.uniform(0.06, 0.17),
                colours=(_any_colour(rng), _any_colour(rng)),
                phase=rng.random(),
            )
            for _ in range(rng.randint(1, 3))
        )
        return cls(
            sky=sky,
            near=colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.08, 0.3)),
            sun=(rng.uniform(0.2, shore), rng.uniform(0.2, 1.3)),
            shore=shore,
            ridges=tuple(_ridge(rng) for _ in range(rng.randint(3, 5))),
            balloons=balloons,
            birds=tuple((rng.uniform(0.1, 0.5), rng.uniform(0.2, 1.3), rng.uniform(0.02, 0.05)) for _ in range(3)),
            sway=rng.uniform(0.02, 0.2),
        )


@dataclass(frozen=True)
class Shapes:
    """Discs, rings and turning boxes that cross a gradient."""

    corners: tuple[Colour, Colour, Colour]
    shapes: tuple[tuple[str, Colour, float, tuple[float, float], tuple[float, float], float, float], ...]

    def __call__(self, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        frame = _mix(_colour(self.corners[0], y + x), _colour(self.corners[1], y + x), (y + 0.0 * x).expand(1, -1, -1))
        frame = _mix(frame, _colour(self.corners[2], y + x), (0.6 * x + 0.3 * torch.sin(_TURN * t)).clamp(0.0, 1.0))
        for kind, colour, size, (py, px), (vy, vx), spin, soft in self.shapes:
            dy, dx = y - py - vy * t, x - px - vx * torch.sin(_TURN * t)
            if kind == "box":
                cos, sin = torch.cos(_TURN * spin * t), torch.sin(_TURN * spin * t)
                depth = size - torch.maximum((cos * dx + sin * dy).abs(), 1.6 * (cos * dy - sin * dx).abs())
            else:
                depth = size - (dy.square() + dx.square()).sqrt()
                if kind == "ring":
                    depth = 0.3 * size - (depth - 0.3 * size).abs()
            frame = _over(frame, colour, _inside(depth, soft))
        return frame

    @classmethod
    def random(cls, rng: random.Random) -> Scene:
        """Three to nine shapes, sharp or soft."""
        shapes = tuple(
            (
                rng.choice(("disc", "disc", "box", "ring")),
                _any_colour(rng),
                rng.uniform(0.03, 0.25),
                (rng.random(), rng.uniform(0.0, 1.5)),
                (rng.gauss(0.0, 0.5), rng.gauss(0.0, 0.2)),
                rng.uniform(-1.0, 1.0),
                rng.choice((_PIXEL, 2.0 * _PIXEL, 0.05)),
            )
            for _ in range(rng.randint(3, 9))
        )
        return cls((_any_colour(rng), _any_colour(rng), _any_colour(rng)), shapes)


@dataclass(frozen=True)
class Waves:
    """Soft textures: plane waves that drift, each in a colour of its own."""

    ground: Colour
    waves: tuple[tuple[Colour, float, float, float, float], ...]

    def __call__(self, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        frame = _colour(self.ground, t + y + x)
        for colour, fy, fx, ft, phase in self.waves:
            frame = frame + torch.sin(_TURN * (fy * y + fx * x + ft * t + phase))[..., None] * _colour(colour, t)
        return frame

    @classmethod
    def random(cls, rng: random.Random) -> Scene:
        """Six waves, the shorter the fainter."""
        waves = []
        for _ in range(6):
            angle, pitch = rng.uniform(0.0, _TURN), math.exp(rng.uniform(math.log(0.4), math.log(20.0)))
            strength = 0.22 * rng.uniform(0.3, 1.0) / (1.0 + pitch / 6.0)
            red, green, blue = (strength * rng.gauss(0.0, 1.0) for _ in range(3))
            fy, fx = pitch * math.sin(angle), pitch * math.cos(angle)
            waves.append(((red, green, blue), fy, fx, rng.gauss(0.0, 2.0), rng.random()))
        return cls(_any_colour(rng), tuple(waves))


@dataclass(frozen=True)
class Strokes:
    """Rows of letter-like strokes that scroll over a gradient."""

    ground: tuple[Colour, Colour]
    ink: Colour
    size: float
    thick: float
    speed: tuple[float, float]
    strokes: tuple[tuple[float, float, float, float, float, float], ...]

    def __call__(self, t: Tensor, y: Tensor, x: Tensor) -> Tensor:
        frame = _mix(_colour(self.ground[0], t + y + x), _colour(self.ground[1], t + y + x), (y + 0.0 * (x + t)))
        y, x = y - self.speed[0] * t, x - self.speed[1] * t
        depth = torch.full_like(y + x, -1.0)
        # The same letters again in every field of this size.
        y, x = y % (3.0 * self.size), x % (5.0 * self.size)
        for row, column, y0, x0, y1, x1 in self.strokes:
            py, px = y - self.size * (row + y0), x - self.size * (column + x0)
            ry, rx = self.size * (y1 - y0), self.size * (x1 - x0)
            along = ((py * ry + px * rx) / (ry * ry + rx * rx + 1e-9)).clamp(0.0, 1.0)
            away = ((py - along * ry).square() + (px - along * rx).square()).sqrt()
            depth = torch.maximum(depth, self.thick - away)
        return _over(frame, self.ink, _inside(depth, _PIXEL))

    @classmethod
    def random(cls, rng: random.Random) -> Scene:
        """Fifteen letters of two or three strokes."""
        size = rng.uniform(0.08, 0.25)
        strokes = tuple(
            (
                float(row),
                float(column),
                rng.uniform(0.15, 0.85),
                rng.uniform(0.15, 0.85),
                rng.uniform(0.15, 0.85),
                rng.uniform(0.15, 0.85),
            )
            for row in range(3)
            for column in range(5)
            for _ in range(rng.randint(2, 3))
        )
        speed = (rng.gauss(0.0, 0.3), rng.gauss(0.0, 0.5))
        return cls((_any_colour(rng), _any_colour(rng)), _any_colour(rng), size, 0.08 * size, speed, strokes)


def _ridge(rng: random.Random, roughness: float = 1.0) -> tuple[tuple[float, float, float], ...]:
    """Waves (frequency, amplitude, phase) that add up to a mountain ridge."""
    pitches = (0.5, 1.1, 2.3, 4.9, 9.7)
    return tuple((f * rng.uniform(0.8, 1.25), roughness * 0.06 * f**-0.9, rng.random()) for f in pitches)


def _any_colour(rng: random.Random) -> Colour:
    return colorsys.hsv_to_rgb(rng.random(), rng.random(), 1.0 - rng.random() ** 2)


def _colour(rgb: Sequence[float], like: Tensor) -> Tensor:
    """A colour that can be mixed with frames: ``(1, 1, 1, 3)`` where ``like`` is."""
    return torch.tensor(rgb, device=like.device, dtype=torch.float32).view(1, 1, 1, 3)


def _mix(one: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """``one`` where ``share`` (T, H, W) is 0, ``other`` where it is 1."""
    return one + share[..., None] * (other - one)


def _over(frame: Tensor, colour: Colour, cover: Tensor) -> Tensor:
    return _mix(frame, _colour(colour, frame), cover)


def _inside(depth: Tensor, edge: float) -> Tensor:
    """1 where ``depth`` is positive, 0 where negative, with an edge of about the width ``edge`` between them."""
    return (depth / edge + 0.5).clamp(0.0, 1.0)


def _between(value: Tensor, low: float, high: float, edge: float) -> Tensor:
    return _inside(value - low, edge) * _inside(high - value, edge)


def _smooth(value: Tensor) -> Tensor:
    """From 0 to 1 without a kink at either end."""
    value = value.clamp(0.0, 1.0)
    return value * value * (3.0 - 2.0 * value)


_CREAM: Colour = (0.98, 0.93, 0.82)

DEMO_SCENE = Landscape(
    sky=((0.17, 0.22, 0.47), (0.90, 0.50, 0.45), (1.00, 0.80, 0.52)),
    near=(0.13, 0.11, 0.24),
    sun=(0.44, 1.02),
    shore=0.72,
    ridges=tuple(_ridge(random.Random(seed)) for seed in (3, 8, 21, 34)),
    balloons=(
        Balloon(y=0.27, x=0.42, radius=0.135, colours=((0.86, 0.20, 0.22), _CREAM)),
        Balloon(y=0.20, x=1.24, radius=0.075, colours=((0.10, 0.55, 0.58), (0.98, 0.78, 0.25)), phase=0.4),
    ),
    birds=((0.17, 0.78, 0.030), (0.22, 0.86, 0.022), (0.13, 0.88, 0.018)),
)
