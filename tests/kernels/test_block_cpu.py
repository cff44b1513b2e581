"""What the fused block's `cpu` row promises beyond the judge's bound."""

import numba
import numpy as np
import pytest

import kernels
from kernels.conv2d_relu_pool import reference
from kernels.shapes import CLOSED, BlockShape

HOW = {"kernel": "cpu"}
SHAPES = {
    "lenet 1": ((35, 1, 28, 28), (6, 1, 5, 5), {"padding": 2}),
    "lenet 2": ((18, 6, 14, 14), (16, 6, 5, 5), {}),
    "dilated": ((5, 3, 17, 19), (7, 3, 3, 2), {"dilation": (2, 3), "stride": 2, "pool": (3, 2)}),
    "several bands": ((2, 6, 30, 31), (4, 6, 5, 5), {"padding": (1, 2)}),
    "few vectors, half registers": ((3, 2, 9, 9), (3, 2, 4, 2), {"padding": ((1, 0), (0, 2))}),
}  # fmt: skip


def computed(x, w, b, dy, options, kernel="cpu"):
    """y, argmax, dx, dw, db."""
    how = options | {"kernel": kernel}
    y, argmax = kernels.conv2d_relu_pool(x, w, b, **how, return_argmax=True)
    return (
        y,
        argmax,
        kernels.conv2d_relu_pool_backward_data(dy, argmax, w, x.shape, **how),
        kernels.conv2d_relu_pool_backward_filter(x, dy, argmax, w.shape, **how),
        kernels.conv2d_relu_pool_backward_bias(dy, argmax, kernel=kernel),
    )


def drawn(name, dtype=np.float32):
    input_shape, filter_shape, options = SHAPES[name]
    output_shape = BlockShape.of(input_shape, filter_shape, **options).output_shape
    rng = np.random.default_rng(3)
    dims = (input_shape, filter_shape, filter_shape[:1], output_shape)
    return [rng.standard_normal(d).astype(dtype) for d in dims], options


@pytest.mark.parametrize("name", SHAPES)
def test_many_images_in_whole_numbers_are_exact(name):
    arrays, options = drawn(name)
    arrays = [np.rint(array) for array in arrays]
    wanted = computed(*arrays, options, kernel="reference")
    for got, want in zip(computed(*arrays, options), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ["lenet 2", "dilated"])
def test_the_bits_do_not_depend_on_threads(name):
    arrays, options = drawn(name)
    first, again = computed(*arrays, options), computed(*arrays, options)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = computed(*arrays, options)
    finally:
        numba.set_num_threads(threads)
    for a, b, c in zip(first, again, alone, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("spoiled", range(4))
@pytest.mark.parametrize("name", ["lenet 2", "few vectors, half registers"])
def test_what_is_not_finite_reaches_its_own_cells_only(name, spoiled, value):
    arrays, options = drawn(name)
    input_shape, filter_shape, _ = SHAPES[name]
    shape = BlockShape.of(input_shape, filter_shape, **options)
    arrays[spoiled].flat[arrays[spoiled].size // 2] = value
    x, w, b, dy = (array.astype(np.float64) for array in arrays)
    with np.errstate(invalid="ignore"):
        y, argmax, dx, dw, db = computed(*arrays, options)
        want_y, want_argmax = np.empty(shape.output_shape), np.empty(shape.output_shape, np.uint8)
        reference.forward(x, w, b, want_y, want_argmax, shape)
        # One open window after the other: what it read, and nothing else.
        padded = np.pad(x, ((0, 0), (0, 0), *shape.padding))
        want_dx, want_dw = np.zeros_like(padded), np.zeros_like(w)
        for n, k, i, j in np.argwhere(argmax != CLOSED):
            row, col = divmod(int(argmax[n, k, i, j]), shape.pool_s)
            h, v = (i * shape.pool_r + row), (j * shape.pool_s + col)
            read = np.s_[n, :, h : h + shape.r, v : v + shape.s]
            want_dw[k] += dy[n, k, i, j] * padded[read]
            want_dx[read] += dy[n, k, i, j] * w[k]
        top, left = shape.pad_top, shape.pad_left
        want_dx = want_dx[:, :, top : top + shape.h, left : left + shape.w]
        want_db = np.where(argmax == CLOSED, 0, dy).sum(axis=(0, 2, 3))
    for got, want in ((y, want_y), (dx, want_dx), (dw, want_dw), (db, want_db)):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(want))
    np.testing.assert_array_equal(argmax == CLOSED, want_argmax == CLOSED)
