"""The tensor-core rungs: their precision, and what their design promises, counted."""

from __future__ import annotations

import types

import numpy as np
import pytest
from planted import Plant

import kernels
from kernels import check, compare, operations, place, table, xray
from kernels.conv2d import implicit_gemm_tensor
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource
from kernels.xray import gpus, static

ROWS = {name: table.find("conv2d", name) for name in ("implicit_gemm_tf32", "implicit_gemm_bf16")}
PASSES = ("forward", "backward_data", "backward_filter")
TILES = implicit_gemm_tensor.TILES


def shape_for(direction, tile):
    """Return a shape for which a pass takes a tile; nothing of it is whole tiles."""
    if direction == "backward_filter":
        k, c = ((120, 28), (40, 28), (40, 13))[tile]
        return Conv2dShape.of((33, c, 5, 5), (k, c, 3, 3), padding=1)
    images, many = ((6, 70), (6, 40), (11, 40))[tile]
    c, k = (5, many) if direction == "forward" else (many, 5)
    return Conv2dShape.of((images, c, 57, 55), (k, c, 3, 3), padding=1)


EACH_ROW = pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))


def shares_of_bounds(row, direction, shape):
    """Return the worst error as a share of the bound in float32, with TF32 and with bfloat16."""
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(3))
    ((dims, _),) = compare.outputs("conv2d", direction, shape)
    got = np.full(dims, np.nan, np.float32)
    operations.run(row, direction, (*inputs, got), shape)
    return [
        compare.judge_pass(
            "conv2d", direction, inputs, shape, [got], compare.UNIT_ROUNDOFF["float32"], roundoff
        )[0].worst
        for roundoff in (0.0, 2.0**-11, 2.0**-8)
    ]


@pytest.mark.parametrize("direction", PASSES)
def test_factors_are_rounded_as_said_and_no_further(direction):
    shape = Conv2dShape.of((2, 5, 11, 13), (7, 5, 3, 4), stride=(2, 1), padding=2)
    plain, tf32, bf16 = shares_of_bounds(ROWS["implicit_gemm_tf32"], direction, shape)
    assert plain > 3
    assert 0.01 < tf32 <= 1
    plain, tf32, bf16 = shares_of_bounds(ROWS["implicit_gemm_bf16"], direction, shape)
    assert plain > 3
    assert tf32 > 1
    assert 0.01 < bf16 <= 1


@pytest.mark.parametrize("tile", range(3))
@pytest.mark.parametrize("direction", PASSES)
@EACH_ROW
def test_each_large_tile_is_right(row, direction, tile):
    shape = shape_for(direction, tile)
    assert row.launchers.gemm.make_plan(direction, shape).tile == TILES[tile]
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(1))
    result = check.check_pass(row, direction, inputs, shape, "emulator")
    assert result.ok, result.message


def test_a_barrier_that_lacks_is_found_where_a_block_has_several_warps(tmp_path, monkeypatch):
    row = ROWS["implicit_gemm_bf16"]
    gemm = row.launchers.gemm
    plant = Plant(
        "no barrier behind the wait", "conv2d", row.name, "gemm.source",
        "conv2d/implicit_gemm_tensor.cu", "copy_wait<STAGES - 2>(); __syncthreads();",
        "copy_wait<STAGES - 2>();",
    )  # fmt: skip
    faulty = CudaSource(plant.write(tmp_path), **gemm.source.defines)
    monkeypatch.setattr(gemm, "source", faulty)
    recordings = xray.record_pass(row, "forward", shape_for("forward", 2), most_blocks=1)
    assert "race" in {finding.kind for one in recordings for finding in one.findings}


