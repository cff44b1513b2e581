"""The rung of warpgroup products: its tiles, its precision, and what it promises, counted."""

from __future__ import annotations

import types

import numpy as np
import pytest

import kernels
from kernels import check, compare, operations, place, precision, source, table, tuned, xray
from kernels.choosing import candidates
from kernels.conv2d import implicit_gemm_wgmma as wgmma
from kernels.shapes import Conv2dShape
from kernels.xray import gpus, static
from kernels.xray.bound import bound

ROW = table.find("conv2d", "implicit_gemm_wgmma")
GATHERED = ("forward", "backward_data")
EACH_TILE = pytest.mark.parametrize("tile", wgmma.TILES, ids=lambda tile: "-".join(map(str, tile)))


def judged(direction, shape):
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(1))
    result = check.check_pass(ROW, direction, inputs, shape, "emulator")
    assert result.ok, result.message


@pytest.mark.parametrize("direction", GATHERED)
@EACH_TILE
def test_each_tile_is_right(tile, direction, monkeypatch):
    monkeypatch.setattr(wgmma, "TILES", (tile,))
    monkeypatch.setattr(wgmma, "MULTIPROCESSORS", 1)
    # Several tiles either way, of a block too, two chunks of channels, several images in a tile;
    # nothing whole.
    few, many = 9 * tile.chunk - 4, 64 * tile.warpgroups_m + 5
    c, k = (few, many) if direction == "forward" else (many, few)
    judged(direction, Conv2dShape.of((7, c, 9, 8), (k, c, 3, 3), padding=((1, 0), (1, 1))))


# The ways in which chunks of pixels follow each other: 4, 3 and 2 stages, and one; and what lies
# between images and rows.
SHAPES = {
    "1x1": Conv2dShape.of((3, 330, 9, 7), (10, 330, 1, 1)),
    "1x1 with padding": Conv2dShape.of((2, 20, 6, 5), (3, 20, 1, 1), padding=((2, 1), (0, 3))),
    "1x2": Conv2dShape.of((2, 270, 6, 9), (4, 270, 1, 2), padding=(0, 1)),
    "3x1": Conv2dShape.of((2, 200, 9, 6), (4, 200, 3, 1)),
    "dilated": Conv2dShape.of((2, 20, 13, 14), (5, 20, 3, 2), dilation=(2, 5), padding=(3, 4)),
    "wider padding than filter": Conv2dShape.of((2, 9, 5, 6), (4, 9, 2, 2), padding=(4, 3)),
    "larger than the image": Conv2dShape.of((3, 17, 2, 3), (4, 17, 5, 5), padding=3),
    "many images": Conv2dShape.of((70, 8, 3, 3), (2, 8, 3, 3), padding=1),
}


@pytest.mark.parametrize("multiprocessors", [1, 132])
@pytest.mark.parametrize("direction", GATHERED)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_shapes_and_stages(shape, direction, multiprocessors, monkeypatch):
    monkeypatch.setattr(wgmma, "MULTIPROCESSORS", multiprocessors)
    judged(direction, shape)


def test_filters_that_a_block_needs_again_are_copied_once(monkeypatch):
    monkeypatch.setattr(wgmma, "MULTIPROCESSORS", 1)
    monkeypatch.setattr(wgmma, "TILES", (wgmma.Tile(1, 2, 208, 8),))
    shape = Conv2dShape.of((16, 64, 7, 7), (64, 64, 3, 3), padding=1)
    plan = wgmma.best_plan(shape)
    assert (plan.blocks, plan.w_stages, plan.keeps_w) == (1, 9, True)
    product = xray.record_pass(ROW, "forward", shape)[-1]
    asked_for = sum(a.bytes for a in product.accesses if a.array == "packed_w")
    assert asked_for == 2 * np.prod(shape.filter_shape)
    assert product.findings == ()
    # Of more filters than a block has, another block's are other ones.
    many = wgmma.best_plan(shape._replace(k=65))
    assert (many.blocks, many.keeps_w) == (1, False)


