"""Mean and deviation of groups of channels, as torch's group norm makes them: by Welford's formulas, in its order.

torch gives each group one thread block: 512 threads, each with every 512th number of the group, one after the other,
and combines the threads by halves, within warps and then among them. A card of more than a hundred processors waits for
32 of them. Here each warp of such a block is a program of its own, so that the whole card works, in the same order.

What a thread does is a chain that waits for a division at each number. A division by a known count is exact with its
reciprocal and two corrections, which is faster, unless numbers are so small that the corrections are not.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Threads of torch's for a group; of one with fewer numbers, a warp.
THREADS, WARP = 512, 32
#: Numbers that a program has in flight for each of its threads.
_UNROLLED = 16


@triton.jit(do_not_specialize=["pixels"])
def _planes_kernel(
    x_ptr, bias_ptr, out_ptr, pixels, HAS_BIAS: tl.constexpr, C: tl.constexpr, P: tl.constexpr, B: tl.constexpr
):
    pixel = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    channel = tl.program_id(1) * B + tl.arange(0, B)
    frame = tl.program_id(2).to(tl.int64)
    mask = (pixel < pixels)[:, None] & (channel < C)[None, :]
    value = tl.load(x_ptr + (frame * pixels + pixel)[:, None] * C + channel[None, :], mask=mask, other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)
        value = (value.to(tl.float32) + bias[None, :]).to(value.dtype)
    tl.store(out_ptr + (frame * C + channel.to(tl.int64))[None, :] * pixels + pixel[:, None], value, mask=mask)


def planes(x: Tensor, bias: Tensor | None, per_frame: bool) -> Tensor:
    """``x + bias``, rounded, channel by channel.

    Args:
        x: ``(1, C, T, H, W)``, channels last and dense.
        bias: ``(C,)`` or ``None``.
        per_frame: frames are apart.

    Returns:
        ``(T, C, H * W)`` if ``per_frame``, else ``(1, C, T * H * W)``; contiguous.
    """
    _, channels, frames, height, width = x.shape
    count = frames if per_frame else 1
    pixels = frames * height * width // count
    out = torch.empty((count, channels, pixels), dtype=x.dtype, device=x.device)
    _planes_kernel[(triton.cdiv(pixels, 64), triton.cdiv(channels, 64), count)](
        x,
        x if bias is None else bias,
        out,
        pixels,
        HAS_BIAS=bias is not None,
        C=channels,
        P=64,
        B=64,
        num_warps=4,
    )
    return out


@triton.jit
def _next(x, count, reciprocal, mean, squares, tiny, EXACT: tl.constexpr):
    """One number more: mean, sum of squares about it, and whether a quotient may be wrong."""
    delta = x - mean
    if EXACT:
        part = tl.div_rn(delta, count)
    else:
        part = delta * reciprocal
        part = tl.fma(tl.fma(-count, part, delta), reciprocal, part)
        part = tl.fma(tl.fma(-count, part, delta), reciprocal, part)
        # Below 2**-96 the corrections may be rounded.
        tiny |= ((tl.abs(delta) < 1.2621774483536189e-29) & (delta != 0.0)).to(tl.int32)
    mean = mean + part
    squares = tl.fma(delta, x - mean, squares)
    return mean, squares, tiny


@triton.jit
def _sixteen(tile, LANES: tl.constexpr):
    """The columns of ``(LANES, 16)``."""
    even, odd = tl.split(tl.reshape(tile, [LANES, 2, 2, 2, 2]))
    a, c = tl.split(even)
    b, d = tl.split(odd)
    a0, a1 = tl.split(a)
    b0, b1 = tl.split(b)
    c0, c1 = tl.split(c)
    d0, d1 = tl.split(d)
    v0, v8 = tl.split(a0)
    v4, v12 = tl.split(a1)
    v1, v9 = tl.split(b0)
    v5, v13 = tl.split(b1)
    v2, v10 = tl.split(c0)
    v6, v14 = tl.split(c1)
    v3, v11 = tl.split(d0)
    v7, v15 = tl.split(d1)
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15


@triton.jit
def _chain(
    x_ptr, reciprocal_ptr, n, first, EXACT: tl.constexpr, THREADS: tl.constexpr, LANES: tl.constexpr, U: tl.constexpr
):
    """Of the threads from ``first`` on: mean, squares, and whether they may be wrong."""
    lane = first + tl.arange(0, LANES)
    mean = tl.zeros([LANES], tl.float32)
    squares = tl.zeros([LANES], tl.float32)
    tiny = tl.zeros([LANES], tl.int32)
    blocks = (n // THREADS) // U if U == 16 else 0
    if U == 16:
        step = tl.arange(0, U)[None, :] + tl.zeros([LANES, U], tl.int32)
        place = x_ptr + lane[:, None] + step * THREADS
        upcoming = tl.load(place, mask=step < blocks * U, other=0.0)
        for block in range(blocks):
            now = upcoming
            place += U * THREADS
            upcoming = tl.load(place, mask=step + (block + 1) * U < blocks * U, other=0.0)
            row = _sixteen(now, LANES)
            for turn in tl.static_range(U):
                index = block * U + turn
                count = tl.zeros([LANES], tl.float32) + (index + 1)
                reciprocal = tl.load(reciprocal_ptr + index)
                x = row[turn].to(tl.float32)
                mean, squares, tiny = _next(x, count, reciprocal, mean, squares, tiny, EXACT)
    for index in range(blocks * U, tl.cdiv(n, THREADS)):
        inside = index * THREADS + lane < n
        x = tl.load(x_ptr + index * THREADS + lane, mask=inside, other=0.0).to(tl.float32)
        count = tl.zeros([LANES], tl.float32) + (index + 1)
        reciprocal = tl.load(reciprocal_ptr + index)
        next_mean, next_squares, next_tiny = _next(x, count, reciprocal, mean, squares, tiny, EXACT)
        mean = tl.where(inside, next_mean, mean)
        squares = tl.where(inside, next_squares, squares)
        tiny = tl.where(inside, next_tiny, tiny)
    return mean, squares, tiny


@triton.jit
def _threads_kernel(
    x_ptr, reciprocal_ptr, mean_ptr, squares_ptr, n, THREADS: tl.constexpr, LANES: tl.constexpr, U: tl.constexpr
):
    first = tl.program_id(0) * LANES
    group = tl.program_id(1).to(tl.int64)
    x_ptr += group * n
    mean, squares, tiny = _chain(x_ptr, reciprocal_ptr, n, first, False, THREADS, LANES, U)
    if tl.max(tiny, 0) > 0:
        mean, squares, tiny = _chain(x_ptr, reciprocal_ptr, n, first, True, THREADS, LANES, 1)
    to = group * THREADS + first + tl.arange(0, LANES)
    tl.store(mean_ptr + to, mean)
    tl.store(squares_ptr + to, squares)


@triton.jit
def _combined(mean, squares, count, ROWS: tl.constexpr, HALF: tl.constexpr):
    """``(ROWS, 2 * HALF)`` each: the later half of a row is combined with the earlier one."""
    mean, other = tl.split(tl.permute(tl.reshape(mean, [ROWS, 2, HALF]), [0, 2, 1]))
    squares, other_squares = tl.split(tl.permute(tl.reshape(squares, [ROWS, 2, HALF]), [0, 2, 1]))
    count, other_count = tl.split(tl.permute(tl.reshape(count, [ROWS, 2, HALF]), [0, 2, 1]))
    both = count + other_count
    delta = other - mean
    share = tl.div_rn(other_count, tl.where(both == 0.0, 1.0, both))
    new_mean = tl.fma(delta, share, mean)
    new_squares = tl.fma(delta * delta * count, share, squares + other_squares)
    return (
        tl.where(other_count == 0.0, mean, tl.where(count == 0.0, other, new_mean)),
        tl.where(other_count == 0.0, squares, tl.where(count == 0.0, other_squares, new_squares)),
        both,
    )


@triton.jit
def _groups_kernel(mean_ptr, squares_ptr, out_mean_ptr, out_rstd_ptr, n, epsilon, WARPS: tl.constexpr):
    group = tl.program_id(0).to(tl.int64)
    thread = tl.arange(0, WARPS)[:, None] * 32 + tl.arange(0, 32)[None, :]
    mean = tl.load(mean_ptr + group * (32 * WARPS) + thread)
    squares = tl.load(squares_ptr + group * (32 * WARPS) + thread)
    count = ((n - thread + 32 * WARPS - 1) // (32 * WARPS)).to(tl.float32)
    mean, squares, count = _combined(mean, squares, count, WARPS, 16)
    mean, squares, count = _combined(mean, squares, count, WARPS, 8)
    mean, squares, count = _combined(mean, squares, count, WARPS, 4)
    mean, squares, count = _combined(mean, squares, count, WARPS, 2)
    mean, squares, count = _combined(mean, squares, count, WARPS, 1)
    if WARPS == 16:
        mean, squares, count = _combined(
            tl.reshape(mean, [1, 16]), tl.reshape(squares, [1, 16]), tl.reshape(count, [1, 16]), 1, 8
        )
        mean, squares, count = _combined(mean, squares, count, 1, 4)
        mean, squares, count = _combined(mean, squares, count, 1, 2)
        mean, squares, count = _combined(mean, squares, count, 1, 1)
    variance = tl.div_rn(squares, count)
    at = group + tl.arange(0, 1)[:, None] + tl.arange(0, 1)[None, :]
    tl.store(out_mean_ptr + at, mean)
    tl.store(out_rstd_ptr + at, tl.rsqrt(variance + epsilon))


def moments(x: Tensor, groups: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """The mean of each group, and one over the root of its variance and ``epsilon``.

    Args:
        x: ``(N, C, P)``, contiguous; fewer than 2**31 numbers a group.
        groups: neighbours among the channels, which ``groups`` divides.
        epsilon: as torch has it: rounded to the type of ``x``.

    Returns:
        Two of ``(N, groups)`` in float32.
    """
    n = x[0].numel() // groups
    rows = x.shape[0] * groups
    threads = WARP if n < THREADS else THREADS
    # Of few groups, each warp on its own fills the card just so.
    lanes = WARP if n < THREADS or rows <= 64 else 2 * WARP
    mean = torch.empty((rows, threads), dtype=torch.float32, device=x.device)
    squares = torch.empty_like(mean)
    table = _reciprocals(triton.next_power_of_2(max(1024, triton.cdiv(n, threads))), x.device)
    _threads_kernel[(threads // lanes, rows)](
        x, table, mean, squares, n, THREADS=threads, LANES=lanes, U=_UNROLLED, num_warps=1
    )
    out = torch.empty((2, x.shape[0], groups), dtype=torch.float32, device=x.device)
    _groups_kernel[(rows,)](mean, squares, out[0], out[1], n, epsilon, WARPS=threads // 32, num_warps=1)
    return out[0], out[1]


@functools.lru_cache(maxsize=8)
def _reciprocals(count: int, device: torch.device) -> Tensor:
    """``1 / 1``, ``1 / 2``, … in float32."""
    with torch.inference_mode(False):
        return 1.0 / torch.arange(1, count + 1, dtype=torch.float32, device=device)


def moments_reference(x: Tensor, groups: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Reference: what ``moments`` returns, in plain torch; multiplying and adding at once is done in float64."""
    rows = x.reshape(x.shape[0] * groups, -1).float()
    n = rows.shape[1]
    threads = WARP if n < THREADS else THREADS
    turns = -(-n // threads)
    padded = torch.nn.functional.pad(rows, (0, turns * threads - n)).view(-1, turns, threads)
    count = torch.tensor([(n - thread + threads - 1) // threads for thread in range(threads)], device=x.device)
    mean = torch.zeros(rows.shape[0], threads, device=x.device)
    squares = mean.clone()
    for turn in range(turns):
        inside = turn < count
        number = padded[:, turn]
        delta = number - mean
        # A card multiplies by the reciprocal of a number that is not on it.
        next_mean = mean + delta / torch.full_like(delta, turn + 1)
        squares = torch.where(inside, _fma(delta, number - next_mean, squares), squares)
        mean = torch.where(inside, next_mean, mean)
    state = mean, squares, count.float().expand_as(mean)
    for width in (32, threads // 32):
        shaped = [one.reshape(len(rows), -1, width) for one in state]
        while shaped[0].shape[-1] > 1:
            shaped = _combined_reference(*(half for one in shaped for half in one.chunk(2, -1)))
        state = shaped[0].flatten(1), shaped[1].flatten(1), shaped[2].flatten(1)
    # torch's own root of float32 numbers is not rounded correctly on every CPU.
    rstd = 1 / (state[1] / state[2] + epsilon).double().sqrt().float()
    return state[0].view(-1, groups), rstd.view(-1, groups)


def _combined_reference(
    mean: Tensor, mean_2: Tensor, squares: Tensor, squares_2: Tensor, n: Tensor, n_2: Tensor
) -> list[Tensor]:
    delta, share = mean_2 - mean, n_2 / (n + n_2).clamp_min(1)
    new_mean = _fma(delta, share, mean)
    new_squares = _fma(delta * delta * n, share, squares + squares_2)
    return [
        torch.where(n_2 == 0, mean, torch.where(n == 0, mean_2, new_mean)),
        torch.where(n_2 == 0, squares, torch.where(n == 0, squares_2, new_squares)),
        n + n_2,
    ]


def _fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.double() * b.double() + c.double()).float()
