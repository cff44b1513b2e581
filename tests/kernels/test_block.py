"""The fused block's face and its judge, held against the operations it is made of."""

import numpy as np
import pytest

import kernels
from kernels import cases, check, compare, table
from kernels.conv2d_relu_pool import reference
from kernels.shapes import CLOSED, BlockShape

U32 = compare.UNIT_ROUNDOFF["float32"]

# The windows of the operations it is made of do not overlap the same way in every shape.
SHAPES = cases.fixed("conv2d_relu_pool")


def options(shape):
    return {"stride": shape.stride, "padding": shape.padding, "dilation": shape.dilation}


def draw(rng, *dims):
    return rng.standard_normal(dims)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_convolution_relu_and_max_pool(shape):
    rng = np.random.default_rng(1)
    x, w, b = draw(rng, *shape.input_shape), draw(rng, *shape.filter_shape), draw(rng, shape.k)
    how = options(shape) | {"kernel": "reference"}
    z = np.maximum(kernels.conv2d(x, w, b, **how), 0)
    y, place = kernels.max_pool2d(z, shape.pool, kernel="reference", return_argmax=True)

    got, argmax = kernels.conv2d_relu_pool(x, w, b, pool=shape.pool, return_argmax=True, **how)
    np.testing.assert_array_equal(got, y)
    assert ((argmax == CLOSED) == (y == 0)).all()

    # The pool hands a gradient to the convolution's output, the ReLU passes it where it is open.
    dy = draw(rng, *shape.output_shape)
    dz = kernels.max_pool2d_backward(dy, place, z.shape, shape.pool, kernel="reference") * (z > 0)
    dx = kernels.conv2d_relu_pool_backward_data(dy, argmax, w, x.shape, pool=shape.pool, **how)
    dw = kernels.conv2d_relu_pool_backward_filter(x, dy, argmax, w.shape, pool=shape.pool, **how)
    db = kernels.conv2d_relu_pool_backward_bias(dy, argmax, kernel="reference")
    np.testing.assert_allclose(dx, kernels.conv2d_backward_data(dz, w, x.shape, **how))
    np.testing.assert_allclose(dw, kernels.conv2d_backward_filter(x, dz, w.shape, **how))
    np.testing.assert_allclose(db, dz.sum(axis=(0, 2, 3)), atol=1e-12)


def test_argmax_ties_nan_and_closed_windows():
    z = np.array([[3, 3, -1, 0], [3, 1, 0, -2], [np.nan, 9, 1, 5], [np.nan, 9, 5, 5]])
    y, argmax = kernels.conv2d_relu_pool(
        z[None, None], np.ones((1, 1, 1, 1)), kernel="reference", return_argmax=True
    )
    assert argmax[0, 0].tolist() == [[0, CLOSED], [0, 1]]
    np.testing.assert_array_equal(y[0, 0], [[3, 0], [np.nan, 5]])


def judged(shape, x, w, got):
    return compare.judge_pass("conv2d_relu_pool", "forward", (x, w, None), shape, got, U32)


def test_on_whole_numbers_the_first_of_equal_maxima_must_win():
    shape = BlockShape.of((1, 1, 2, 2), (1, 1, 1, 1))
    x, w = np.full((1, 1, 2, 2), 2, np.float32), np.ones((1, 1, 1, 1), np.float32)
    y = np.full((1, 1, 1, 1), 2, np.float32)
    verdicts = {
        place: all(v.ok for v in judged(shape, x, w, [y, np.full((1, 1, 1, 1), place, np.uint8)]))
        for place in (0, 1, 3, 4, 254, CLOSED)
    }
    assert verdicts == {0: True, 1: False, 3: False, 4: False, 254: False, CLOSED: False}


def test_either_of_two_maxima_within_the_error_may_win_but_no_smaller_one():
    shape = BlockShape.of((1, 1, 2, 2), (1, 1, 1, 1))
    x = np.array([[[[1.5, 1.5 + 2.0**-23], [1.4, -1e-8]]]], np.float32)
    w, y = np.ones((1, 1, 1, 1), np.float32), x.max(axis=(2, 3), keepdims=True)
    verdicts = {
        place: judged(shape, x, w, [y, np.full((1, 1, 1, 1), place, np.uint8)])[1].ok
        for place in (0, 1, 2, 3, 4, CLOSED)
    }
    assert verdicts == {0: True, 1: True, 2: False, 3: False, 4: False, CLOSED: False}


