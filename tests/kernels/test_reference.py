import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import Conv2dShape


def conv2d(x, w, b=None, **how):
    return kernels.conv2d(x, w, b, kernel="reference", **how)


def plane(rows):
    return np.array(rows, np.float64)[None, None]


# Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", figures 1.1, 1.5, 1.6.
IMAGE = plane([[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]])
FILTER = plane([[0, 1, 2], [2, 2, 0], [0, 1, 2]])


def test_dumoulin_and_visins_convolution():
    assert conv2d(IMAGE, FILTER)[0, 0].tolist() == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]


def test_dumoulin_and_visins_average_pooling():
    y = kernels.avg_pool2d(IMAGE, 3, stride=1, kernel="reference")
    ninths = [[15, 15, 15], [9, 11, 16], [10, 7, 12]]
    np.testing.assert_allclose(y[0, 0] * 9, ninths, rtol=1e-15)
    # as the figure prints them
    assert np.round(y[0, 0], 1).tolist() == [[1.7, 1.7, 1.7], [1.0, 1.2, 1.8], [1.1, 0.8, 1.3]]


def test_dumoulin_and_visins_max_pooling():
    y = kernels.max_pool2d(IMAGE, 3, stride=1, kernel="reference")
    assert y[0, 0].tolist() == [[3, 3, 3], [3, 3, 3], [3, 2, 3]]


@pytest.mark.parametrize("extent", [5, 6])
def test_dumoulin_and_visins_two_inputs_of_one_output_size(extent):
    # Figures 2.6 and 2.7: 3x3, stride 2, padding 1. Only x_shape tells a gradient which it was.
    x = np.arange(extent**2, dtype=np.float64).reshape(1, 1, extent, extent)
    y = conv2d(x, FILTER, stride=2, padding=1)
    assert y.shape == (1, 1, 3, 3)
    dx = kernels.conv2d_backward_data(
        np.ones_like(y), FILTER, x.shape, stride=2, padding=1, kernel="reference"
    )
    assert dx.shape == x.shape
    # Row 5 of the larger input is read by the last window's bottom row.
    assert dx[0, 0, :5, :5].tolist() == (
        kernels.conv2d_backward_data(
            np.ones_like(y), FILTER, (1, 1, 5, 5), stride=2, padding=1, kernel="reference"
        )[0, 0].tolist()
    )


def test_it_is_cross_correlation_and_the_filter_is_not_flipped():
    x = plane([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    w = plane([[1, 2], [3, 4]])
    assert conv2d(x, w)[0, 0].tolist() == [[4, 3], [2, 1]]


def test_dilation_and_stride_by_hand():
    x = plane(np.arange(35).reshape(5, 7))
    w = plane([[1, 10], [100, 1000]])
    # taps at (0,0), (0,3), (2,0), (2,3); windows at rows 0 and 2, columns 0 and 3
    want = [
        [0 + 10 * 3 + 100 * 14 + 1000 * 17, 3 + 10 * 6 + 100 * 17 + 1000 * 20],
        [14 + 10 * 17 + 100 * 28 + 1000 * 31, 17 + 10 * 20 + 100 * 31 + 1000 * 34],
    ]
    assert conv2d(x, w, stride=(2, 3), dilation=(2, 3))[0, 0].tolist() == want


def test_asymmetric_padding_by_hand():
    x = plane([[1, 2]])
    w = plane([[1, 10], [100, 1000]])
    y = conv2d(x, w, padding=((1, 0), (0, 2)))
    assert y[0, 0].tolist() == [[2100, 200, 0]]
    y = conv2d(x, w, padding=((0, 1), (2, 0)))
    assert y[0, 0].tolist() == [[0, 10, 21]]


def test_channels_filters_and_bias_by_hand():
    x = np.array([[[[1.0]], [[2.0]], [[3.0]]], [[[4.0]], [[5.0]], [[6.0]]]])  # 2 images, 3 channels
    w = np.array([[1.0, 10.0, 100.0], [0.0, -1.0, 1.0]]).reshape(2, 3, 1, 1)
    b = np.array([1000.0, 0.5])
    assert conv2d(x, w, b).reshape(2, 2).tolist() == [[1321, 1.5], [1654, 1.5]]


def integers(rng, *dims):
    """Whole numbers, so that every sum is exact."""
    return rng.integers(-4, 5, dims).astype(np.float64)


def by_the_formula(x, w, b, shape):
    """Work out one output after another as DESIGN writes it, with plain loops."""
    y = np.empty(shape.output_shape)
    for n, k, p, q in np.ndindex(*shape.output_shape):
        total = b[k]
        for c, r, s in np.ndindex(shape.c, shape.r, shape.s):
            h = p * shape.stride_h - shape.pad_top + r * shape.dilation_h
            v = q * shape.stride_w - shape.pad_left + s * shape.dilation_w
            if 0 <= h < shape.h and 0 <= v < shape.w:
                total += x[n, c, h, v] * w[k, c, r, s]
        y[n, k, p, q] = total
    return y


HOWS = [
    {},
    {"stride": (2, 3)},
    {"padding": ((2, 0), (1, 3))},
    {"dilation": (2, 1)},
    {"stride": (1, 2), "padding": "same", "dilation": (1, 2)},
    {"stride": (3, 2), "padding": ((0, 2), (3, 1)), "dilation": (2, 3)},
]


@pytest.mark.parametrize("how", HOWS)
def test_agrees_with_the_formula_in_plain_loops(how):
    rng = np.random.default_rng(1)
    x, w, b = integers(rng, 2, 3, 6, 8), integers(rng, 4, 3, 3, 2), integers(rng, 4)
    shape = Conv2dShape.of(x.shape, w.shape, **how)
    assert np.array_equal(conv2d(x, w, b, **how), by_the_formula(x, w, b, shape))


def test_the_lectures_im2col():
    rng = np.random.default_rng(2)
    x, w = integers(rng, 1, 3, 5, 5), integers(rng, 32, 3, 3, 3)
    windows = [
        x[0, :, p : p + 3, q : q + 3].ravel() for p, q in itertools.product(range(3), repeat=2)
    ]
    x_col, w_row = np.stack(windows, axis=1), w.reshape(32, -1)
    assert x_col.shape == (27, 9)
    assert w_row.shape == (32, 27)
    assert np.array_equal((w_row @ x_col).reshape(1, 32, 3, 3), conv2d(x, w))


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5), (5, 1)])
@pytest.mark.parametrize(("mode", "pads"), [("valid", 0), ("full", 1)])
def test_agrees_with_scipy(size, mode, pads):
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(3)
    x, w = integers(rng, 2, 3, 7, 6), integers(rng, 4, 3, *size)
    y = conv2d(x, w, padding=(pads * (size[0] - 1), pads * (size[1] - 1)))
    for n, k in np.ndindex(2, 4):
        want = sum(signal.correlate2d(x[n, c], w[k, c], mode) for c in range(3))
        assert np.array_equal(y[n, k], want)


