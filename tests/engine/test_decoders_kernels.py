"""The kernels beside their references: on the GPU where there is one, else in Triton's interpreter.

The interpreter cuts float32 down to bfloat16 where a GPU rounds, so that it is shown float16.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

ON_GPU = torch.cuda.is_available()
if not ON_GPU:
    # Before Triton is imported for the first time.
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton.language.extra.libdevice", reason="Triton 3.0 or newer is not installed")

from async_decode.decoders.kernels.conv import conv, conv_reference  # noqa: E402
from async_decode.decoders.kernels.depth_to_space import depth_to_space, depth_to_space_reference  # noqa: E402
from async_decode.decoders.kernels.duplicate import duplicate, duplicate_reference  # noqa: E402
from async_decode.decoders.kernels.norm import norm_into, norm_reference, norms_in_order  # noqa: E402
from async_decode.decoders.kernels.order import ORDERS, ROW_ORDERS, Formula, Order, blocks_order  # noqa: E402
from async_decode.decoders.kernels.pad import pad_into, padded_reference  # noqa: E402
from async_decode.decoders.kernels.pixel_shuffle import pixel_shuffle, pixel_shuffle_reference  # noqa: E402
from async_decode.decoders.kernels.residual import add_residual, residual_reference  # noqa: E402
from async_decode.decoders.kernels.upsample import double, double_reference  # noqa: E402
from async_decode.decoders.kernels.weights_last import weights_last, weights_last_reference  # noqa: E402

DEVICE = torch.device("cuda" if ON_GPU else "cpu")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers, channels last where they are a clip."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, torch.float16)
    return drawn.contiguous(memory_format=torch.channels_last_3d) if drawn.ndim == 5 else drawn


#: Two, five and sixteen thread blocks share a pixel.
BLOCKS = [Order("blocks", 4 * blocks) for blocks in (2, 5, 16)]


@pytest.mark.parametrize("order", [*ORDERS[:3], ROW_ORDERS[0], *BLOCKS], ids=str)
@pytest.mark.parametrize("channels", [96, 40, 300])
@pytest.mark.parametrize("has_bias", [False, True])
def test_norm_adds_in_the_order_it_is_told_and_rounds_as_torch_does(
    order: Order, channels: int, has_bias: bool
) -> None:
    x, gamma = numbers(1, channels, 2, 3, 5), numbers(channels, seed=1)
    bias = numbers(channels, seed=2) if has_bias else None
    formula = Formula(channels**0.5, silu=False)
    out, norms = torch.full_like(x, torch.nan), torch.full((30,), torch.nan, device=DEVICE)

    norm_into(out, x, bias, gamma, formula, order, norms)

    expected = norms_in_order(order, x if bias is None else x + bias.view(1, -1, 1, 1, 1))
    assert torch.equal(norms, expected.flatten())
    assert torch.equal(out, norm_reference(x, bias, gamma, formula, expected))


@pytest.mark.parametrize(
    ("channels", "pixels", "blocks"),
    [
        (1024, 44 * 80, 16),  # never fewer than 16 channels to a thread
        (1024, 2 * 88 * 160, 10),
        (1024, 4 * 88 * 160, 5),
        (1024, 4 * 264 * 256, None),  # the card is busy as it is
        (1024, 17 * 29, None),  # no four pixels to a thread
        (512, 44 * 80, None),
        (2048, 4 * 264 * 256, 2),
    ],
)
def test_thread_blocks_share_a_pixel_of_many_channels_where_there_are_few_pixels(
    channels: int, pixels: int, blocks: int | None
) -> None:
    order = blocks_order(channels, pixels, threads=132 * 2048)

    assert order == (None if blocks is None else Order("blocks", 4 * blocks))


@pytest.mark.skipif(not ON_GPU, reason="a CPU adds in another way")
@pytest.mark.parametrize("size", [(1, 44, 80), (1, 30, 52), (2, 88, 160), (4, 88, 160), (1, 22, 40), (3, 16, 16)])
def test_torch_adds_many_channels_in_that_order(size: tuple[int, int, int]) -> None:
    x = torch.randn(1, 1024, *size, device=DEVICE).bfloat16()
    card = torch.cuda.get_device_properties(DEVICE)
    order = blocks_order(1024, x.numel() // 1024, card.multi_processor_count * card.max_threads_per_multi_processor)
    assert order is not None

    expected = torch.linalg.vector_norm(x, 2, 1, dtype=torch.float32)

    assert torch.equal(norms_in_order(order, x), expected)


def test_orders_of_adding_are_told_apart_by_the_norms_before_they_are_rounded() -> None:
    x = numbers(1, 96, 4, 16, 16)
    one, other = (norms_in_order(order, x) for order in (Order("strided", 4), Order("strided", 8)))
    assert 0.02 < (one != other).float().mean() < 0.5
    assert (one.half() != other.half()).float().mean() < 0.001


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("plus_zero", [False, True])
def test_norm_of_what_torch_has_added(wide: bool, plus_zero: bool) -> None:
    x, gamma = numbers(1, 96, 1, 3, 5), numbers(96, seed=1)
    x[:, :, 0, 0, 0] = 0.0  # nothing to divide by
    x[:, 3, 0, 0, 0] = -0.0
    formula = Formula(96**0.5, wide=wide, silu=False, plus_zero=plus_zero)
    norms = torch.linalg.vector_norm(x, 2, 1, dtype=torch.float32)
    out = torch.full_like(x, torch.nan)

    norm_into(out, x, None, gamma, formula, Order("given"), norms.contiguous())

    expected = norm_reference(x, None, gamma, formula, norms)
    assert torch.equal(out.view(torch.int16), expected.view(torch.int16))


def test_a_pixel_that_is_no_number_stays_none() -> None:
    x, gamma = numbers(1, 96, 1, 2, 2), numbers(96, seed=1)
    x[:, 5, 0, 1, 1] = torch.nan
    out = torch.zeros_like(x)

    norm_into(out, x, None, gamma, Formula(1.0, silu=False), Order("strided", 4), torch.empty(4, device=DEVICE))

    assert out[0, :, 0, 1, 1].isnan().all()
    assert not out[0, :, 0, 0].isnan().any()


@pytest.mark.skipif(not ON_GPU, reason="the interpreter's exponential is another one")
def test_silu_of_every_bfloat16_number_is_torchs() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16, device=DEVICE).view(torch.bfloat16)
    x = every[every.isfinite()]
    x = x[: x.numel() // 32 * 32].view(1, 32, 1, 1, -1).contiguous(memory_format=torch.channels_last_3d)
    ones = torch.ones(32, dtype=torch.bfloat16, device=DEVICE)
    norms = torch.ones(x.shape[-1], device=DEVICE)
    out = torch.empty_like(x)

    norm_into(out, x, None, ones, Formula(1.0), Order("given"), norms)

    assert torch.equal(out, torch.nn.functional.silu(x + 0))


@pytest.mark.parametrize(("has_bias", "has_y", "has_y_bias"), [(1, 1, 1), (1, 1, 0), (0, 1, 0), (1, 0, 0)])
def test_residual_rounds_after_each_addition(has_bias: int, has_y: int, has_y_bias: int) -> None:
    x, y = numbers(1, 96, 2, 3, 5), numbers(1, 96, 2, 3, 5, seed=1)
    bias = numbers(96, seed=2)
    arguments = (bias if has_bias else None, y if has_y else None, bias if has_y_bias else None)
    expected = residual_reference(x, *arguments)

    assert torch.equal(add_residual(x.clone(memory_format=torch.preserve_format), *arguments), expected)


@pytest.mark.parametrize(("frames", "has_bias"), [(1, 0), (2, 1), (2, 0)])
@pytest.mark.parametrize(("channels", "width"), [(96, 5), (320, 21)])
def test_doubling_takes_channels_apart_into_frames(frames: int, has_bias: int, channels: int, width: int) -> None:
    x = numbers(1, frames * channels, 2, 3, width)
    bias = numbers(frames * channels, seed=1) if has_bias else None

    assert torch.equal(double(x, bias, frames), double_reference(x, bias, frames))


@pytest.mark.parametrize("front", [0, 2])
@pytest.mark.parametrize(
    ("channels", "height", "width", "reflects"),
    [(96, 3, 5, False), (40, 1, 1, False), (128, 9, 7, False), (96, 3, 5, True), (40, 2, 2, True)],
)
def test_edges_are_repeated_or_reflected_around_a_clip(
    front: int, channels: int, height: int, width: int, reflects: bool
) -> None:
    x = numbers(1, channels, 2, height, width)
    expected = padded_reference(x, front, reflects)
    out = numbers(*expected.shape, seed=1)

    pad_into(out, x, reflects)

    assert torch.equal(out, expected)


@pytest.mark.parametrize("front", [0, 2])
@pytest.mark.parametrize("order", [Order("strided", 4), Order("blocks", 20), Order("given")], ids=str)
def test_norm_with_edges_repeated_around_it(front: int, order: Order) -> None:
    x, gamma, bias = numbers(1, 300, 2, 3, 5), numbers(300, seed=1), numbers(300, seed=2)
    formula = Formula(300**0.5, silu=False, plus_zero=False)
    expected = norms_in_order(Order("strided", 4) if order.kind == "given" else order, x + bias.view(1, -1, 1, 1, 1))
    norms = expected.flatten().clone() if order.kind == "given" else torch.full((30,), torch.nan, device=DEVICE)
    out = numbers(1, 300, front + 2, 5, 7, seed=3)

    norm_into(out, x, bias, gamma, formula, order, norms)

    assert torch.equal(norms, expected.flatten())
    assert torch.equal(out, padded_reference(norm_reference(x, bias, gamma, formula, expected), front))


@pytest.mark.parametrize("order", [*ORDERS, ROW_ORDERS[0], BLOCKS[1], Order("given")], ids=str)
@pytest.mark.parametrize("channels", [256, 96])
def test_norm_by_the_mean_of_rounded_squares(order: Order, channels: int) -> None:
    x, bias = numbers(1, channels, 2, 3, 5), numbers(channels, seed=2)
    x[:, :, 0, 0, 0] = -bias.view(1, -1)  # nothing to divide by but what is added
    formula = Formula(1.0, silu=False, plus_zero=False, epsilon=1e-4, mean=True, reflects=True)
    biased = x + bias.view(1, -1, 1, 1, 1)
    expected = norms_in_order(Order("strided", 4) if order.kind == "given" else order, biased, mean=True)
    norms = expected.flatten().clone() if order.kind == "given" else torch.full((30,), torch.nan, device=DEVICE)
    out = numbers(1, channels, 2, 5, 7, seed=3)

    norm_into(out, x, bias, None, formula, order, norms)

    assert torch.equal(norms, expected.flatten())
    assert torch.equal(out, padded_reference(norm_reference(x, bias, None, formula, expected), 0, True))
    assert not torch.equal(expected, (biased.float() ** 2).mean(1))


@pytest.mark.parametrize(("frames", "first", "time"), [(1, False, 2), (2, False, 2), (2, True, 3), (2, True, 1)])
@pytest.mark.parametrize(("channels", "times", "width"), [(40, 2, 5), (96, 4, 3), (16, 8, 37)])
def test_channels_become_pixels_and_frames_and_so_does_the_shortcut(
    frames: int, first: bool, time: int, channels: int, times: int, width: int
) -> None:
    wide = 4 * frames * channels
    x, bias = numbers(1, wide, time, 3, width), numbers(wide, seed=1)
    y = numbers(1, wide // times, time, 3, width, seed=2)

    for one in (bias, None):
        expected = depth_to_space_reference(x, one, y, frames, first)
        assert expected.shape == (1, channels, frames * time - first, 6, 2 * width)
        assert torch.equal(depth_to_space(x, one, y, frames, first), expected)


@pytest.mark.parametrize(("in_time", "in_space"), [(2, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize(("own", "channels", "width", "skipped"), [(40, 40, 5, 0), (16, 64, 37, 1), (24, 24, 3, 1)])
def test_channels_are_dealt_out_to_pixels_and_frames_and_repeated(
    in_time: int, in_space: int, own: int, channels: int, width: int, skipped: int
) -> None:
    wide = own * in_time * in_space**2
    x, bias = numbers(1, wide, 3, 2, width), numbers(wide, seed=1)

    for one in (bias, None):
        expected = pixel_shuffle_reference(x, one, channels, in_time, in_space, skipped)
        assert torch.equal(pixel_shuffle(x, one, channels, in_time, in_space, skipped), expected)


def test_convolution_of_96_channels() -> None:
    x, weight = numbers(1, 96, 3, 4, 5), numbers(96, 96, 3, 3, 3, seed=1) / 50
    assert (conv(x, weight).float() - conv_reference(x, weight).float()).abs().max() < 0.01


def test_convolution_takes_its_past_from_elsewhere() -> None:
    x, weight = numbers(1, 96, 4, 4, 5), numbers(96, 96, 3, 3, 3, seed=1) / 50
    past, now = (part.contiguous(memory_format=torch.channels_last_3d) for part in (x[:, :, :2], x[:, :, 2:]))
    assert torch.equal(conv(now, weight, past), conv(x, weight))


@pytest.mark.parametrize(
    ("wide", "channels", "in_time", "in_space", "skipped"),
    [(48, 48, 2, 2, 0), (48, 48, 2, 2, 1), (96, 48, 1, 2, 0), (48, 24, 2, 1, 0)],
)
def test_duplicates(wide: int, channels: int, in_time: int, in_space: int, skipped: int) -> None:
    x = numbers(1, wide, 3, 5, 6)
    how = (channels, in_time, in_space, skipped)

    out = duplicate(x, *how)

    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(out, duplicate_reference(x, *how))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(5, 70, 3, 3, 3), (70, 5, 3, 1, 1), (8, 64, 1, 1, 1), (6, 130, 3, 3)])
def test_weights_are_put_channels_last(shape: tuple[int, ...], last: bool) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.float16)

    last = last and weight.ndim == 5
    out, expected = weights_last(weight, last), weights_last_reference(weight, last)

    layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
    assert out.is_contiguous(memory_format=layout)
    assert torch.equal(out, expected)
