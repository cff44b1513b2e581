"""The linear stack in CUDA C: exact on whole numbers, in bounds on others, and without races."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from test_linear_stack_cpu import judged
from test_training import assert_loss

from kernels import emulator, xray
from kernels.compare import UNIT_ROUNDOFF
from kernels.source import ROOT, CudaSource
from kernels.training import linear_stack
from kernels.training.linear_stack import LinearStack

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

LENET = linear_stack.LENET


def stack_of(sizes):
    """Return the layers with their parameters one behind the other, as `lenet.model` has them."""
    if sizes == LENET.sizes:
        return LENET
    offsets, at = [], 0
    for inputs, outputs in itertools.pairwise(sizes):
        for count in (inputs * outputs, outputs):
            offsets.append(at)
            at += -(-count // 64) * 64
    return LinearStack(sizes, tuple(offsets), at)


def drawn(stack, rows, dtype, whole):
    """Return x, labels, the parameters, and every layer's w and b as views of these."""
    rng = np.random.default_rng([rows, *stack.sizes])
    x = rng.standard_normal((rows, stack.sizes[0])).astype(dtype)
    parameters = np.full(stack.length, np.nan, dtype)
    views = []
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(stack.sizes)):
        w_at, b_at = stack.offsets[2 * layer : 2 * layer + 2]
        w = parameters[w_at : w_at + inputs * outputs].reshape(inputs, outputs)
        b = parameters[b_at : b_at + outputs]
        if whole:  # sums stay where float32 is exact
            w[...], b[...] = rng.integers(-8, 9, w.shape) // 8, rng.integers(-2, 3, b.shape)
        else:
            w[...], b[...] = rng.standard_normal(w.shape) / inputs**0.5, 0.1
        views.append((w, b))
    return np.rint(x) if whole else x, rng.integers(0, stack.sizes[-1], rows), parameters, views


def learned(stack, x, labels, parameters, count=None):
    """Return outputs, loss, hits, deltas, dx and the gradient, of one step."""
    rows = len(x)
    outputs, deltas = (np.full((rows, stack.pitch), np.nan, x.dtype) for _ in range(2))
    dx, losses, hits = (
        np.full_like(x, np.nan), np.full(2, np.nan, x.dtype), np.full(2, -1, np.int32)
    )  # fmt: skip
    linear_stack.learn(
        stack, x, labels, parameters, outputs, deltas, dx, losses, hits,
        linear_stack.scratch(stack, rows, x), count=count or rows, step=np.array([1], np.int32),
    )  # fmt: skip
    assert np.isnan(losses[0])  # the step says where
    partial = np.full((stack.slices(rows), stack.length), np.nan, x.dtype)
    linear_stack.gradient(stack, x, outputs, deltas, partial)
    return outputs, losses[1], hits[1], deltas, dx, partial.astype(np.float64).sum(axis=0)