def test_same_agrees_with_scipy():
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(4)
    x, w = integers(rng, 1, 1, 7, 6), integers(rng, 1, 1, 3, 5)
    want = signal.correlate2d(x[0, 0], w[0, 0], "same")
    assert np.array_equal(conv2d(x, w, padding="same")[0, 0], want)


def slope(function, at):
    """Differentiate a scalar function by every element of `at`, centrally."""
    gradient = np.empty_like(at)
    for index in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[index] = 2.0**-10
        gradient[index] = (function(at + step) - function(at - step)) / 2.0**-9
    return gradient


@pytest.mark.parametrize("how", HOWS)
def test_conv2d_gradients_by_finite_differences(how):
    rng = np.random.default_rng(5)
    x, w, b = (rng.standard_normal(d) for d in [(2, 2, 6, 7), (3, 2, 3, 2), (3,)])
    dy = rng.standard_normal(conv2d(x, w, b, **how).shape)

    def loss(x, w, b):
        return np.sum(dy * conv2d(x, w, b, **how))

    dx = kernels.conv2d_backward_data(dy, w, x.shape, kernel="reference", **how)
    dw = kernels.conv2d_backward_filter(x, dy, w.shape, kernel="reference", **how)
    db = kernels.conv2d_backward_bias(dy, kernel="reference")
    close = {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_allclose(dx, slope(lambda a: loss(a, w, b), x), **close)
    np.testing.assert_allclose(dw, slope(lambda a: loss(x, a, b), w), **close)
    np.testing.assert_allclose(db, slope(lambda a: loss(x, w, a), b), **close)


POOLS = [
    {"size": 2},
    {"size": (2, 3), "stride": 1},
    {"size": 3, "stride": (2, 1), "padding": ((1, 0), (0, 2))},
    {"size": 3, "stride": 2, "padding": "same"},
    {"size": (1, 2), "stride": 3},
]


@pytest.mark.parametrize("how", POOLS)
def test_max_pooling_gradient_by_finite_differences(how):
    rng = np.random.default_rng(6)
    x = rng.permutation(2 * 2 * 6 * 7).reshape(2, 2, 6, 7) / 8.0  # no ties near the step

    def pool(a, **more):
        return kernels.max_pool2d(a, kernel="reference", **how, **more)

    y, argmax = pool(x, return_argmax=True)
    dy = rng.standard_normal(y.shape)
    dx = kernels.max_pool2d_backward(dy, argmax, x.shape, kernel="reference", **how)
    np.testing.assert_allclose(dx, slope(lambda a: np.sum(dy * pool(a)), x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", POOLS)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_pooling_gradient_by_finite_differences(how, count_include_pad):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 2, 6, 7))
    how = {**how, "count_include_pad": count_include_pad, "kernel": "reference"}
    dy = rng.standard_normal(kernels.avg_pool2d(x, **how).shape)
    dx = kernels.avg_pool2d_backward(dy, x.shape, **how)
    want = slope(lambda a: np.sum(dy * kernels.avg_pool2d(a, **how)), x)
    np.testing.assert_allclose(dx, want, rtol=0, atol=1e-9)


def test_max_pooling_by_hand():
    x = -plane([[1, 2, 3, 4], [2, 1, 4, 4], [3, 4, 1, 4]])  # padding is no 0 among them
    y, argmax = kernels.max_pool2d(
        x, 2, padding=((0, 1), (0, 0)), kernel="reference", return_argmax=True
    )
    assert y[0, 0].tolist() == [[-1, -3], [-3, -1]]
    assert argmax[0, 0].tolist() == [[0, 2], [8, 10]]
    assert argmax.dtype == np.int32
    dx = kernels.max_pool2d_backward(
        plane([[1, 2], [3, 4]]), argmax, x.shape, 2, padding=((0, 1), (0, 0)), kernel="reference"
    )
    assert dx[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0]]


def test_max_pooling_ties_go_to_the_first_in_row_order():
    x = plane([[0, 7, 7], [7, 7, 7], [7, 0, 7]])
    _, argmax = kernels.max_pool2d(x, 2, stride=1, kernel="reference", return_argmax=True)
    assert argmax[0, 0].tolist() == [[1, 1], [3, 4]]


def test_max_pooling_overlapping_windows_add_their_gradients():
    x = plane([[0, 0, 0], [0, 9, 0], [0, 0, 0]])
    _, argmax = kernels.max_pool2d(x, 2, stride=1, kernel="reference", return_argmax=True)
    dy = plane([[1, 10], [100, 1000]])
    dx = kernels.max_pool2d_backward(dy, argmax, x.shape, 2, stride=1, kernel="reference")
    assert dx[0, 0].tolist() == [[0, 0, 0], [0, 1111, 0], [0, 0, 0]]


def test_a_nan_is_its_windows_maximum():
    x = plane([[1, np.nan, 3, 4], [5, np.inf, np.nan, np.nan]])
    y, argmax = kernels.max_pool2d(x, 2, kernel="reference", return_argmax=True)
    assert np.isnan(y).all()
    assert argmax[0, 0].tolist() == [[1, 6]]


def test_max_pooling_keeps_planes_apart():
    x = np.arange(2 * 3 * 2 * 2, dtype=np.float64).reshape(2, 3, 2, 2)
    y, argmax = kernels.max_pool2d(x, 2, kernel="reference", return_argmax=True)
    assert y.ravel().tolist() == [3, 7, 11, 15, 19, 23]
    assert set(argmax.ravel().tolist()) == {3}


def test_average_pooling_by_hand():
    x = plane([[6, 12, 18], [24, 30, 36], [42, 48, 54]])
    how = {"size": 2, "padding": ((1, 0), (1, 0)), "kernel": "reference"}
    assert kernels.avg_pool2d(x, **how)[0, 0].tolist() == [[6, 15], [33, 42]]
    counted = kernels.avg_pool2d(x, count_include_pad=True, **how)
    assert counted[0, 0].tolist() == [[1.5, 7.5], [16.5, 42]]
    dy = plane([[4, 8], [12, 16]])
    dx = kernels.avg_pool2d_backward(dy, x.shape, **how)
    assert dx[0, 0].tolist() == [[4, 4, 4], [6, 4, 4], [6, 4, 4]]
    dx = kernels.avg_pool2d_backward(dy, x.shape, count_include_pad=True, **how)
    assert dx[0, 0].tolist() == [[1, 2, 2], [3, 4, 4], [3, 4, 4]]


extents = st.integers(1, 7)
twos = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(
    dims=st.tuples(st.integers(1, 2), twos, extents, extents),
    bank=st.tuples(twos, twos, twos),
    stride=st.tuples(twos, twos),
    dilation=st.tuples(twos, twos),
    pads=st.tuples(*[st.tuples(st.integers(0, 3), st.integers(0, 3))] * 2),
    seed=st.integers(0, 1000),
)
def test_gradients_are_the_adjoints_of_forward(dims, bank, stride, dilation, pads, seed):
    # <conv(x, w), dy> = <x, dx> = <w, dw>, exactly, on whole numbers
    k, r, s = bank
    if (r - 1) * dilation[0] >= dims[2] + sum(pads[0]):
        return
    if (s - 1) * dilation[1] >= dims[3] + sum(pads[1]):
        return
    rng = np.random.default_rng(seed)
    how = {"stride": stride, "padding": pads, "dilation": dilation}
    x, w = integers(rng, *dims), integers(rng, k, dims[1], r, s)
    y = conv2d(x, w, **how)
    dy = integers(rng, *y.shape)
    dx = kernels.conv2d_backward_data(dy, w, x.shape, kernel="reference", **how)
    dw = kernels.conv2d_backward_filter(x, dy, w.shape, kernel="reference", **how)
    assert np.sum(y * dy) == np.sum(x * dx) == np.sum(w * dw)
