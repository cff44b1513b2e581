"""The fused block where it is compiled for the layer: cut into tiles, and what its code costs."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import cases, check, compare, emulator, resources, table, xray
from kernels.conv2d_relu_pool import fused, fused_plan, reference
from kernels.shapes import CLOSED, BlockShape
from kernels.source import ROOT
from kernels.xray import static
from kernels.xray.gpus import find

ROW = table.find("conv2d_relu_pool", "fused")
FILES = {
    "forward": fused.source,
    "backward_filter": fused.filter_source,
    "backward_data": fused.data_source,
}


def file_of(direction, plan):
    """The .cu file that a plan is of."""
    return (fused.registers_source if "OWN" in plan.defines else FILES[direction]).path


BLOCKS = [BlockShape(*cases.LENET[name]) for name in ("block1", "block2")]

emulated = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

# Each is cut where the others are not, with a rest; every extent, pad and step differs.
CUT = {
    "columns": BlockShape.of((2, 3, 17, 43), (5, 3, 4, 3), padding=((1, 0), (2, 3))),
    "filters and channels": BlockShape.of(
        (1, 30, 9, 20), (150, 30, 3, 3), stride=(1, 2), dilation=(2, 1), padding=1, pool=(3, 2)
    ),
    "rows": BlockShape.of((1, 2, 523, 12), (1, 2, 3, 3), padding=(0, 1)),
}


def judged(shape, passes=("forward", "backward_data", "backward_filter")):
    rng = np.random.default_rng(1)
    for direction in passes:
        inputs = check.make_inputs("conv2d_relu_pool", direction, shape, "float32", rng)
        yield check.check_pass(ROW, direction, inputs, shape, "emulator", tight_workspace=True)


@emulated
@pytest.mark.parametrize("what", CUT)
def test_a_layer_that_does_not_fit_a_block_is_cut(what):
    shape = CUT[what]
    plan = fused_plan.make("forward", shape, 4)
    is_cut = {
        "columns": plan.defines["STRIP"] < shape.pooled_q,
        "filters and channels": plan.defines["FILTERS"] < shape.k
        and plan.defines["CHANNELS"] < shape.c,
        "rows": plan.defines["ROWS"] < shape.pooled_p,
    }
    assert is_cut[what]
    assert [result.message for result in judged(shape)] == ["", "", ""]


@emulated
@pytest.mark.parametrize("direction", ["forward", "backward_data"])
def test_what_is_read_in_wide_pieces_is_written_before(direction):
    shape = CUT["filters and channels"]  # its tile is odd
    for recording in xray.record_pass(ROW, direction, shape):
        assert recording.findings == ()


@emulated
@pytest.mark.parametrize("shape", [*(block._replace(n=3) for block in BLOCKS), CUT["columns"]])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_gradients_of_the_parameters_by_one_launch(shape, dtype):
    rng = np.random.default_rng(2)
    x, dy, argmax = check.make_inputs("conv2d_relu_pool", "backward_filter", shape, dtype, rng)
    size, slices = int(np.prod(shape.filter_shape)), fused.parameter_slices(shape, x.itemsize)
    assert slices > 1
    bias_at = size + 3
    partial = np.full((slices, bias_at + shape.k + 2), np.nan, dtype)
    fused.backward_parameters(x, dy, argmax, partial, bias_at, shape)
    gaps = partial[:, size:bias_at], partial[:, bias_at + shape.k :]
    assert all(np.isnan(gap).all() for gap in gaps)
    for direction, inputs, got in (
        ("backward_filter", (x, dy, argmax), partial[:, :size].sum(axis=0)),
        ("backward_bias", (dy, argmax), partial[:, bias_at : bias_at + shape.k].sum(axis=0)),
    ):
        ((dims, _),) = compare.outputs("conv2d_relu_pool", direction, shape)
        unit = compare.UNIT_ROUNDOFF[dtype]
        judged, *_ = compare.judge_pass(
            "conv2d_relu_pool", direction, inputs, shape, [got.reshape(dims)], unit
        )
        assert judged.ok, judged.worst


@emulated
@pytest.mark.parametrize("shape", BLOCKS)
def test_several_images_in_a_block_and_a_last_block_that_is_not_full(shape, monkeypatch):
    monkeypatch.setattr(fused_plan, "WANTED_BLOCKS", 1)
    fused_plan.make.cache_clear()
    shape = shape._replace(n=5)
    images = fused_plan.make("forward", shape, 4).images
    assert images > 1
    assert shape.n % images
    assert [result.message for result in judged(shape, ["forward"])] == [""]
    fused_plan.make.cache_clear()


def test_a_layer_with_little_work_is_not_compiled_for_itself():
    shape = BlockShape.of((1000, 2, 9, 9), (3, 2, 3, 3))
    assert all(fused_plan.make(direction, shape, 4) is None for direction in FILES)
    assert all(fused_plan.make(direction, BLOCKS[0], 4) for direction in FILES)


@emulated
@pytest.mark.parametrize("shape", [BLOCKS[1], BlockShape.of((2, 2, 9, 8), (3, 2, 3, 3))])
def test_a_nan_is_its_windows_maximum(shape):
    rng = np.random.default_rng(2)
    x, w, b = (
        rng.standard_normal(dims, dtype=np.float32)
        for dims in (shape.input_shape, shape.filter_shape, (shape.k,))
    )
    x[1, 1, 4, 5] = np.nan
    b[0] = -100  # closed wherever it is a number
    y, argmax = np.empty(shape.output_shape, np.float32), np.empty(shape.output_shape, np.uint8)
    want, want_argmax = np.empty(shape.output_shape), np.empty_like(argmax)
    fused.forward(x, w, b, y, argmax, shape)
    reference.forward(*(array.astype(float) for array in (x, w, b)), want, want_argmax, shape)
    assert np.isnan(want[1]).any()
    assert np.all(argmax[0, 0] == CLOSED)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    np.testing.assert_array_equal(argmax, want_argmax)


# What the X-ray counts of LeNet's layers, and the first layer's input needs no gradient.
PASSES = [
    (shape, direction)
    for shape in BLOCKS
    for direction in FILES
    if (shape, direction) != (BLOCKS[0], "backward_data")
]


@emulated
@pytest.mark.parametrize(("shape", "direction"), PASSES)
def test_reads_of_memory(shape, direction):
    recording = xray.record_pass(ROW, direction, shape)[0]
    reads = [one for one in recording.accesses if one.operation == "read"]
    assert recording.findings == ()
    for read in reads:
        if read.space == "shared":  # of 8 bytes a lane half a warp goes at a time
            assert read.wavefronts <= read.requests * max(read.width // 4, 1), read
        elif read.array == "x" or (direction, read.array) == ("forward", "w"):
            assert read.sectors == read.ideal_sectors, read
    assert {"forward": {"x", "w"}, "backward_filter": {"x", "dy"}, "backward_data": {"dy", "w"}}[
        direction
    ] <= {read.array for read in reads}


@pytest.mark.parametrize(
    ("shape", "direction", "n"),
    [(*one, n) for one in PASSES for n in (256, 8192) if (one[1], n) != ("backward_filter", 256)],
)
def test_the_machine_code(shape, direction, n):
    plan = fused_plan.make(direction, shape._replace(n=n), 4)
    try:
        kernel = static.compiled(
            file_of(direction, plan), f"conv2d_relu_pool_fused_{direction}", "sm_90", plan.defines,
            (ROOT,),
        )  # fmt: skip
    except resources.NvrtcMissingError as error:
        pytest.skip(str(error))
    usage = kernel.usage
    assert (usage.spill_stores, usage.spill_loads, usage.stack_bytes) == (0, 0, 0)
    assert static.report(kernel, find("h200"), plan.threads, plan.shared_bytes).occupancy.blocks > 1
    if kernel.code is None:
        pytest.skip(kernel.why_no_code)
    opcodes = between_products(kernel)
    least = {"forward": 0.9, "backward_data": 0.84, "backward_filter": 0.2}[direction]
    assert opcodes.count("FFMA") > least * len(opcodes)


def between_products(kernel):
    """All that is between the first product and the last: the first layer's loop has one round."""
    opcodes = [one.opcode for one in kernel.code.instructions]
    products = [i for i, opcode in enumerate(opcodes) if opcode == "FFMA"]
    return opcodes[products[0] : products[-1] + 1]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_a_branch_on_the_winners_place_is_known_to_be_a_warps(arch):
    plan = fused_plan.make("backward_filter", BLOCKS[1]._replace(n=8192), 4)
    assert plan.defines["OWN"] == 8
    try:
        kernel = static.compiled(
            fused.registers_source.path, "conv2d_relu_pool_fused_backward_filter", arch,
            plan.defines, (ROOT,),
        )  # fmt: skip
    except resources.NvrtcMissingError as error:
        pytest.skip(str(error))
    usage = kernel.usage
    assert (usage.spill_stores, usage.spill_loads, usage.stack_bytes) == (0, 0, 0)
    if kernel.code is None:
        pytest.skip(kernel.why_no_code)
    opcodes = between_products(kernel)
    products = opcodes.count("FFMA")
    assert products == 8 * 4 * 5  # filters, places, taps
    assert products > 0.55 * len(opcodes)
    # Lanes that may part have to be brought together again: by BSSY and BSYNC.
    assert not {"BSSY", "BSYNC"} & {opcode.partition(".")[0] for opcode in opcodes}
    assert sum(opcode.startswith("LDS") for opcode in opcodes) <= 2