def of_layers(stack, outputs):
    """Return each layer's part of outputs or deltas."""
    begins = [
        sum(-(-size // 4) * 4 for size in stack.sizes[1:i]) for i in range(1, len(stack.sizes))
    ]
    return [
        outputs[:, begin : begin + size]
        for begin, size in zip(begins, stack.sizes[1:], strict=True)
    ]


def assert_sums(got, terms, left, right, unit, start=0.0):
    """Hold a product of matrices, added to `start`, against n + 1 roundings of its terms' sizes."""
    wide = left.astype(np.float64), right.astype(np.float64)
    size = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(start)
    assert np.all(np.abs(got - (wide[0] @ wide[1] + start)) <= (terms + 1) * unit * size)


def assert_right(stack, rows, dtype=np.float32, count=None):
    x, labels, parameters, layers = drawn(stack, rows, dtype, whole=False)
    outputs, got_loss, hits, deltas, dx, gradient = learned(stack, x, labels, parameters, count)
    unit, depth = UNIT_ROUNDOFF[np.dtype(dtype).name], len(layers)
    # Each layer from what it was given, which is what the one before it made.
    h, d = [x, *of_layers(stack, outputs)], [dx, *of_layers(stack, deltas)]
    assert_loss(h[-1], labels, got_loss, hits, d[-1], count or rows)
    for layer, (w, b) in enumerate(layers):
        inputs, last = len(w), layer == depth - 1
        # A ReLU brings nothing further apart: where the output is 0 the sum may be any below it.
        start, found = b.astype(np.float64), h[layer + 1]
        want = h[layer].astype(np.float64) @ w + start
        made = found if last else np.where(found > 0, found, np.minimum(want, 0))
        assert last or (found >= 0).all()
        assert_sums(made, inputs + 1, h[layer], w, unit, start)
        open_ = np.ones_like(h[layer], bool) if layer == 0 else h[layer] > 0
        assert not d[layer][~open_].any()
        back = np.where(open_, d[layer], d[layer + 1].astype(np.float64) @ w.T)
        assert_sums(back, len(b), d[layer + 1], w.T, unit)
    for got, inputs, delta in zip(gradients(stack, gradient)[::2], h[:-1], d[1:], strict=True):
        assert_sums(got, rows, inputs.T, delta, unit)
    for got, delta in zip(gradients(stack, gradient)[1::2], d[1:], strict=True):
        assert_sums(got, rows, np.ones((1, rows)), delta, unit)


def gradients(stack, gradient):
    """Return dw and db of every layer, from a vector like the parameters."""
    sizes = list(itertools.pairwise(stack.sizes))
    dims = [dims for inputs, outputs in sizes for dims in ((inputs, outputs), (outputs,))]
    return [
        gradient[at : at + np.prod(one)].reshape(one)
        for at, one in zip(stack.offsets, dims, strict=True)
    ]


# Tiles of every number of images; classes that are no multiple of a vector; one layer.
@pytest.mark.parametrize(
    ("sizes", "rows", "dtype"),
    [
        (LENET.sizes, 37, np.float32),
        (LENET.sizes, 1, np.float64),
        (LENET.sizes, 3 * 132 + 1, np.float32),
        (LENET.sizes, 5 * 132, np.float32),
        (LENET.sizes, 9 * 132, np.float32),
        ((17, 47), 300, np.float64),
        ((70, 33, 62), 21, np.float32),
        ((9, 130, 2, 3, 1), 6, np.float32),
    ],
)
def test_a_step_is_right(sizes, rows, dtype):
    assert_right(stack_of(sizes), rows, dtype)


def test_a_part_of_a_batch_has_its_share_of_the_gradient():
    assert_right(LENET, 20, count=50.0)


@pytest.mark.parametrize("rows", [256, 300])
def test_whole_numbers_are_exact(rows):
    x, _, parameters, layers = drawn(LENET, rows, np.float32, whole=True)
    outputs = np.full((rows, LENET.pitch), np.nan, np.float32)
    linear_stack.forward(LENET, x, parameters, outputs)
    wide = [(w.astype(np.float64), b.astype(np.float64)) for w, b in layers]
    y, *_ = judged(x.astype(np.float64), np.zeros((rows, 10)), *zip(*wide, strict=True))
    np.testing.assert_array_equal(LENET.logits(outputs), y)


def test_a_nan_stays():
    x, labels, parameters, _ = drawn(LENET, 4, np.float32, whole=False)
    x[2, 7] = np.nan
    outputs, got, hits, _, dx, _ = learned(LENET, x, labels, parameters)
    logits = LENET.logits(outputs)
    assert np.isnan(logits[2]).all()
    assert not np.isnan(logits[[0, 1, 3]]).any()
    assert np.isnan(got)
    assert 0 <= hits <= 3
    assert not np.isnan(dx[[0, 1, 3]]).any()


FORWARD, GRADIENT = "linear_stack.cu", "linear_stack_gradient.cu"
PLANTED = {
    "no ReLU": (FORWARD, "sum < scalar(0)", "sum < scalar(-1e30f)"),
    "no ReLU's gradient": (FORWARD, "activation > scalar(0) ?", "true ?"),
    "no bias": (FORWARD, "= parameters[biases_at(LAYER) + column]", "= 0"),
    "another image's label": (FORWARD, "labels[n0 + m]", "labels[n0]"),
    "a warp's sum missing": (FORWARD, "from = 0; from < WARPS", "from = 1; from < WARPS"),
    "a last row missing": (FORWARD, "row(step, r) < INPUTS", "row(step, r) < INPUTS - 1"),
    "a last image missing": (GRADIENT, "min(end - n0, IMAGES)", "min(end - n0, IMAGES) - 1"),
    "no bias's gradient": (GRADIENT, "= bias[c];", "= 0;"),
}


def plant(tmp_path, file, right, wrong):
    """Return a source with a fault in it."""
    # Layout is clang-format's: white space in the pattern matches any.
    pattern = r"\s*".join(map(re.escape, right.split()))
    code, count = re.subn(pattern, lambda _: wrong, (ROOT / "training" / file).read_text())
    assert count == 1
    path = tmp_path / file
    path.write_text(code)
    name = "gradient_source" if "gradient" in file else "source"
    return name, CudaSource(path, **getattr(linear_stack, name).defines)


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_rejected(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(linear_stack, *plant(tmp_path, *PLANTED[fault]))
    with pytest.raises(AssertionError):
        assert_right(LENET, 37)


BARRIERS = {
    "forward": "__syncthreads(); // a thread adds what all warps stored",
    "backward": "__syncthreads(); // the layer before reads all of these",
    "load": "__syncthreads(); // the first layer reads what others loaded",
}


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_barrier_that_lacks_is_a_race(barrier, tmp_path, monkeypatch):
    x, labels, parameters, _ = drawn(LENET, 4, np.float32, whole=False)
    with xray.recording() as clean:
        learned(LENET, x, labels, parameters)
    assert not [finding for one in clean for finding in one.findings if finding.kind == "race"]
    monkeypatch.setattr(linear_stack, *plant(tmp_path, "linear_stack.cu", BARRIERS[barrier], ""))
    with xray.recording() as recordings:
        learned(LENET, x, labels, parameters)
    assert "race" in {finding.kind for one in recordings for finding in one.findings}
