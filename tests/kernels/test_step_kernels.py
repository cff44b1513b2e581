"""Order, batch and end of a training step: the kernels on the emulator, and what NumPy computes."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, stats

from kernels import emulator
from kernels.source import ROOT, CudaSource
from kernels.training import batch, counter_hash, shuffle, step_end

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

SEEDS = (0, 5, 2**32, 2**63 - 1)
BACKGROUND = -0.5


def shuffled(xp, n, seed, epoch):
    order = xp.asarray(np.full(n, -1, np.int32))
    position = xp.asarray(np.array([epoch, 3], np.int32))
    shuffle.shuffle(order, position, xp.empty(1, np.float32), seed)
    return order if xp is np else order.get()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 96, 1437])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_order_is_a_permutation_the_same_as_numpys(xp, n, seed):
    for epoch in (0, 1, 1000):
        order = shuffled(xp, n, seed, epoch)
        assert np.array_equal(np.sort(order), np.arange(n))
        assert np.array_equal(order, shuffle.permutation(n, seed, epoch))


def test_every_seed_and_epoch_has_an_order_of_its_own():
    orders = {tuple(shuffle.permutation(96, seed, epoch)) for seed in SEEDS for epoch in range(25)}
    assert len(orders) == 100


def chance_of_five():
    """Return the p-value of all permutations of five elements coming up equally often."""
    number = {order: i for i, order in enumerate(itertools.permutations(range(5)))}
    counts = np.zeros(120)
    for seed, epoch in itertools.product(range(60), range(60)):
        counts[number[tuple(shuffle.permutation(5, seed, epoch).tolist())]] += 1
    return stats.chisquare(counts).pvalue


def test_all_permutations_come_up_alike():
    assert chance_of_five() > 0.001


def test_too_few_rounds_would_be_seen(monkeypatch):
    monkeypatch.setattr(shuffle, "ROUNDS", 6)
    assert chance_of_five() < 1e-6


def test_an_order_of_many_keeps_nothing_of_the_one_before():
    n = 40
    places, steps, kept = np.zeros((n, n)), np.zeros(n), 0
    for seed in range(30):
        before = None
        for epoch in range(60):
            order = shuffle.permutation(n, seed, epoch)
            places[np.arange(n), order] += 1
            np.add.at(steps, np.diff(order) % n, 1)
            kept += 0 if before is None else (order == before).sum()
            before = order
    assert stats.chisquare(places, axis=None).pvalue > 0.001  # every image everywhere
    assert stats.chisquare(steps[1:]).pvalue > 0.001  # neighbours are no neighbours again
    assert kept == pytest.approx(30 * 59, rel=0.1)  # one image a time stays where it was


def make(xp, n=50, channels=1, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n, channels, 9, 7)).astype(dtype)
    labels = rng.integers(0, 10, n)
    return images, labels, xp.asarray(images), xp.asarray(labels)


def gathered(
    xp, images, labels, order, step, size, *, reach, distort=0.0, seed=3, epoch=4, batch_size=16
):
    x = xp.asarray(np.full((size, *images.shape[1:]), np.nan, images.dtype))
    target = xp.asarray(np.full(size, -1))
    batch.gather(
        batch.Gather(
            images, labels, xp.asarray(order), xp.asarray(np.array([epoch, step], np.int32)),
            x, target, batch_size, seed, reach, BACKGROUND, distort,
        )
    )  # fmt: skip
    return (x, target) if xp is np else (x.get(), target.get())


def judged(images, chosen, reach, seed=3, epoch=4):
    """Move images by cutting them out of larger ones."""
    x = np.pad(images[chosen], ((0, 0), (0, 0), (reach, reach), (reach, reach)),
               constant_values=images.dtype.type(BACKGROUND))  # fmt: skip
    height, width = images.shape[2:]
    cut = []
    for image, down, right in zip(x, *batch.shifts(chosen, seed, epoch, reach), strict=True):
        top, left = reach - down, reach - right
        cut.append(image[:, top : top + height, left : left + width])
    return np.stack(cut)


def assert_batch(source_of=None, monkeypatch=None, xp=np, dtype=np.float32):
    if source_of is not None:
        monkeypatch.setattr(batch, "source", source_of)
    images, labels, *there = make(xp, channels=2, dtype=dtype)
    order = shuffle.permutation(50, 3, 4)
    for reach, (step, size) in itertools.product((0, 1, 2, 20), ((0, 16), (2, 16), (3, 2))):
        x, target = gathered(xp, *there, order, step, size, reach=reach)
        chosen = order[step * 16 : step * 16 + size]
        assert np.array_equal(x, judged(images, chosen, reach))
        assert np.array_equal(target, labels[chosen])
        assert np.array_equal(x, batch.moved(images, chosen, 3, 4, reach, BACKGROUND))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_what_cutting_out_gives_and_what_numpy_gives(xp, dtype):
    assert_batch(xp=xp, dtype=dtype)


PLANTED = {
    "the other way": ("row -= (int)(bits % side)", "row += (int)(bits % side)"),
    "one pixel short": ("side = 2 * shape.reach + 1", "side = 2 * shape.reach"),
    # In bounds, that the emulator has nothing to say.
    "not moved at the edge": ("comes_in ? background :", "comes_in ? plane[0] :"),
    "the first step again": ("order[position[1] * shape.batch_size", "order[0 * shape.batch_size"),
    "any epoch's moves": ("epoch, SHIFT", "0, SHIFT"),
    "a label too few": ("if (i == at.a * pixels)", "if (i == at.a * pixels && i > 0)"),
}


def planted(right, wrong, tmp_path):
    """Return the kernel with a fault, in whichever of its files that stands."""
    (tmp_path / "training").mkdir()
    code = {}
    for name in ("batch.cu", "training/batch.cuh"):
        text = (ROOT / "training" / Path(name).name).read_text()
        code[name] = text.replace(right, wrong)
        (tmp_path / name).write_text(code[name])
    assert "".join(code.values()).count(wrong) == 1
    return CudaSource(tmp_path / "batch.cu")


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_rejected(fault, monkeypatch, tmp_path):
    with pytest.raises(AssertionError):
        assert_batch(planted(*PLANTED[fault], tmp_path), monkeypatch)


def turned(images, chosen, seed, epoch, reach, distort):
    """Distort images by SciPy's spline interpolation of degree 1."""
    key = counter_hash.epoch_key(seed, epoch, counter_hash.DISTORT)
    keys = counter_hash.absorb(key, chosen.astype(np.uint32))
    found = []
    for image, key in zip(images[chosen], keys, strict=True):
        bits = [counter_hash.absorb(np.array([key]), np.uint32(i))[0] for i in range(5)]
        scale, squeeze, shear, down, right = (int(b) / 2**31 - 1 for b in bits)
        matrix = np.eye(2) + distort * np.array([[scale - squeeze, 0], [shear, scale + squeeze]])
        centre = (np.array(image.shape[1:]) - 1) / 2
        offset = centre - matrix @ centre - reach * np.array([down, right])
        found.append(
            [
                ndimage.affine_transform(
                    plane.astype(np.float64), matrix, offset, order=1, mode="grid-constant",
                    cval=BACKGROUND,
                )
                for plane in image
            ]
        )  # fmt: skip
    return np.array(found)


