"""Which parts of a convolution SeedVR2 makes at once, and that a proof takes them where the whole is another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton.language.extra.libdevice", reason="Triton 3.0 or newer is not installed")

from async_decode.decoders import operations, proof
from async_decode.decoders.operations import Algorithms, Operations, parts_of
from async_decode.decoders.proof import StockNorms, TrialOperations
from async_decode.decoders.weights import Weights

GIB = 1024**3


def test_small_input_is_one_part() -> None:
    assert parts_of((1, 4, 3, 12, 22), 2, (3, 3), 1.0) == [(slice(0, 10), slice(0, 20))]


def test_rows_are_cut_before_what_follows_them() -> None:
    # 4 * 3 * 12 * 22 numbers of two bytes, 2 1/2 times the limit: three parts of 3, 3 and 4 rows.
    limit = 4 * 3 * 12 * 22 * 2 / 2.5 / GIB

    rows = [one for one, _ in parts_of((1, 4, 3, 12, 22), 2, (3, 3), limit)]

    # Two rows around a part may make it too large again: then it is cut by its width.
    assert list(dict.fromkeys((one.start, one.stop) for one in rows)) == [(0, 2), (2, 5), (5, 10)]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1)])
@pytest.mark.parametrize("share", [0.9, 2.0, 3.7, 5.0])
def test_parts_cover_the_result_once(kernel: tuple[int, int], share: float) -> None:
    limit = 4 * 3 * 42 * 32 * 2 / share / GIB
    made = torch.zeros(42 - kernel[0] + 1, 32 - kernel[1] + 1)

    for rows, columns in parts_of((1, 4, 3, 42, 32), 2, kernel, limit):
        made[rows, columns] += 1

    assert (made == 1).all()


def test_proof_takes_the_parts_where_the_whole_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 4, 3, 12, 22).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(5, 4, 3, 3, 3)

    def convolved(x: torch.Tensor, weight: torch.Tensor, _module: object, _padded: bool) -> torch.Tensor:
        out = torch.nn.functional.conv3d(x.double(), weight.double()).float()
        # Another kernel for a larger input.
        return out + (x.shape[3] == 12)

    for room in (operations, proof):
        monkeypatch.setattr(room, "cudnn_conv", convolved)
    module = SimpleNamespace(memory_limit=x.numel() * 4 / 2.5 / GIB)
    trial = TrialOperations(StockNorms([]), Weights(), {})

    made = trial._convolve(0, x, weight, module, True)

    expected = torch.nn.functional.conv3d(x.double(), weight.double()).float()
    assert trial.algorithms.convs == ["parts"]
    assert torch.equal(made, expected)
    ran = Operations(Algorithms(convs=["parts"]), Weights(), {})._convolve(0, x, weight, module, True)
    assert torch.equal(ran, expected)


def test_proof_takes_the_whole_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def convolved(x: torch.Tensor, weight: torch.Tensor, _module: object, _padded: bool) -> torch.Tensor:
        return torch.nn.functional.conv3d(x.double(), weight.double()).float()

    for room in (operations, proof):
        monkeypatch.setattr(room, "cudnn_conv", convolved)
    x = torch.randn(1, 4, 3, 12, 22).contiguous(memory_format=torch.channels_last_3d)
    trial = TrialOperations(StockNorms([]), Weights(), {})

    trial._convolve(0, x, torch.randn(5, 4, 3, 3, 3), SimpleNamespace(memory_limit=x.numel() * 4 / 2.5 / GIB), True)

    assert trial.algorithms.convs == ["cudnn"]
