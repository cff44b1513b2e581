"""The `cpu` kernels against plain float64 NumPy, written out here."""

from __future__ import annotations

import itertools
import threading

import numba
import numpy as np
import pytest

from kernels.conv2d import cpu
from kernels.pool2d import avg_cpu, max_cpu
from kernels.shapes import Conv2dShape, PoolShape

CONVOLUTIONS = {
    "lenet 1": ((33, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}),
    "lenet 2": ((17, 6, 14, 14), (16, 6, 5, 5), {}),
    "all different": ((2, 3, 11, 13), (7, 3, 4, 5), {"padding": ((1, 3), (2, 0))}),
    "ones": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "one by one": ((3, 5, 6, 7), (9, 5, 1, 1), {}),
    "tall filter": ((17, 2, 9, 31), (5, 2, 7, 3), {"stride": (1, 2), "padding": ((0, 3), (5, 1))}),
    "stride past the filter": ((5, 3, 20, 17), (2, 3, 2, 1), {"stride": (4, 3)}),
    "unread rows": ((33, 2, 12, 12), (3, 2, 3, 3), {"stride": 5}),
    "dilated": (
        (3, 4, 13, 15),
        (6, 4, 3, 2),
        {"stride": (2, 3), "dilation": (3, 2), "padding": ((4, 1), (0, 5))},
    ),
    "mostly padding": ((2, 1, 2, 3), (4, 1, 3, 3), {"padding": 5, "stride": 2}),
    "one image, many channels": ((1, 37, 19, 18), (41, 37, 3, 3), {"padding": 1}),
    "chunks and bands": ((19, 3, 30, 6), (1, 3, 3, 3), {"stride": (2, 1), "padding": 1}),
}


def places(shape):
    """Yield every tap with the part of the padded input it reads."""
    for r, s in itertools.product(range(shape.r), range(shape.s)):
        h, w = r * shape.dilation_h, s * shape.dilation_w
        rows = slice(h, h + (shape.p - 1) * shape.stride_h + 1, shape.stride_h)
        cols = slice(w, w + (shape.q - 1) * shape.stride_w + 1, shape.stride_w)
        yield r, s, (slice(None), slice(None), rows, cols)


def expected(x, w, b, dy, shape):
    """y, dx, dw, db, one tap at a time."""
    padded = np.pad(x, ((0, 0), (0, 0), *shape.padding))
    y = np.broadcast_to(b[:, None, None], shape.output_shape).astype(np.float64)
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for r, s, place in places(shape):
        y += np.einsum("ncpq,kc->nkpq", padded[place], w[:, :, r, s])
        dx[place] += np.einsum("nkpq,kc->ncpq", dy, w[:, :, r, s])
        dw[:, :, r, s] = np.einsum("nkpq,ncpq->kc", dy, padded[place])
    top, left = shape.pad_top, shape.pad_left
    dx = dx[:, :, top : top + shape.h, left : left + shape.w]
    return y, dx, dw, dy.sum(axis=(0, 2, 3))