# One place, an odd number of them, more than a warp's (c,r); windows that no share has alike.
REUSED = [
    BlockShape.of((3, 8, 9, 9), (21, 8, 3, 5), pool=(1, 1)),
    BlockShape.of((3, 8, 9, 22), (21, 8, 4, 5), stride=(2, 1), padding=1, pool=(1, 5)),
    BlockShape.of((2, 20, 17, 14), (9, 20, 3, 3), dilation=(1, 2), pool=(3, 3)),
]


@emulated
@pytest.mark.parametrize("shape", REUSED)
def test_any_window_by_x_in_registers(shape):
    assert "OWN" in fused_plan.make("backward_filter", shape, 4).defines
    assert [result.message for result in judged(shape, ["backward_filter"])] == [""]


@emulated
def test_reads_of_shared_memory_for_a_product():
    recording = xray.record_pass(ROW, "backward_filter", BLOCKS[1])[0]
    reads = [one for one in recording.accesses if (one.space, one.operation) == ("shared", "read")]
    lanes = BLOCKS[1].c * BLOCKS[1].r  # of a warp
    products = recording.flops / 2 / lanes
    # With x from shared memory each product of a warp reads once, and a winner's five once more.
    assert sum(read.wavefronts for read in reads) < 0.8 * products


@emulated
@pytest.mark.parametrize("shape", BLOCKS)
def test_what_is_not_finite_counts_only_where_it_has_won(shape):
    rng = np.random.default_rng(3)
    x, dy, argmax = check.make_inputs("conv2d_relu_pool", "backward_filter", shape, "float32", rng)
    for value in (np.inf, np.nan):
        x[0] = value
        argmax[0] = CLOSED
        dw = np.empty(shape.filter_shape, np.float32)
        fused.backward_filter(x, dy, argmax, dw, shape)
        assert np.isfinite(dw).all()
        argmax[0, 1, 2, 3] = 1
        fused.backward_filter(x, dy, argmax, dw, shape)
        assert np.isfinite(np.delete(dw, 1, axis=0)).all()
        assert not np.isfinite(dw[1]).any()
