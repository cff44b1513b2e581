"""Two fused blocks and their batch in one launch: what the three launches and the judge say."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import cases, compare, emulator, resources, xray
from kernels.conv2d_relu_pool import fused, fused_pair
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
    "lenet": shapes(7),
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
    position = np.array([EPOCH, 2], np.int32)
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


PLANTED = {
    "no barrier behind the first layer": (
        "__syncthreads();  // a thread reads, and copies out, what its neighbours found", ""
    ),
    "a part's sums forgotten": ("other < PARTS - 1", "other < PARTS - 2"),
    "each part adds the bias": ("part == 0 ? b2[own.b] : scalar(0)", "b2[own.b]"),
    "the batch is not kept": ("x[x_offset(first_layer.conv, n, c, row, col)] = pixel;", ""),
    "another's label": ("labels[from]", "labels[n]"),
    "places of the first layer": ("argmax2[n * SECOND_COUNT + i] = places[i]",
                                  "argmax2[n * SECOND_COUNT + i] = argmax1[i]"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_rejected(fault, monkeypatch, tmp_path):
    right, wrong = PLANTED[fault]
    code = (ROOT / "conv2d_relu_pool" / "fused_pair.cu").read_text()
    assert code.count(right) == 1
    (tmp_path / "fused_pair.cu").write_text(code.replace(right, wrong))
    monkeypatch.setattr(fused_pair, "source", CudaSource(tmp_path / "fused_pair.cu"))
    with pytest.raises(AssertionError):
        assert_right("lenet")


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_for_the_sanitiser_to_find(name):
    with xray.recording() as recordings:
        run(*PAIRS[name])
    assert [recording.findings for recording in recordings] == [()]


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
    with pytest.raises(ValueError, match="see takes"):
        run(*pair)


def test_the_machine_code():
    (defines,) = fused_pair.source.variants_of("float32")
    name = "conv2d_relu_pool_fused_pair"
    try:
        kernel = static.compiled(fused_pair.source.path, name, "sm_90", defines, (ROOT,))
    except resources.NvrtcMissingError as error:
        pytest.skip(str(error))
    usage = kernel.usage
    assert (usage.spill_stores, usage.spill_loads, usage.stack_bytes) == (0, 0, 0)
    with xray.recording(most_blocks=2) as (recordings):
        run(*PAIRS["lenet"])
    report = static.of_recording(recordings[0], gpus.find("h200"))
    assert report.occupancy.blocks > 1
    # Few passes over the banks beyond one: one filter's last rows beside the next one's first.
    reads = [
        one for one in recordings[0].accesses if (one.space, one.operation) == ("shared", "read")
    ]
    least = sum(one.requests * max(one.width // 4, 1) for one in reads)
    assert sum(one.wavefronts for one in reads) <= 1.1 * least