def tensors(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    dims = shape.input_shape, shape.filter_shape, (shape.k,), shape.output_shape
    return [rng.standard_normal(size).astype(dtype) for size in dims]


def computed(x, w, b, dy, shape):
    results = [np.full(like.shape, np.nan, x.dtype) for like in (dy, x, w, b)]
    y, dx, dw, db = results
    cpu.forward(x, w, b, y, shape)
    cpu.backward_data(dy, w, dx, shape)
    cpu.backward_filter(x, dy, dw, shape)
    cpu.backward_bias(dy, db, shape)
    return results


def shape_of(case):
    x_shape, w_shape, options = CONVOLUTIONS[case]
    return Conv2dShape.of(x_shape, w_shape, **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution_is_within_the_bound(case, dtype):
    shape = shape_of(case)
    inputs = tensors(shape, dtype)
    wide = [array.astype(np.float64) for array in inputs]
    sizes = expected(*(np.abs(array) for array in wide), shape)
    cells = shape.n * shape.p * shape.q
    lengths = shape.c * shape.r * shape.s + 1, shape.k * shape.r * shape.s, cells, cells
    gots, wants = computed(*inputs, shape), expected(*wide, shape)
    # In float64 the reference rounds as much, in its own order.
    unit = np.finfo(dtype).eps / 2 * (2 if dtype == np.float64 else 1)
    for got, want, size, length in zip(gots, wants, sizes, lengths, strict=True):
        assert np.all(np.abs(got - want) <= (length + 1) * unit * size)


def test_no_bias_is_a_bias_of_zero():
    shape = Conv2dShape.of((3, 2, 6, 5), (3, 2, 3, 3))
    x, w, b, y = tensors(shape, np.float32)
    other = np.full_like(y, np.nan)
    cpu.forward(x, w, np.zeros_like(b), y, shape)
    cpu.forward(x, w, None, other, shape)
    assert np.array_equal(y, other)


@pytest.mark.parametrize("images", [1, 16, 33])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("spoiled", range(4))
def test_what_is_not_finite_reaches_its_own_cells_only(images, value, spoiled):
    shape = Conv2dShape.of((images, 2, 9, 8), (3, 2, 3, 2), stride=2, padding=((1, 0), (2, 1)))
    inputs = tensors(shape, np.float32)
    inputs[spoiled].flat[inputs[spoiled].size // 2] = value
    with np.errstate(invalid="ignore"):
        wants = expected(*(array.astype(np.float64) for array in inputs), shape)
        gots = computed(*inputs, shape)
    for got, want in zip(gots, wants, strict=True):
        assert np.array_equal(np.isnan(got), np.isnan(want))
        assert np.array_equal(np.isinf(got), np.isinf(want))


@pytest.mark.parametrize("case", ["lenet 2", "dilated", "one image, many channels"])
def test_the_bits_do_not_depend_on_threads(case):
    shape = shape_of(case)
    inputs = tensors(shape, np.float32)
    first, again = computed(*inputs, shape), computed(*inputs, shape)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = computed(*inputs, shape)
    finally:
        numba.set_num_threads(threads)
    for a, b, c in zip(first, again, alone, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def test_python_threads_may_launch_at_once():
    shape = Conv2dShape.of((33, 3, 9, 9), (4, 3, 3, 3))
    inputs = tensors(shape, np.float32)
    want = computed(*inputs, shape)
    results = []
    workers = [
        threading.Thread(target=lambda: results.append(computed(*inputs, shape))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4
    for got in results:
        assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


POOLS = {
    "lenet 1": ((3, 6, 28, 28), 2, {}),
    "lenet 2": ((3, 16, 10, 10), 2, {}),
    "odd rest": ((2, 3, 7, 37), 2, {}),
    "two": ((1, 1, 2, 2), 2, {}),
    "one": ((1, 2, 1, 1), 1, {}),
    "overlap": ((2, 3, 11, 9), 3, {"stride": (2, 1)}),
    "padded": ((2, 3, 9, 12), 3, {"stride": 2, "padding": 1}),
    "lopsided": ((1, 2, 9, 12), (4, 3), {"stride": (3, 2), "padding": ((2, 0), (0, 1))}),
    "gaps": ((2, 2, 13, 17), 2, {"stride": (5, 4)}),
    "pairs with padding": ((2, 2, 8, 8), 2, {"padding": 1}),
    "wide": ((1, 2, 5, 50), (1, 7), {"stride": (1, 3)}),
}


def windows(shape):
    """Yield (p, q) with the rows and columns of the window that are inside the input."""
    for p, q in itertools.product(range(shape.p), range(shape.q)):
        top = p * shape.stride_h - shape.pad_top
        left = q * shape.stride_w - shape.pad_left
        rows = slice(max(top, 0), min(top + shape.r, shape.h))
        cols = slice(max(left, 0), min(left + shape.s, shape.w))
        yield p, q, rows, cols


def expected_maxima(x, shape):
    y, argmax = np.empty(shape.output_shape, x.dtype), np.empty(shape.output_shape, np.int32)
    index = np.arange(shape.h * shape.w, dtype=np.int32).reshape(shape.h, shape.w)
    for p, q, rows, cols in windows(shape):
        cells = x[:, :, rows, cols].reshape(shape.n, shape.c, -1)
        first = cells.argmax(axis=-1)
        y[:, :, p, q] = np.take_along_axis(cells, first[..., None], -1)[..., 0]
        argmax[:, :, p, q] = index[rows, cols].ravel()[first]
    return y, argmax


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", POOLS)
def test_max_pool(case, dtype):
    dims, size, options = POOLS[case]
    shape = PoolShape.of(dims, size, **options)
    rng = np.random.default_rng(1)
    plain = rng.standard_normal(dims).astype(dtype)
    ties = rng.integers(0, 3, dims).astype(dtype)
    holes = np.where(rng.random(dims) < 0.2, np.nan, ties).astype(dtype)
    low = np.full(dims, -np.inf, dtype)
    for x in (plain, ties, holes, low):
        y = np.full(shape.output_shape, np.nan, dtype)
        argmax = np.full(shape.output_shape, -1, np.int32)
        max_cpu.forward(x, y, argmax, shape)
        want, want_argmax = expected_maxima(x, shape)
        assert np.array_equal(y, want, equal_nan=True)
        assert np.array_equal(argmax, want_argmax)
        dy = rng.integers(-9, 9, shape.output_shape).astype(dtype)  # sums are exact
        dx = np.full(dims, np.nan, dtype)
        max_cpu.backward(dy, argmax, dx, shape)
        planes = shape.n * shape.c
        back = np.zeros((planes, shape.h * shape.w), dtype)
        for plane in range(planes):
            where, what = want_argmax.reshape(planes, -1)[plane], dy.reshape(planes, -1)[plane]
            np.add.at(back[plane], where, what)
        assert np.array_equal(dx, back.reshape(dims))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("case", POOLS)
def test_average_pool(case, include_pad, dtype):
    dims, size, options = POOLS[case]
    shape = PoolShape.of(dims, size, include_pad=include_pad, **options)
    rng = np.random.default_rng(2)
    x = rng.standard_normal(dims).astype(dtype)
    dy = rng.standard_normal(shape.output_shape).astype(dtype)
    y, dx = np.full_like(dy, np.nan), np.full_like(x, np.nan)
    avg_cpu.forward(x, y, shape)
    avg_cpu.backward(dy, dx, shape)
    want, back = np.zeros(dy.shape), np.zeros(dims)
    for p, q, rows, cols in windows(shape):
        cells = x[:, :, rows, cols].astype(np.float64)
        count = shape.r * shape.s if include_pad else cells.shape[2] * cells.shape[3]
        want[:, :, p, q] = cells.sum(axis=(2, 3)) / count
        back[:, :, rows, cols] += dy[:, :, p, q, None, None].astype(np.float64) / count
    tolerance = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, want, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dx, back, rtol=tolerance, atol=tolerance)


def test_average_pool_passes_nan_on():
    shape = PoolShape.of((1, 1, 4, 6), 2)
    x = np.ones((1, 1, 4, 6), np.float32)
    x[0, 0, 2, 3] = np.nan
    y = np.zeros(shape.output_shape, np.float32)
    avg_cpu.forward(x, y, shape)
    assert np.argwhere(np.isnan(y)).tolist() == [[0, 0, 1, 1]]
