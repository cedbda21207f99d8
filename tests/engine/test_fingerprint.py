"""Two results that are never in memory together are found equal, or not, as comparing them would."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from async_decode.decoders import fingerprint
from async_decode.decoders.fingerprint import Fingerprint, number_of

SHAPE = (1, 6, 3, 5, 7)


@pytest.fixture(params=[1, 40, 1 << 22], autouse=True)
def _parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_PART", request.param)


def tensor(dtype: torch.dtype = torch.bfloat16, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [SHAPE, (2, *SHAPE[1:]), SHAPE[1:], (5, 7), (9,), (), (1, 6, 0, 5, 7)])
def test_layout_does_not_matter(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = tensor(dtype, shape)
    axes = tuple(reversed(range(x.ndim)))
    lies_otherwise = x.permute(axes).contiguous().permute(axes)
    assert number_of(x) == number_of(lies_otherwise)
    if x.ndim == 5:
        assert number_of(x) == number_of(x.contiguous(memory_format=torch.channels_last_3d))


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 6 * 3 * 5 * 7 - 1), bit=st.integers(0, 15))
def test_one_bit_that_differs_is_found(place: int, bit: int) -> None:
    x = tensor()
    y = x.clone()
    y.view(torch.int16).view(-1)[place] ^= (1 << bit) if bit < 15 else -(1 << 15)
    assert number_of(x) != number_of(y)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_numbers_that_have_changed_places_are_found(data: st.DataObject) -> None:
    count = 6 * 3 * 5 * 7
    first, second = data.draw(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)))
    x = tensor()
    flat = x.clone().view(-1)
    same = flat[first].item() == flat[second].item()
    flat[[first, second]] = flat[[second, first]]
    assert bool(number_of(x) == number_of(flat.view(SHAPE))) is same


def test_shifts_by_a_frame_and_errors_that_add_up_to_nothing_are_found() -> None:
    x = torch.zeros(SHAPE, dtype=torch.bfloat16)
    bits = x.view(torch.int16).view(-1)
    for pattern in ([1, -2, 1], [1, -3, 3, -1], [1, -1]):
        bits.zero_()
        bits[10 : 10 + len(pattern)] = torch.tensor(pattern, dtype=torch.int16)
        assert number_of(x) != number_of(torch.zeros_like(x))
    y = tensor()
    assert number_of(y) != number_of(y.roll(1, 2))


def test_all_nans_are_equal() -> None:
    x, y = tensor(), tensor()
    x.view(torch.int16).view(-1)[[3, 8]] = torch.tensor([0x7FC0, 0x7FC0], dtype=torch.int16)
    y.view(torch.int16).view(-1)[[3, 8]] = torch.tensor([0x7FC1, -63], dtype=torch.int16)
    assert x.isnan().sum() == y.isnan().sum() == 2
    assert number_of(x) == number_of(y)
    assert number_of(x) != number_of(tensor())


def test_shapes_types_words_and_what_is_kept_count() -> None:
    x = tensor()
    assert Fingerprint(x, [x, "Rep", None]) == Fingerprint(x.clone(), [x.clone(), "Rep", None])
    for out, kept in (
        (x, [x, "Rep"]),
        (x, [x, None, None]),
        (x, [x.roll(1, 3), "Rep", None]),
        (x.view(1, 3, 6, 5, 7), [x, "Rep", None]),
        (x.view(torch.float16), [x, "Rep", None]),
    ):
        assert Fingerprint(x, [x, "Rep", None]) != Fingerprint(out, kept)
