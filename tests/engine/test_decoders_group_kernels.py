"""Kernels of decoders that norm groups of channels: on the GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    # Before Triton is imported for the first time.
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton.language.extra.libdevice", reason="Triton 3.0 or newer is not installed")

from async_decode.decoders.kernels.enlarge import enlarge_into, enlarged_reference  # noqa: E402
from async_decode.decoders.kernels.group_norm import group_norm_into, group_norm_reference  # noqa: E402
from async_decode.decoders.kernels.moments import moments, moments_reference, planes  # noqa: E402
from async_decode.decoders.kernels.order import GroupFormula  # noqa: E402

DEVICE = torch.device("cuda" if ON_GPU else "cpu")


@pytest.fixture(autouse=True)
def multiplying_and_adding_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter rounds in between; in float64 the product is exact."""
    if not ON_GPU:
        interpreter = pytest.importorskip("triton.runtime.interpreter")

        def fma(_self: object, x: object, y: object, z: object) -> object:
            made = x.data.astype("float64") * y.data.astype("float64") + z.data.astype("float64")
            return interpreter.TensorHandle(made.astype(z.data.dtype), z.dtype.scalar)

        monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", fma)
    yield


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers, channels last where they are a clip."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, torch.float16)
    return drawn.contiguous(memory_format=torch.channels_last_3d) if drawn.ndim == 5 else drawn


def apart(name: str, ours: Tensor, expected: Tensor) -> str:
    """How far two tensors differ, in units of the last place, and where: for a message."""
    bits = {2: torch.int16, 4: torch.int32}[ours.element_size()]
    units = [
        torch.where(one < 0, -(one & torch.iinfo(bits).max).long(), one.long())
        for one in (made.contiguous().view(bits) for made in (ours, expected))
    ]
    steps = (units[0] - units[1]).abs()
    rows = [
        f"{tuple(at)}: {ours[tuple(at)].item()!r}, not {expected[tuple(at)].item()!r}, {steps[tuple(at)].item()} units"
        for at in steps.nonzero()[:8].tolist()
    ]
    differ, most = int((steps > 0).sum()), int(steps.max())
    return f"{name}: {differ} of {steps.numel()} differ, by {most} units at most: " + "; ".join(rows)


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize(("channels", "width"), [(96, 5), (64, 16), (40, 33)])
def test_planes_are_channel_by_channel_with_the_bias(per_frame: bool, channels: int, width: int) -> None:
    x, bias = numbers(1, channels, 3, 2, width), numbers(channels, seed=1)

    for one in (bias, None):
        clip = x if one is None else x + one.view(1, -1, 1, 1, 1)
        expected = clip[0].transpose(0, 1).flatten(2) if per_frame else clip.flatten(2)
        assert torch.equal(planes(x, one, per_frame), expected)


#: Numbers of a group: less than a thread each, one and a bit, sixteen and more each, many groups.
SIZES = [(1, 4, 2, 30), (2, 6, 3, 300), (1, 4, 1, 2048), (1, 8, 2, 2500), (1, 4, 2, 512 * 16 + 77), (3, 64, 32, 260)]


@pytest.mark.parametrize(("rows", "channels", "groups", "pixels"), SIZES)
def test_moments_are_added_in_torchs_order(rows: int, channels: int, groups: int, pixels: int) -> None:
    x = numbers(rows, channels, pixels) * 3 + 1

    mean, rstd = moments(x, groups, 1e-6)

    expected_mean, expected_rstd = moments_reference(x, groups, 1e-6)
    assert torch.equal(mean, expected_mean), apart("mean", mean, expected_mean)
    # A card's root is another one, by two units in the last place; torch's own is what the next test compares.
    assert (rstd.view(torch.int32) - expected_rstd.view(torch.int32)).abs().max() <= 3 * ON_GPU, apart(
        "rstd", rstd, expected_rstd
    )
    plain = x.view(rows * groups, -1).double()
    torch.testing.assert_close(mean.flatten().double(), plain.mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rstd.flatten().double(), 1 / plain.std(1, correction=0), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not ON_GPU, reason="a CPU adds in another way")
@pytest.mark.parametrize(
    ("rows", "channels", "groups", "pixels"), [*SIZES, (5, 128, 32, 180 * 320), (1, 256, 32, 400000)]
)
@pytest.mark.parametrize("mean", [0.0, 1.0, 30.0])
def test_moments_are_torchs(rows: int, channels: int, groups: int, pixels: int, mean: float) -> None:
    x = (torch.randn(rows, channels, pixels, device=DEVICE) + mean).bfloat16()

    ours = moments(x, groups, 1e-6)

    _, *torchs = torch.native_group_norm(x.float(), None, None, rows, channels, pixels, groups, 1e-6)
    for name, one, other in zip(("mean", "rstd"), ours, torchs, strict=True):
        assert torch.equal(one, other), apart(name, one, other)


def test_moments_of_tiny_numbers_are_divided_in_full() -> None:
    x = torch.full((1, 2, 600), 3e-30, device=DEVICE, dtype=torch.bfloat16)
    x[:, :, 3::7] = -2e-33
    x[:, :, 1::5] = 0.0

    mean, _ = moments(x, 1, 1e-6)

    assert torch.equal(mean, moments_reference(x, 1, 1e-6)[0])


