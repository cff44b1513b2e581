"""Linear layers in one go, against the judge and the layers one by one."""

import itertools

import numba
import numpy as np
import pytest

from kernels.training import linear_stack_cpu
from lenet.layers import Linear, LinearStack, ReLU


def drawn(count, sizes, dtype=np.float32):
    """Return x, dy and every layer's w and b."""
    rng = np.random.default_rng(7)
    w = [rng.standard_normal(pair).astype(dtype) for pair in itertools.pairwise(sizes)]
    b = [rng.standard_normal(size).astype(dtype) for size in sizes[1:]]
    x, dy = (rng.standard_normal((count, size)).astype(dtype) for size in (sizes[0], sizes[-1]))
    return x, dy, tuple(w), tuple(b)


def stacked(x, dy, w, b):
    """Return y, dx, dw and db of all layers, and nothing that was not written."""
    dw, db = (tuple(np.full_like(array, np.nan) for array in arrays) for arrays in (w, b))
    outputs = linear_stack_cpu.forward(x, w, b)
    dx = linear_stack_cpu.backward(x, outputs, dy, w, dw, db)
    return outputs[-1], dx, *dw, *db


def judged(x, dy, w, b):
    """Return the same by NumPy."""
    h = [x]
    for layer, (matrix, bias) in enumerate(zip(w, b, strict=True)):
        y = h[-1] @ matrix + bias
        h.append(np.maximum(y, 0) if layer < len(w) - 1 else y)
    dw, db = [], []
    for layer in reversed(range(len(w))):
        dw.append(h[layer].T @ dy)
        db.append(dy.sum(axis=0))
        dy = dy @ w[layer].T
        if layer:
            dy = dy * (h[layer] > 0)
    return h[-1], dy, *dw[::-1], *db[::-1]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (256, (400, 120, 84, 10)),
        (259, (70, 33, 10)),
        (5, (3, 2, 4)),
        (1, (16, 32, 64)),
        (7, (9, 5)),
    ],
)
def test_whole_numbers_are_exact(count, sizes):
    x, dy, *parameters = drawn(count, sizes)
    x, dy = np.rint(x), np.rint(dy)
    # Weights of -1, 0 and sometimes 1: all sums stay below 2**24, where float32 is exact.
    rng = np.random.default_rng(8)
    w = tuple(rng.integers(-8, 9, m.shape).astype(np.float32) // 8 for m in parameters[0])
    b = tuple(np.rint(array) for array in parameters[1])
    wanted = judged(
        *(a.astype(np.float64) for a in (x, dy)),
        *(tuple(a.astype(np.float64) for a in arrays) for arrays in (w, b)),
    )
    assert max(np.abs(array).max() for array in wanted) < 2**24
    got = stacked(x, dy, w, b)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_bits_do_not_depend_on_threads():
    arrays = drawn(256, (400, 120, 84, 10))
    together = stacked(*arrays)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = stacked(*arrays)
    finally:
        numba.set_num_threads(threads)
    for a, b in zip(together, alone, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("count", "together"), [(256, True), (3, False)])
def test_a_stack_is_the_layers_one_by_one(count, together):
    x, dy, w, b = drawn(count, (400, 120, 84, 10))
    x[1, 5], dy[2, 3] = np.nan, np.inf

    def layers():
        built = [
            Linear("a", 400, 120),
            ReLU("b"),
            Linear("c", 120, 84),
            ReLU("d"),
            Linear("e", 84, 10),
        ]
        for layer, matrix, bias in zip(built[::2], w, b, strict=True):
            layer.w, layer.b = matrix, bias
            layer.dw, layer.db = np.full_like(matrix, np.nan), np.full_like(bias, np.nan)
        return built

    inside, apart = layers(), layers()
    stack, y = LinearStack(*inside), x
    with np.errstate(invalid="ignore"):
        for layer in apart:
            y = layer.forward(y)
        got = stack.forward(x)
        assert stack.together == together  # else this test would compare one thing with itself
        dx, want_dx = stack.backward(dy.copy()), dy.copy()
        for layer in reversed(apart):
            want_dx = layer.backward(want_dx)
    pairs = [(got, y), (dx, want_dx)]
    for one, other in zip(inside[::2], apart[::2], strict=True):
        pairs += [(one.dw, other.dw), (one.db, other.db)]
    for one, other in pairs:
        # Few terms go to a BLAS, which adds in another order.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