def assert_distorted(source=None, monkeypatch=None, xp=np, dtype=np.float32):
    if source is not None:
        monkeypatch.setattr(batch, "source", source)
    images, labels, *there = make(xp, channels=2, dtype=dtype)
    order = shuffle.permutation(50, 3, 4)
    for (reach, distort), (step, size) in itertools.product(
        ((0, 0.1), (2, 0.5), (20, 0.25)), ((0, 16), (3, 2))
    ):
        x, target = gathered(xp, *there, order, step, size, reach=reach, distort=distort)
        chosen = order[step * 16 : step * 16 + size]
        assert np.array_equal(target, labels[chosen])
        # Places are rounded to a 65536th of a pixel, times the sides; pixels differ by up to 8.
        want = turned(images, chosen, 3, 4, reach, distort)
        assert np.all(np.abs(x - want) <= 8 * (9 + 7 + 20 + 1) / 2**16)
        ours = batch.distorted(images, chosen, 3, 4, reach, BACKGROUND, distort)
        assert ours.dtype == images.dtype
        assert np.all(np.abs(x - ours) <= 32 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_distorted_batch_is_what_scipy_gives_and_what_numpy_gives(xp, dtype):
    assert_distorted(xp=xp, dtype=dtype)


PLANTED_DISTORTION = {
    "no squeezing": ("(ONE + scale - squeeze) * below", "(ONE + scale) * below"),
    "sheared the other way": ("+ shear * below", "- shear * below"),
    "moved up": ("ONE * (shape.h - 1) - down", "ONE * (shape.h - 1) + down"),
    "the nearest pixel": ("lower * (under - above)", "(lower > 0.5f) * (under - above)"),
    "no frame": ("is_inside ? plane[y * shape.w + x] : background", "plane[0]"),
    "any image's": ("absorb(key, image), shape)", "absorb(key, 0), shape)"),
}


@pytest.mark.parametrize("fault", PLANTED_DISTORTION)
def test_a_planted_distortion_is_rejected(fault, monkeypatch, tmp_path):
    with pytest.raises(AssertionError):
        assert_distorted(planted(*PLANTED_DISTORTION[fault], tmp_path), monkeypatch)


def test_moves_are_uniform_and_new_every_epoch():
    chosen = np.arange(20_000)
    epochs = [batch.shifts(chosen, 7, epoch, 2) for epoch in (0, 1)]
    for down, right in epochs:
        assert down.min() == right.min() == -2
        assert down.max() == right.max() == 2
        assert stats.chisquare(np.bincount(5 * down + right + 12)).pvalue > 0.001
    alike = (epochs[0] == epochs[1]).all(axis=0).mean()
    assert alike == pytest.approx(1 / 25, rel=0.1)
    # An image's move depends on no batch.
    assert np.array_equal(batch.shifts(chosen[100:117], 7, 0, 2), epochs[0][:, 100:117])


def test_the_end_of_a_step_keeps_its_figures_and_sets_up_the_next(xp):
    rates = xp.asarray(np.array([0.5, 0.25, 0.125], np.float32))
    rate = xp.asarray(np.array([0.5], np.float32))
    losses, hits = xp.zeros(3, np.float32), xp.zeros(3, np.int32)
    position = xp.asarray(np.array([8, 0], np.int32))
    host = (lambda array: array) if xp is np else (lambda array: array.get())
    for step, follows in enumerate((0.25, 0.125, 0.125)):
        loss = xp.asarray(np.array(1.5 + step, np.float32))
        right = xp.asarray(np.array([10 + step], np.int32))
        step_end.end_step(loss, right, losses, hits, rates, rate, position)
        assert host(position).tolist() == [8, step + 1]
        assert host(rate)[0] == follows  # the last has none after it
    assert host(losses).tolist() == [1.5, 2.5, 3.5]
    assert host(hits).tolist() == [10, 11, 12]