def test_rounded_factors_need_the_bound_that_says_so():
    shape = cases.LENET["block2"]
    rng = np.random.default_rng(2)
    x, w, b = check.make_inputs("conv2d_relu_pool", "forward", shape, "float32", rng)
    x, w = (draw(rng, *a.shape).astype(np.float32) for a in (x, w))
    to_bfloat16 = [(a.view(np.uint32) & 0xFFFF0000).view(np.float32) for a in (x, w)]
    got = list(kernels.conv2d_relu_pool(*to_bfloat16, b, kernel="reference", return_argmax=True))
    args = ("conv2d_relu_pool", "forward", (x, w, b), shape, got, U32)
    assert not compare.judge_pass(*args)[0].ok
    assert all(v.ok for v in compare.judge_pass(*args, 2.0**-8))  # cut off, not rounded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": (16, 16)}, "pool is 16 x 16, 256 elements; expected at most 255"),
        ({"pool": 9}, "the window spans 9 rows but the padded input has 8"),
        ({"pool": 0}, "pool is 0; expected at least 1"),
        ({"kernel": "fastest"}, "no kernel named 'fastest'"),
        ({"b": np.zeros(4, np.float32)}, r"b has shape \(4,\); expected \(3,\)"),
    ],
)
def test_what_a_block_cannot_be(change, message):
    given = {"x": np.zeros((2, 1, 10, 10), np.float32), "w": np.zeros((3, 1, 3, 3), np.float32)}
    with pytest.raises(ValueError, match=f"conv2d_relu_pool: {message}"):
        kernels.conv2d_relu_pool(**(given | change))


@pytest.mark.parametrize(
    ("argmax", "message"),
    [
        (np.zeros((2, 3, 4, 4), np.int32), "argmax is int32 .* expected uint8 of shape"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"expected uint8 of shape \(2, 3, 4, 4\)"),
    ],
)
def test_the_argmax_of_another_operation_is_refused(argmax, message):
    dy, w = np.zeros((2, 3, 4, 4), np.float32), np.zeros((3, 1, 3, 3), np.float32)
    with pytest.raises(ValueError, match=message):
        kernels.conv2d_relu_pool_backward_data(dy, argmax, w, (2, 1, 10, 10))
    with pytest.raises(ValueError, match=message):
        kernels.conv2d_relu_pool_backward_bias(dy, argmax)


def test_an_empty_batch_gives_empty_results_and_gradients_of_zero():
    x, w = np.zeros((0, 1, 10, 10), np.float32), np.zeros((3, 1, 3, 3), np.float32)
    y, argmax = kernels.conv2d_relu_pool(x, w, return_argmax=True)
    assert y.shape == argmax.shape == (0, 3, 4, 4)
    dw = kernels.conv2d_relu_pool_backward_filter(x, y, argmax, w.shape)
    assert dw.shape == w.shape
    assert not dw.any()


def test_a_row_that_refuses_a_shape_says_why_and_the_check_passes_it_over(monkeypatch):
    row = table.find("conv2d", "cpu")

    def refuses(direction, shape, dtype):
        return "takes one channel only" if shape.c > 1 else ""

    monkeypatch.setattr(row.launchers, "refuses", refuses, raising=False)
    x, w = np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 2, 3, 3), np.float32)
    with pytest.raises(ValueError, match="kernel 'cpu' takes one channel only; use kernel='auto'"):
        kernels.conv2d(x, w, kernel="cpu")
    results = list(check.check_row(row, cases.fixed("conv2d")[:3], "cpu"))
    assert {result.shape.c for result in results} == {1}
    assert all(result.ok for result in results)


def test_the_judge_itself_passes_its_check():
    row = table.find("conv2d_relu_pool", "reference")
    results = list(check.check_row(row, SHAPES, "cpu"))
    assert [result.message for result in results if not result.ok] == []
    assert {result.direction for result in results} == set(row.passes)


def test_what_an_argmax_points_to():
    z = np.arange(16.0).reshape(1, 1, 4, 4)
    shape = BlockShape.of((1, 1, 4, 4), (1, 1, 1, 1))
    argmax = np.array([[[[0, 3], [CLOSED, 4]]]], np.uint8)
    np.testing.assert_array_equal(reference.at(z, argmax, shape)[0, 0], [[0, 7], [0, np.nan]])
