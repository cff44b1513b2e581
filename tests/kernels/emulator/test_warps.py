"""Shuffles, votes and reductions against NumPy."""

import numpy as np
import pytest

from kernels import emulator


def shuffled(values, lane_of):
    """Take, for each lane, the value of lane_of(lane) in its own warp."""
    n = len(values)
    warp, lane = np.arange(n) // 32 * 32, np.arange(n) % 32
    return values[warp + np.array([lane_of(i) for i in lane])]


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [
        ("shuffle_int", np.int32),
        ("shuffle_unsigned", np.uint32),
        ("shuffle_long", np.int64),
        ("shuffle_float", np.float32),
        ("shuffle_double", np.float64),
    ],
)
def test_shuffles(warps, any_order, kernel, dtype):
    n = 96
    out = np.zeros((8, n), dtype)
    warps.get_function(kernel)((1,), (n,), (out,))
    # In the kernel threadIdx.x is unsigned: the first values wrap around.
    values = (np.arange(n, dtype=np.uint32) * np.uint32(3) - np.uint32(7)).astype(dtype)
    expected = [
        shuffled(values, lambda i: 5),
        shuffled(values, lambda i: i - 3 if i >= 3 else i),
        shuffled(values, lambda i: i + 3 if i + 3 < 32 else i),
        shuffled(values, lambda i: i ^ 6),
        shuffled(values, lambda i: i // 8 * 8 + 2),
        shuffled(values, lambda i: i - 1 if i % 8 else i),
        shuffled(values, lambda i: i + 1 if i % 8 < 7 else i),
        shuffled(values, lambda i: i ^ 1),
    ]
    np.testing.assert_array_equal(out, expected)


def test_votes_with_a_partial_last_warp(warps, any_order):
    n = 40  # a full warp, and one of 8 lanes
    out = np.zeros((7, n), np.uint32)
    warps.get_function("votes")((1,), (n,), (out,))
    thirds = sum(1 << lane for lane in range(0, 32, 3))
    full, eight = 0xFFFFFFFF, 0xFF
    by_warp = [
        (thirds, thirds & eight),
        (1, 1),
        (0, 1),
        None,
        (full, eight),
        (full, eight),
        (1, 1),
    ]
    for row, pair in zip(out, by_warp, strict=True):
        if pair:
            np.testing.assert_array_equal(row, [pair[0]] * 32 + [pair[1]] * 8)
    np.testing.assert_array_equal(out[3], [0xFF << (i % 32 // 8 * 8) for i in range(n)])


def test_reductions(warps, any_order):
    out = np.zeros((7, 32), np.int32)
    warps.get_function("reductions")((1,), (32,), (out,))
    values = np.arange(32) * 7 % 32 - 16
    expected = [values.sum(), values.min(), values.max(), 0xF0 & 0, -1, 0, -1]
    expected[3] = np.bitwise_and.reduce(0xF0 | np.arange(32))
    np.testing.assert_array_equal(out, np.repeat(expected, 32).reshape(7, 32))


def test_sum_of_a_block(warps, any_order):
    x = np.random.default_rng(0).integers(-9, 9, (5, 256)).astype(np.float32)
    y = np.full(5, np.nan, np.float32)
    warps.get_function("sum")((5,), (256,), (x, y))
    np.testing.assert_array_equal(y, x.sum(axis=1))


def test_two_halves_then_all(warps, any_order):
    out = np.zeros(32, np.int32)
    warps.get_function("halves")((1,), (32,), (out,))
    mixed = (np.arange(32) ^ 15) + 4
    np.testing.assert_array_equal(out, mixed[::-1])


def test_syncwarp(warps, any_order):
    out = np.zeros(64, np.int32)
    warps.get_function("synchronised")((1,), (64,), (out,))
    np.testing.assert_array_equal(out, np.arange(64) ^ 31)


def test_a_lane_that_has_returned_gives_nan(warps, any_order):
    out = np.zeros(20, np.float32)
    warps.get_function("early_return")((1,), (32,), (out,))
    np.testing.assert_array_equal(out, [1] * 16 + [np.nan] * 4)


def test_a_missing_lane_is_told(warps, any_order):
    with pytest.raises(emulator.BarrierDivergence) as told:
        warps.get_function("lane_missing")((1,), (32,), (np.zeros(32, np.int32),))
    assert "1 of 32 threads arrived at the __syncthreads at warps.cu:" in str(told.value)
    assert "waits in __shfl_sync(0xffffffff) at warps.cu:" in str(told.value)


def test_a_mask_without_the_caller_is_told(warps):
    with pytest.raises(emulator.BarrierDivergence, match=r"mask 0x00000001 lacks the own lane 1"):
        warps.get_function("not_in_mask")((1,), (32,), (np.zeros(32, np.int32),))