@pytest.mark.parametrize("direction", PASSES)
@EACH_ROW
def test_a_batch_that_does_not_fit_is_cut(row, direction):
    shape = Conv2dShape.of((20, 9, 12, 10), (10, 9, 3, 2), padding=1, stride=(1, 2))
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(2))
    wanted = row.launchers.workspace_bytes(direction, shape, 4, 1 << 30)
    with kernels.workspace_limit(wanted // 2):
        assert 0 < row.launchers.workspace_bytes(direction, shape, 4, wanted // 2) <= wanted // 2
        result = check.check_pass(row, direction, inputs, shape, "emulator")
    assert result.ok, result.message


@EACH_ROW
def test_a_workspace_without_room_for_an_image_is_refused(row):
    x, w = np.ones((2, 4, 40, 40), np.float32), np.ones((3, 4, 3, 3), np.float32)
    with (
        kernels.workspace_limit(1 << 10),
        pytest.raises(
            ValueError, match=r"workspace for rounded filters and one image but .* 1,024"
        ),
    ):
        kernels.conv2d(x, w, kernel=row.name)


@EACH_ROW
def test_doubles_are_refused(row):
    x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"takes float32 arrays .* but got float64; use kernel="):
        kernels.conv2d(x, w, kernel=row.name)


@EACH_ROW
def test_an_older_gpu_is_refused(row, monkeypatch):
    monkeypatch.setattr(place, "on_gpu", lambda _: True)
    old = types.SimpleNamespace(
        dtype=np.dtype("float32"), device=types.SimpleNamespace(id=0, compute_capability="75")
    )
    with pytest.raises(TypeError, match=r"capability 8.0 or newer, but this one has 7.5"):
        row.launchers.source.kernel("conv2d_implicit_gemm_tensor_forward", like=old)


@pytest.fixture(scope="module", params=ROWS.values(), ids=list(ROWS))
def compiled(request):
    """Return each pass's kernel with the largest tile, as compiled for an H200."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
    source = request.param.launchers.source
    large = {"SCALAR": "float", **source.defines, **TILES[0].defines}
    found = {
        direction: static.compiled(
            source.path, f"conv2d_implicit_gemm_tensor_{direction}", "sm_90", large
        )
        for direction in PASSES
    }
    if missing := found["forward"].why_no_code:
        pytest.skip(missing)
    return request.param.name, found


def test_every_product_is_on_tensor_cores(compiled):
    name, found = compiled
    # 4 x 8 tiles of 16x8 sums, twice; 8 and 8 loads of four factors' tiles.
    opcode = "16816.F32.BF16" if "bf16" in name else "1688.F32.TF32"
    for direction in PASSES:
        kernel = found[direction]
        loop = kernel.code.hot_loop.mix
        assert loop.opcodes[f"HMMA.{opcode}"] == loop.tensor == 64
        assert loop.opcodes["LDSM.16.M88.4"] == 16
        assert loop.tensor >= 0.32 * loop.instructions
        assert (loop.fma, loop.local, loop.count({"BAR"})) == (0, 0, 1)
        assert (kernel.usage.spill_stores, kernel.usage.stack_bytes) == (0, 0)
        fits = static.report(
            kernel, gpus.find("h200"), TILES[0].threads, dynamic_bytes=TILES[0].shared_bytes
        ).occupancy
        assert fits.warps == 8


@pytest.mark.parametrize("direction", PASSES)
@EACH_ROW
def test_no_lanes_meet_on_a_bank_and_loads_are_whole(row, direction):
    # Whole rows of a tile, and an edge of everything in the largest.
    whole, uneven = Conv2dShape.of((32, 32, 9, 9), (64, 32, 3, 3)), shape_for(direction, 0)
    for shape in (whole, uneven):
        recordings = xray.record_pass(row, direction, shape, most_blocks=2)
        product = max(recordings, key=lambda one: one.flops)
        (flops,) = product.tensor_flops.values()
        assert flops > 0.95 * product.flops
        for recording in recordings:
            assert recording.findings == ()
            for access in recording.accesses:
                if access.space == "shared" and access.lanes == 32 * access.requests:
                    wanted = access.requests * max(1, access.width // 4)
                    assert access.wavefronts <= wanted, access
        factors = [a for a in product.accesses if a.space == "global" and a.width == 16]
        assert factors
        if shape == whole:
            assert all(access.sectors == access.ideal_sectors for access in factors)
