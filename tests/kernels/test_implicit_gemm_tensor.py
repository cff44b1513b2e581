"""The tensor-core rungs: their precision, and what their design promises, counted."""

from __future__ import annotations

import types

import numpy as np
import pytest

import kernels
from kernels import check, compare, operations, place, table, xray
from kernels.conv2d import implicit_gemm_tensor
from kernels.shapes import Conv2dShape
from kernels.xray import gpus, static

ROWS = {row.name: row for row in table.rows("conv2d") if row.roundoff}
PASSES = ("forward", "backward_data", "backward_filter")
# Enough blocks for the large tile.
SHAPE = Conv2dShape.of((6, 16, 56, 56), (64, 16, 3, 3), padding=1)
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


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[pytest.mark.slow] if "bf16" in name else [])
        for name, row in ROWS.items()
    ],
)
@pytest.mark.parametrize("direction", PASSES)
def test_the_large_tile_is_right(row, direction):
    shape = SHAPE._replace(c=18, k=40)  # neither is whole tiles
    plan = row.launchers.gemm.make_plan("forward", shape)
    assert plan.tile == implicit_gemm_tensor.TILES[0]
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(1))
    result = check.check_pass(row, direction, inputs, shape, "emulator")
    assert result.ok, result.message


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
    """Return each pass's kernel with the large tile, as compiled for an H200."""
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
    gemm = request.param.launchers.gemm
    large = {"SCALAR": "float", **gemm.source.defines, **implicit_gemm_tensor.TILES[0].defines}
    found = {
        direction: static.compiled(
            (gemm.filter_source if direction == "backward_filter" else gemm.source).path,
            f"conv2d_implicit_gemm_tensor_{direction}", "sm_90", large,
        )
        for direction in PASSES
    }  # fmt: skip
    if missing := found["forward"].why_no_code:
        pytest.skip(missing)
    return request.param.name, found


def test_every_product_is_on_tensor_cores(compiled):
    name, found = compiled
    # 4 x 8 tiles of 16x8 sums, and 16 deep in one instruction or in two.
    opcode, count = ("16816.F32.BF16", 32) if "bf16" in name else ("1688.F32.TF32", 64)
    for direction in PASSES:
        loop = found[direction].code.hot_loop.mix
        assert loop.opcodes[f"HMMA.{opcode}"] == loop.tensor == count
        assert (loop.fma, loop.local, loop.count({"BAR"})) == (0, 0, 1)
        fits = static.report(
            found[direction], gpus.find("h200"), implicit_gemm_tensor.TILES[0].threads
        ).occupancy
        assert fits.blocks >= 4


@EACH_ROW
def test_no_lanes_meet_on_a_bank_and_loads_are_whole(row):
    small = Conv2dShape.of((2, 4, 14, 14), (20, 4, 3, 3), padding=1)
    for direction, shape in (("forward", SHAPE), ("backward_filter", small)):
        recordings = xray.record_pass(row, direction, shape, most_blocks=4)
        product = max(recordings, key=lambda one: one.flops)
        (flops,) = product.tensor_flops.values()
        assert flops > 0.99 * product.flops
        assert product.findings == ()
        for access in product.accesses:
            if access.space == "shared" and access.lanes == 32 * access.requests:
                wanted = access.requests * max(1, access.width // 4)
                assert access.wavefronts <= wanted, (direction, access)
        found = {a.array: a for a in product.accesses if a.operation == "read"}
        if direction == "forward":
            assert found["packed"].width == 16
            assert found["packed"].sectors == found["packed"].ideal_sectors
            assert found["x"].sectors <= 1.2 * found["x"].ideal_sectors
