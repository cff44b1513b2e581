"""What implicit_gemm's design promises, counted: its tiles, its loads, its machine code."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import cases, check, conv2d, table, xray
from kernels.conv2d import implicit_gemm
from kernels.shapes import Conv2dShape
from kernels.xray import gpus, static

ROW = table.find("conv2d", "implicit_gemm")
# Enough blocks for the large tile, and a plane that holds whole runs of 16 bytes.
SHAPE = Conv2dShape.of((11, 8, 56, 56), (64, 8, 3, 3), padding=1)
PASSES = ("forward", "backward_data", "backward_filter")


@pytest.fixture(scope="module")
def hot_loops():
    """Return each pass's kernel with the large tile, as compiled for an H200."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
    large = {"SCALAR": "float", **implicit_gemm.TILES[0].defines}
    sources = dict.fromkeys(PASSES, implicit_gemm.source)
    sources["backward_filter"] = implicit_gemm.filter_source
    found = {
        direction: static.compiled(source.path, f"conv2d_implicit_gemm_{direction}", "sm_90", large)
        for direction, source in sources.items()
    }
    if missing := found["forward"].why_no_code:
        pytest.skip(missing)
    return found


@pytest.mark.parametrize("direction", PASSES)
def test_three_of_four_instructions_multiply_and_add(hot_loops, direction):
    loop = hot_loops[direction].code.hot_loop.mix
    assert loop.fma == 16 * 8 * implicit_gemm.TILE_K
    assert loop.fma_share >= 0.75
    assert loop.local == 0
    # A thread reads 16 rows and 8 columns for each k, 16 bytes at a time, and one barrier parts
    # two tiles.
    assert loop.shared_loads == (16 + 8) // 4 * implicit_gemm.TILE_K
    assert loop.wide_loads >= loop.shared_loads
    assert loop.count({"BAR"}) == 1


@pytest.mark.parametrize("direction", PASSES)
def test_two_blocks_are_resident(hot_loops, direction):
    threads = implicit_gemm.TILES[0].threads
    report = static.report(hot_loops[direction], gpus.find("h200"), threads)
    assert report.occupancy.blocks >= 2


@pytest.fixture(scope="module")
def forward():
    recordings = xray.record_pass(ROW, "forward", SHAPE, most_blocks=8)
    (product,) = (one for one in recordings if one.kernel.endswith("_forward") and one.flops)
    assert product.block == (implicit_gemm.TILES[0].threads, 1, 1)
    return product


def test_no_lanes_meet_on_a_bank(forward):
    for access in forward.accesses:
        if access.space == "shared":
            # 32 lanes of 16 bytes are four times the 128 bytes of a pass, or, where pairs of lanes
            # load the same, twice.
            is_factor = access.operation == "read" and access.width == 16
            passes = 2 if is_factor else max(1, access.width // 4)
            assert access.wavefronts == access.requests * passes, access


def test_global_loads_touch_hardly_a_sector_too_many(forward):
    found = {access.array: access for access in forward.accesses if access.operation == "read"}
    assert found["packed"].sectors == found["packed"].ideal_sectors
    assert found["packed"].width == 16
    # Neighbours in a row are neighbours in memory; a tap beside the middle is off by an element,
    # and where a row of 56 ends the next 32 lanes go on.
    assert found["x"].sectors <= 1.2 * found["x"].ideal_sectors
    (store,) = (a for a in forward.accesses if a.array == "y")
    assert (store.width, store.sectors) == (16, store.ideal_sectors)


@pytest.mark.parametrize("direction", PASSES)
def test_the_large_tile_is_right(direction):
    shape = SHAPE._replace(c=2, k=40)  # a quarter of it stays empty
    rng = np.random.default_rng(1)
    inputs = check.make_inputs("conv2d", direction, shape, "float32", rng)
    assert implicit_gemm.make_plan("forward", shape, 4).tile == implicit_gemm.TILES[0]
    result = check.check_pass(ROW, direction, inputs, shape, "emulator")
    assert result.ok, result.message


def test_infinity_beside_a_padded_row_stays_there():
    # 2 x 3 x 3 taps are no whole tiles: rows of nothing must not be multiplied with what is there.
    x = np.full((1, 2, 4, 4), np.inf, np.float32)
    w = np.ones((3, 2, 3, 3), np.float32)
    assert np.all(conv2d(x, w, kernel="implicit_gemm") == np.inf)


def test_slices_of_the_batch_as_the_workspace_allows():
    shape = Conv2dShape.of((9, 2, 6, 7), (3, 2, 3, 3), padding=1)
    one = 4 * 3 * 2 * 3 * 3
    asked = [
        implicit_gemm.workspace_bytes("backward_filter", shape, 4, limit)
        for limit in (1 << 20, 4 * one, 2 * one - 1)
    ]
    assert asked == [9 * one, 4 * one, 0]  # a slice of one needs none


def test_a_workspace_too_small_for_the_filters_is_refused():
    with pytest.raises(ValueError, match=r"'implicit_gemm' needs .* bytes of workspace for the"):
        implicit_gemm.workspace_bytes("forward", cases.LENET["conv2"], 4, 100)
