"""What a pass needs, counted one by one, and what no device can do."""

from __future__ import annotations

import itertools
import types

import pytest

from kernels import table
from kernels.shapes import BlockShape, Conv2dShape, PoolShape
from profiling import roofline
from profiling.result_file import Ceilings, Row, Timing

CEILINGS = Ceilings(
    copy=1e12, read=1.1e12, gemm=50e12, peak=60e12, launch_s=2e-6, cache_bytes=1 << 20
)
SHAPE = Conv2dShape.of(
    (2, 3, 7, 9), (4, 3, 3, 5), stride=(2, 1), padding=((1, 2), (3, 0)), dilation=(2, 1)
)
POOL = PoolShape.of((2, 3, 7, 9), (3, 2), stride=(2, 3), padding=((1, 1), (1, 0)))


def multiply_adds_by_counting(shape: Conv2dShape) -> int:
    count = 0
    for p, q, r, s in itertools.product(
        range(shape.p), range(shape.q), range(shape.r), range(shape.s)
    ):
        h = p * shape.stride_h - shape.pad_top + r * shape.dilation_h
        w = q * shape.stride_w - shape.pad_left + s * shape.dilation_w
        count += 0 <= h < shape.h and 0 <= w < shape.w
    return count * shape.n * shape.k * shape.c


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_filter"])
def test_least_operations_leave_out_the_taps_on_padding(direction: str):
    row = table.find("conv2d", "naive")
    work = roofline.work(row, "conv2d", direction, SHAPE)
    assert work.least_flops == 2 * multiply_adds_by_counting(SHAPE)
    assert work.least_flops < work.flops == SHAPE.flops
    assert work.least_bytes == SHAPE.least_bytes() + 4 * SHAPE.k * (direction == "forward")


def test_a_block_counts_its_windows_and_a_gradient_one_element_of_each():
    block = BlockShape.of((2, 3, 8, 8), (4, 3, 3, 3), padding=1, pool=(3, 2))
    row = table.find("conv2d_relu_pool", "reference")
    forward = roofline.work(row, "conv2d_relu_pool", "forward", block)
    # Two of eight rows are in no window. Six rows see 3 rows of the image, the first 2.
    assert forward.flops == 2 * 2 * 4 * 3 * (6 * 8) * 9
    assert forward.least_flops == 2 * 2 * 4 * 3 * (17 * 22)
    assert forward.output_bytes == 2 * 4 * (2 * 4) * (4 + 1)
    data = roofline.work(row, "conv2d_relu_pool", "backward_data", block)
    assert data.flops == forward.flops // 6
    # Of each window the element with the fewest taps: rows 2 + 3, columns 2 + 3 + 3 + 2.
    assert data.least_flops == 2 * 2 * 4 * 3 * (5 * 10)
    assert data.input_bytes == 2 * 4 * (2 * 4) * (4 + 1) + 4 * 4 * 3 * 9


def test_a_bias_gradient_reads_dy_alone():
    dy = 2 * 4 * SHAPE.p * SHAPE.q
    work = roofline.work(table.find("conv2d", "naive"), "conv2d", "backward_bias", SHAPE)
    assert (work.flops, work.input_bytes, work.output_bytes) == (dy, 4 * dy, 4 * 4)


def test_max_pooling_writes_and_reads_its_argmax():
    y, x = 2 * 3 * POOL.p * POOL.q, 2 * 3 * 7 * 9
    row = table.find("max_pool2d", "max")
    forward = roofline.work(row, "max_pool2d", "forward", POOL)
    assert (forward.input_bytes, forward.output_bytes) == (4 * x, 8 * y)
    backward = roofline.work(row, "max_pool2d", "backward", POOL)
    assert (backward.input_bytes, backward.output_bytes) == (8 * y, 4 * x)


def test_an_algorithm_with_fewer_operations_has_its_own_floor():
    def halved(direction: str, shape: Conv2dShape) -> int:
        return shape.flops // 2

    row = types.SimpleNamespace(launchers=types.SimpleNamespace(least_flops=halved))
    work = roofline.work(row, "conv2d", "forward", SHAPE)
    assert (work.least_flops, work.flops) == (SHAPE.flops // 2, SHAPE.flops)


def a_row(flops: int, input_bytes: int, output_bytes: int) -> Row:
    return Row(
        "conv2d", "naive", "forward", "kernel", "cuda_c", "a", "a", SHAPE._asdict(), "float32",
        "fp32", flops, flops, input_bytes + output_bytes, input_bytes, "timed",
    )  # fmt: skip


def standing(row: Row, seconds: float, cold: bool = True) -> roofline.Standing:
    timing = Timing(seconds, seconds, seconds, [seconds], 1, "events", True)
    return roofline.standing(row, timing, CEILINGS, cold=cold)


def test_bound_by_what_the_floor_is_made_of():
    compute = standing(a_row(50 * 10**9, 10**6, 10**6), 2e-3)
    assert (compute.bound, compute.floor_s) == ("compute", 1e-3)
    assert compute.of_gemm == pytest.approx(0.5)
    memory = standing(a_row(10**9, 5 * 10**8, 5 * 10**8), 2e-3)
    assert (memory.bound, memory.floor_s) == ("memory", 1e-3)
    assert memory.of_copy == pytest.approx(0.5)
    assert standing(a_row(10**3, 10**3, 10**3), 3e-6).bound == "launch"


def test_faster_than_the_hardware_is_impossible():
    row = a_row(60 * 10**9, 10**6, 10**6)
    assert "hardware" in standing(row, 0.9e-3).impossible
    # Above the measured product but below the data sheet: a kernel may be that good.
    assert not standing(row, 1.1e-3).impossible


def test_faster_than_memory_is_impossible_unless_a_cache_can_hold_it():
    row = a_row(10**6, 10**9, 0)
    assert "from memory" in standing(row, 0.5e-3).impossible
    assert not standing(row, 1.0e-3).impossible
    small = a_row(10**6, 1 << 20, 1 << 20)
    assert "from memory" in standing(small, 0.8e-6).impossible
    assert not standing(small, 0.8e-6, cold=False).impossible


def test_a_peers_algorithm_is_not_known_and_not_accused():
    work = roofline.work(None, "conv2d", "forward", SHAPE)
    assert work.least_flops == 0