@pytest.mark.parametrize("groups", [1, 6, 8, 32])
def test_moments_of_every_group_are_compared(monkeypatch: pytest.MonkeyPatch, groups: int) -> None:
    from async_decode.decoders import proof
    from async_decode.decoders.kernels import moments as home

    wrong: list[int] = []

    def flawed(*told: object) -> tuple[Tensor, Tensor]:
        mean, rstd = moments_reference(*told)
        for group in wrong:
            rstd[-1, group] += 1e-3
        return mean, rstd

    monkeypatch.setattr(home, "moments", flawed)
    monkeypatch.setattr(proof, "moments_of_torch", moments_reference)
    x = numbers(2, 2 * groups, 40)

    assert proof._are_torchs(x, GroupFormula(groups, 1e-6))
    for group in range(groups):
        wrong[:] = [group]
        assert not proof._are_torchs(x, GroupFormula(groups, 1e-6))


@pytest.mark.parametrize(("rounded", "fused"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize(
    ("front", "edges", "zeros"), [(0, False, False), (2, True, False), (2, True, True), (0, True, True)]
)
@pytest.mark.parametrize("channels", [96, 64])
def test_group_norm_rounds_as_torch_does(
    rounded: bool, fused: bool, per_frame: bool, front: int, edges: bool, zeros: bool, channels: int
) -> None:
    x, bias = numbers(1, channels, 2, 3, 5), numbers(channels, seed=1)
    weights = numbers(channels, seed=2), numbers(channels, seed=3)
    formula = GroupFormula(32, 1e-6, silu=False, per_frame=per_frame, zeros=zeros)
    mean, rstd = moments(planes(x, bias, per_frame), 32, 1e-6)
    size = (front + 2, 5, 7) if edges else (2, 3, 5)
    out = numbers(1, channels, *size, seed=4)

    group_norm_into(out, x, bias, weights, formula, mean, rstd, rounded, fused)

    expected = group_norm_reference(x, bias, weights, formula, mean, rstd, rounded, fused, front, edges)
    assert torch.equal(out, expected), apart("norm", out, expected)


@pytest.mark.skipif(not ON_GPU, reason="a CPU rounds in other places")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_group_norm_with_silu_is_torchs(dtype: torch.dtype) -> None:
    from async_decode.decoders.operations import fuses_summand, moments_of_torch, rounds_moments

    x = (torch.randn(1, 128, 5, 60, 104, device=DEVICE) * 4 + 2).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    weights = torch.randn(128, device=DEVICE).to(dtype), torch.randn(128, device=DEVICE).to(dtype)
    epsilon, flat = float(torch.tensor(1e-6, dtype=dtype)), planes(x, None, False)
    ways = rounds_moments(DEVICE, dtype), fuses_summand(DEVICE, dtype)
    ours = moments(flat, 32, epsilon)
    for name, one, other in zip(("mean", "rstd"), ours, moments_of_torch(flat.float(), 32, epsilon), strict=True):
        assert torch.equal(one, other), apart(name, one, other)
    plain = torch.nn.functional.group_norm(x.contiguous(), 32, *weights, 1e-6)

    def made(silu: bool, rounded: bool, fused: bool) -> Tensor:
        out = torch.empty_like(x)
        group_norm_into(out, x, None, weights, GroupFormula(32, 1e-6, silu), *ours, rounded, fused)
        return out

    tried = {(a, b): int((made(False, a, b) != plain).sum()) for a in (False, True) for b in (False, True)}
    norm = made(False, *ways)
    assert torch.equal(norm, plain), f"{ways}, of all ways {tried}: {apart('norm', norm, plain)}"
    expected, out = torch.nn.functional.silu(plain), made(True, *ways)
    assert torch.equal(out, expected), f"norms are equal; {apart('SiLU', out, expected)}"


@pytest.mark.skipif(not ON_GPU, reason="a CPU's is another one")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_silu_of_every_number_is_torchs(dtype: torch.dtype) -> None:
    """The norm with a factor of one and a summand of nought hands each number on as it is."""
    every = torch.arange(-(1 << 15), 1 << 15, device=DEVICE, dtype=torch.int32).to(torch.int16).view(dtype)
    x = every.view(1, 32, 1, 32, 64).contiguous(memory_format=torch.channels_last_3d)
    weights = torch.ones(32, device=DEVICE, dtype=dtype), torch.zeros(32, device=DEVICE, dtype=dtype)
    moments_of_nothing = torch.zeros(1, 32, device=DEVICE), torch.ones(1, 32, device=DEVICE)
    out = torch.empty_like(x)

    group_norm_into(out, x, None, weights, GroupFormula(32, 1e-6), *moments_of_nothing, False, True)

    expected = torch.nn.functional.silu(x)
    assert torch.equal(out.nan_to_num(7), expected.nan_to_num(7)), apart("SiLU", out, expected)


def test_reference_divides_on_a_card_as_on_a_cpu() -> None:
    x = numbers(1, 8, 2500) * 3 + 1

    mean, _ = moments_reference(x, 2, 1e-6)

    assert torch.equal(mean.cpu(), moments_reference(x.cpu(), 2, 1e-6)[0])


@pytest.mark.parametrize(("times", "first", "frames"), [(1, False, 2), (2, False, 2), (2, True, 3), (2, True, 1)])
@pytest.mark.parametrize(("dealt", "zeros"), [(False, False), (True, True)])
@pytest.mark.parametrize(("front", "width"), [(0, 5), (2, 37)])
def test_frames_become_larger_in_a_convolutions_input(
    times: int, first: bool, frames: int, dealt: bool, zeros: bool, front: int, width: int
) -> None:
    wide = 40 * (4 * times if dealt else 1)
    x, bias = numbers(1, wide, frames, 3, width), numbers(wide, seed=1)

    for one in (bias, None):
        expected = enlarged_reference(x, one, times, first, dealt, zeros, front)
        out = numbers(*expected.shape, seed=2)
        enlarge_into(out, x, one, times, first, dealt, zeros)
        assert torch.equal(out, expected)