@pytest.mark.parametrize("direction", GATHERED)
def test_factors_are_rounded_to_bfloat16_and_no_further(direction):
    shape = Conv2dShape.of((2, 5, 11, 13), (7, 5, 3, 4), padding=2)
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(3))
    ((dims, _),) = compare.outputs("conv2d", direction, shape)
    got = np.full(dims, np.nan, np.float32)
    operations.run(ROW, direction, (*inputs, got), shape)
    tf32, bf16 = (
        compare.judge_pass(
            "conv2d", direction, inputs, shape, [got], compare.UNIT_ROUNDOFF["float32"], roundoff
        )[0].worst
        for roundoff in (2.0**-11, 2.0**-8)
    )
    assert tf32 > 1
    assert 0.01 < bf16 <= 1


@pytest.mark.parametrize("direction", GATHERED)
def test_a_batch_that_does_not_fit_is_cut(direction):
    shape = Conv2dShape.of((20, 9, 12, 10), (10, 9, 3, 2), padding=1)
    wanted = ROW.workspace_bytes(direction, shape, 4, 1 << 30)
    with kernels.workspace_limit(wanted // 2):
        assert 0 < ROW.workspace_bytes(direction, shape, 4, wanted // 2) <= wanted // 2
        judged(direction, shape)


@pytest.mark.parametrize(
    ("changes", "dtype", "says"),
    [
        ({}, "float64", "takes float32 arrays .* but got float64"),
        ({"stride": 2}, "float32", r"takes stride 1 only, but this has stride \(2, 2\)"),
        ({"dilation": 60}, "float32", "keeps the pixels under 3x3 filters with dilation .60, 60. "
         r"in shared memory, which takes [\d,]+ bytes for rows of 200 but there are 230,656"),
    ],
)  # fmt: skip
def test_what_it_does_not_take_is_refused_with_a_way_out(changes, dtype, says):
    x, w = np.ones((1, 2, 200, 200), dtype), np.ones((1, 2, 3, 3), dtype)
    with pytest.raises(ValueError, match=f"{says}; use kernel="):
        kernels.conv2d(x, w, **changes, kernel=ROW.name)


def test_the_gradient_to_the_filters_takes_any_stride():
    shape = Conv2dShape.of((3, 5, 11, 13), (7, 5, 3, 4), padding=2, stride=(2, 3))
    assert not ROW.refuses("backward_filter", shape, "float32")
    judged("backward_filter", shape)


def test_a_searched_tile_is_used():
    shape = SHAPES["dilated"]
    usual, *others = ROW.launchers.tiles("forward", shape, 4)
    assert usual == wgmma.best_plan(shape).tile.defines
    assert usual not in others
    for tile in (others[0], others[-1]):
        with tuned.using("conv2d", ROW.name, tile), source.recorded_launches() as launches:
            kernels.conv2d(
                np.ones(shape.input_shape, np.float32), np.ones(shape.filter_shape, np.float32),
                dilation=shape.dilation, padding=(3, 4), kernel=ROW.name,
            )  # fmt: skip
        assert launches[-1].defines.items() >= tile.items()
    with tuned.using("conv2d", ROW.name, others[-1]):
        judged("forward", shape)
    assert ROW.launchers.tiles("backward_filter", shape, 4) == []


@pytest.mark.parametrize("capability", ["80", "100", "120"])
def test_another_gpu_is_refused(capability, monkeypatch):
    monkeypatch.setattr(place, "on_gpu", lambda _: True)
    other = types.SimpleNamespace(
        dtype=np.dtype("float32"), device=types.SimpleNamespace(id=0, compute_capability=capability)
    )
    with pytest.raises(TypeError, match=r"capability 9.0 and no other, but this one has 1?\d.0"):
        wgmma.warpgroup_source.kernel("conv2d_implicit_gemm_wgmma", like=other)


def test_it_is_compiled_for_one_architecture_alone():
    code = source.nvrtc_code(wgmma.warpgroup_source.path)[1]
    takes = {arch: wgmma.warpgroup_source.compiles_for(arch) for arch in ("sm_80", "sm_90")}
    assert takes == {"sm_80": False, "sm_90": True}
    assert not wgmma.warpgroup_source.compiles_for("sm_120")
    assert source.target(code, "sm_90") == "sm_90a"
    assert source.target(code, "sm_120") == "sm_120"
    assert source.target("", "sm_90") == "sm_90"


def test_auto_may_choose_it_where_bfloat16_is_allowed():
    shape = Conv2dShape.of((2, 5, 11, 13), (7, 5, 3, 4))
    fixed = table.find("conv2d", "naive")
    with precision.reduced_precision("bf16"):
        assert ROW in candidates(fixed, "forward", shape, "float32", "sm_90")
        assert ROW not in candidates(fixed, "forward", shape, "float32", "sm_100")
    assert ROW not in candidates(fixed, "forward", shape, "float32", "sm_90")


@EACH_TILE
def test_products_follow_each_other(tile):
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
    kernel = static.compiled(
        wgmma.warpgroup_source.path, "conv2d_implicit_gemm_wgmma", "sm_90",
        {"SCALAR": "float", **tile.defines},
    )  # fmt: skip
    assert (kernel.usage.spill_stores, kernel.usage.stack_bytes) == (0, 0)
    assert kernel.usage.registers * tile.threads * tile.resident <= 65536
    if kernel.code is None:
        pytest.skip(kernel.why_no_code)
    products = tile.chunk // 2
    mix = kernel.code.hot_loop.mix
    assert mix.opcodes[f"HGMMA.64x{tile.columns}x16.F32.BF16"] == mix.tensor == products
    assert kernel.code.mix.tensor == products
    assert "MUFU.RCP" not in mix.opcodes  # which a division begins with
    # One wait, behind the copies; none between the products, which a compiler that cannot tell
    # their registers apart from the threads' would put there.
    order = [
        one.opcode
        for one in kernel.code.instructions
        if one.base in ("HGMMA", "WARPGROUP", "LDGSTS", "BAR")
    ]
    begin = order.index("WARPGROUP.ARRIVE")
    assert [opcode.partition(".")[0] for opcode in order[begin + 1 : begin + 1 + products]] == [
        "HGMMA"
    ] * products
    assert order.count("WARPGROUP.ARRIVE") == 1
    assert order.count("WARPGROUP.DEPBAR.LE") == 2


@pytest.mark.parametrize("direction", GATHERED)
@pytest.mark.parametrize("chunk", [8, 2])
def test_no_lanes_meet_on_a_bank_and_loads_are_whole(direction, chunk, monkeypatch):
    tile = next(tile for tile in wgmma.TILES if tile.chunk == chunk)
    monkeypatch.setattr(wgmma, "TILES", (tile,))
    channels = 16 * chunk
    shape = Conv2dShape.of((2, channels, 16, 15), (channels, channels, 3, 3), padding=1)
    recordings = xray.record_pass(ROW, direction, shape, most_blocks=2)
    product = max(recordings, key=lambda one: one.flops)
    assert product.findings == ()
    assert product.tensor_flops["bf16"] > 0.99 * product.flops
    copied = [a for a in product.accesses if a.space == "global" and a.width == 16]
    assert copied
    assert all(access.sectors == access.ideal_sectors for access in copied)
    into = [a for a in product.accesses if a.array == "shared" and a.operation == "write"]
    # Where the last lines of a warp are not there, two of them may fall apart.
    assert sum(a.wavefronts for a in into) <= 1.05 * sum(a.ideal_wavefronts for a in into)


@pytest.mark.parametrize(
    ("tile", "images", "channels", "side"),
    [((1, 2, 208, 8), 2, 256, 28), ((2, 1, 224, 8), 4, 256, 14), ((1, 1, 256, 8), 8, 512, 7)],
)
def test_the_tensor_cores_bind(tile, images, channels, side, monkeypatch):
    def shape_of(n):
        return Conv2dShape.of((n, channels, side, side), (channels, channels, 3, 3), padding=1)

    # What is taken for 64 images, recorded for fewer.
    assert wgmma.best_plan(shape_of(64)).tile == tile
    monkeypatch.setattr(wgmma, "TILES", (wgmma.Tile(*tile),))
    product = xray.record_pass(ROW, "forward", shape_of(images), most_blocks=2)[-1]
    assert product.findings == ()
    assert bound(product, gpus.find("h200")).binds == "bf16"
