"""Two fused blocks by one launch each way: what the launches one by one and the judge say."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import cases, compare, emulator, resources, xray
from kernels.conv2d_relu_pool import fused, fused_pair, fused_pair_plan, fused_plan
from kernels.shapes import BlockShape
from kernels.source import ROOT, CudaSource
from kernels.training import batch, shuffle
from kernels.xray import gpus, static

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

LENET = tuple(BlockShape(*cases.LENET[name]) for name in ("block1", "block2"))
IMAGES, SEED, EPOCH, BACKGROUND = 40, 3, 4, -0.25


def shapes(n, x=(1, 28, 28), filters=((6, 5), (16, 5)), padding=2, pools=(2, 2)):
    first = BlockShape.of(
        (n, *x), (filters[0][0], x[0], filters[0][1], filters[0][1]), padding=padding, pool=pools[0]
    )
    size = filters[1][1]
    second = BlockShape.of(first.output_shape, (filters[1][0], first.k, size, size), pool=pools[1])
    return first, second


# LeNet's; and one whose extents differ, with strips and parts that are not full.
PAIRS = {
    "lenet": shapes(11),
    "another": shapes(3, (4, 17, 22), ((5, 3), (12, 4)), ((1, 1), (2, 0)), ((1, 2), 2)),
}


def run(first, second, dtype="float32", reach=0, distort=0.0, *, apart=False):
    """Return x, target, y1, argmax1, y2, argmax2 and the parameters."""
    rng = np.random.default_rng(1)
    images = rng.standard_normal((IMAGES, *first.input_shape[1:])).astype(dtype)
    labels = rng.integers(0, 10, IMAGES)
    order = shuffle.permutation(IMAGES, SEED, EPOCH)
    x, target = np.full(first.input_shape, np.nan, dtype), np.full(first.n, -1)
    parameters = tuple(
        rng.standard_normal(dims).astype(dtype)
        for shape in (first, second)
        for dims in (shape.filter_shape, (shape.k,))
    )
    found = tuple(
        np.full(shape.output_shape, fill, kind)
        for shape in (first, second)
        for fill, kind in ((np.nan, dtype), (77, np.uint8))
    )
    position = np.array([EPOCH, 1], np.int32)
    wanted = batch.Gather(
        images, labels, order, position, x, target, 16, SEED, reach, BACKGROUND, distort
    )
    if apart:
        batch.gather(wanted)
        fused.forward(x, *parameters[:2], *found[:2], first)
        fused.forward(found[0], *parameters[2:], *found[2:], second)
    else:
        fused_pair.forward(wanted, parameters, found, first, second)
    return (x, target, *found), parameters


def assert_right(name, dtype="float32", **moves):
    first, second = PAIRS[name]
    assert fused_pair.takes(first, second, np.dtype(dtype).itemsize)
    got, parameters = run(first, second, dtype, **moves)
    apart, _ = run(first, second, dtype, **moves, apart=True)
    for one, other in zip(got[:2], apart[:2], strict=True):
        assert np.array_equal(one, other)
    x, _, y1, argmax1, y2, argmax2 = got
    unit = compare.UNIT_ROUNDOFF[dtype]
    for inputs, shape, outputs in (
        ((x, *parameters[:2]), first, [y1, argmax1]),
        ((y1, *parameters[2:]), second, [y2, argmax2]),
    ):
        for verdict in compare.judge_pass(
            "conv2d_relu_pool", "forward", inputs, shape, outputs, unit
        ):
            assert verdict.ok, verdict


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_what_three_launches_make(name, dtype):
    assert_right(name, dtype)


@pytest.mark.parametrize("moves", [{"reach": 2}, {"reach": 1, "distort": 0.3}])
def test_moved_and_distorted_images(moves):
    assert_right("lenet", **moves)


def assert_right_backward(name, dtype="float32"):
    first, second = PAIRS[name]
    (x, _, _, argmax1, _, argmax2), parameters = run(first, second, dtype)
    w2 = parameters[2]
    dy2 = np.random.default_rng(3).standard_normal(second.output_shape).astype(dtype)
    slices = fused_pair.slices(first, second, x.itemsize)
    size = int(np.prod(first.filter_shape))
    bias_at = size + 3
    partial = np.full((slices, bias_at + first.k + 2), np.nan, dtype)
    fused_pair.backward(dy2, argmax2, w2, x, argmax1, partial, bias_at, first, second)
    gaps = partial[:, size:bias_at], partial[:, bias_at + first.k :]
    assert all(np.isnan(gap).all() for gap in gaps)
    # Judged in float64 from dy2 on: how far the gradient between may be off is part of the bound.
    unit = compare.UNIT_ROUNDOFF[dtype]
    (between,), (off,) = compare.expected(
        "conv2d_relu_pool", "backward_data", (dy2, argmax2, w2), second, unit
    )
    for direction, inputs, got in (
        ("backward_filter", (x,), partial[:, :size].sum(axis=0).reshape(first.filter_shape)),
        ("backward_bias", (), partial[:, bias_at : bias_at + first.k].sum(axis=0)),
    ):
        wide = tuple(array.astype(np.float64) for array in inputs)
        (want,), (bound,) = compare.expected(
            "conv2d_relu_pool", direction, (*wide, between, argmax1), first, unit
        )
        magnitudes = tuple(np.abs(array) for array in wide)
        (more,), _ = compare.expected(
            "conv2d_relu_pool", direction, (*magnitudes, off, argmax1), first, unit
        )
        # Twice, for the products of what is off are rounded too: by far less than as much again.
        verdict = compare.judge(got, want, bound + 2 * more)
        assert verdict.ok, verdict


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_way_back_is_what_the_judge_says(name, dtype):
    assert_right_backward(name, dtype)


@pytest.fixture
def few_blocks(monkeypatch):
    """As of a batch that is large for the GPU: blocks of several images, and groups of these."""
    monkeypatch.setattr(fused_plan, "MULTIPROCESSORS", 1)
    monkeypatch.setattr(fused_plan, "WANTED_BLOCKS", 2)
    fused_pair_plan.make_backward.cache_clear()
    yield
    fused_pair_plan.make_backward.cache_clear()


@pytest.mark.usefixtures("few_blocks")
def test_blocks_that_take_several_groups_of_images():
    first, second = PAIRS["lenet"]
    plan = fused_pair_plan.make_backward(first, second, 4)
    assert plan.images > 1
    assert first.n > fused_pair.slices(first, second, 4) * plan.images
    assert first.n % plan.images
    assert_right_backward("lenet")


FORWARD, BACKWARD = "fused_pair.cu", "fused_pair_backward.cu"
PLANTED = {
    "no barrier behind the first layer": (
        FORWARD,
        "__syncthreads();  // a thread reads, and copies out, what its neighbours found", ""
    ),
    "a part's sums forgotten": (FORWARD, "other < PARTS - 1", "other < PARTS - 2"),
    "each part adds the bias": (FORWARD, "part == 0 ? b2[own.b] : scalar(0)", "b2[own.b]"),
    "the batch is not kept": (
        FORWARD, "x[x_offset(first_layer.conv, n, c, row, col)] = pixel;", ""
    ),
    "another's label": (FORWARD, "labels[from]", "labels[n]"),
    "places of the first layer": (FORWARD, "argmax2[n * SECOND_COUNT + i] = places[i]",
                                  "argmax2[n * SECOND_COUNT + i] = argmax1[i]"),
    "no barrier before the products": (
        BACKWARD, "__syncthreads();  // every thread needs its filter's entries", ""
    ),
    "another image's places": (BACKWARD, "places[i * ENTRIES + j]);", "places[j]);"),
    "another image": (BACKWARD, "gradient.add(entries, images + i * IMAGE_ROOM",
                      "gradient.add(entries, images"),
    "the last image missing": (BACKWARD, "i < IMAGES && n0 + i < n; i++) {\n            const",
                               "i < IMAGES && n0 + i < n - 1; i++) {\n            const"),
    "a share's sums missing": (BACKWARD, "bias_at, SHARES, k0, 0)", "bias_at, SHARES - 1, k0, 0)"),
}  # fmt: skip


@pytest.mark.usefixtures("few_blocks")
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_rejected(fault, monkeypatch, tmp_path):
    file, right, wrong = PLANTED[fault]
    code = (ROOT / "conv2d_relu_pool" / file).read_text()
    assert code.count(right) == 1
    (tmp_path / file).write_text(code.replace(right, wrong))
    source = "source" if file == FORWARD else "backward_source"
    monkeypatch.setattr(fused_pair, source, CudaSource(tmp_path / file))
    with pytest.raises(AssertionError):
        (assert_right if file == FORWARD else assert_right_backward)("lenet")


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_for_the_sanitiser_to_find(name):
    with xray.recording() as recordings:
        run(*PAIRS[name])
        assert_right_backward(name)
    assert [recording.findings for recording in recordings] == [()] * 3


@pytest.mark.parametrize(
    "pair",
    [
        shapes(2, (1, 8, 8), ((2, 3), (3, 3))),  # little work
        (LENET[0], LENET[1]._replace(pad_top=1, pad_bottom=1)),  # padding between the layers
        shapes(2, (1, 31, 28), padding=0),  # a row that no window sees: it would not be gathered
        shapes(2, (64, 28, 28), ((64, 5), (64, 5))),  # no room
    ],
)
def test_layers_that_are_launched_one_by_one(pair):
    assert not fused_pair.takes(*pair, 4)
    assert not fused_pair.slices(*pair, 4)
    with pytest.raises(ValueError, match="see takes"):
        run(*pair)
    x = np.zeros(pair[0].input_shape, np.float32)
    with pytest.raises(ValueError, match="see slices"):
        fused_pair.backward(None, None, None, x, None, None, 0, *pair)


@pytest.mark.parametrize(("name", "number"), [("fused_pair", 0), ("fused_pair_backward", 1)])
def test_the_machine_code(name, number):
    source = (fused_pair.source, fused_pair.backward_source)[number]
    with xray.recording(most_blocks=2) as recordings:
        run(*PAIRS["lenet"])
        assert_right_backward("lenet")
    recording = recordings[number * 2]
    for defines in source.variants_of("float32"):
        try:
            kernel = static.compiled(
                source.path, f"conv2d_relu_pool_{name}", "sm_90", defines, (ROOT,)
            )
        except resources.NvrtcMissingError as error:
            pytest.skip(str(error))
        usage = kernel.usage
        assert (usage.spill_stores, usage.spill_loads, usage.stack_bytes) == (0, 0, 0)
    assert static.of_recording(recording, gpus.find("h200")).occupancy.blocks > 1
    # Few passes over the banks beyond one: forward one filter's last rows beside the next one's
    # first, backward the windows of several shares.
    reads = [one for one in recording.accesses if (one.space, one.operation) == ("shared", "read")]
    least = sum(one.requests * max(one.width // 4, 1) for one in reads)
    assert sum(one.wavefronts for one in reads) <= (1.1, 1.5)[number] * least
