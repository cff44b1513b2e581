import re
import subprocess
import sys
import types

import numpy as np
import pytest

import kernels
from kernels import checks, workspace


def test_the_public_names_stay_what_they_are_when_kernels_are_imported():
    # The package of conv2d's kernels must not take the function's place (kernels.conv2d).
    code = """
import importlib, kernels, kernels.table
before = [getattr(kernels, name) for name in kernels.__all__]
for row in kernels.table.rows():
    if row.name == "reference":
        importlib.import_module(row.module)
assert [getattr(kernels, name) for name in kernels.__all__] == before
assert all(map(callable, before))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def ones(*dims, dtype=np.float32):
    return np.ones(dims, dtype)


# What goes right


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shapes_and_dtype_are_kept(dtype):
    x, w, b = ones(2, 3, 7, 8, dtype=dtype), ones(4, 3, 3, 2, dtype=dtype), ones(4, dtype=dtype)
    how = {"stride": (2, 1), "padding": ((1, 0), (0, 1)), "dilation": (1, 2)}
    run = {**how, "kernel": "reference"}
    y = kernels.conv2d(x, w, b, **run)
    assert (y.shape, y.dtype) == ((2, 4, 3, 7), dtype)
    results = [
        (kernels.conv2d(x, w, **run), y.shape),
        (kernels.conv2d_backward_data(y, w, x.shape, **run), x.shape),
        (kernels.conv2d_backward_filter(x, y, w.shape, **run), w.shape),
        (kernels.conv2d_backward_bias(y, kernel="reference"), (4,)),
    ]
    pool = {"size": 2, "stride": (1, 3), "padding": ((0, 1), (1, 0)), "kernel": "reference"}
    pooled, argmax = kernels.max_pool2d(x, return_argmax=True, **pool)
    assert (argmax.shape, argmax.dtype) == ((2, 3, 7, 3), np.int32)
    results += [
        (pooled, (2, 3, 7, 3)),
        (kernels.max_pool2d(x, **pool), (2, 3, 7, 3)),
        (kernels.max_pool2d_backward(pooled, argmax, x.shape, **pool), x.shape),
        (kernels.avg_pool2d(x, **pool), (2, 3, 7, 3)),
        (kernels.avg_pool2d_backward(pooled, x.shape, **pool), x.shape),
    ]
    for result, dims in results:
        assert (result.shape, result.dtype) == (dims, dtype)
        assert result.flags.c_contiguous


def test_an_empty_batch_gives_an_empty_result_or_a_gradient_of_0():
    x, w, dy = ones(0, 3, 5, 5), ones(4, 3, 3, 3), ones(0, 4, 3, 3)
    run = {"kernel": "reference"}
    assert kernels.conv2d(x, w, ones(4), **run).shape == (0, 4, 3, 3)
    assert kernels.conv2d_backward_data(dy, w, x.shape, **run).shape == x.shape
    dw = kernels.conv2d_backward_filter(x, dy, w.shape, **run)
    assert np.array_equal(dw, np.zeros_like(w))
    db = kernels.conv2d_backward_bias(dy, **run)
    assert np.array_equal(db, np.zeros(4))
    assert db.dtype == dw.dtype == np.float32
    y, argmax = kernels.max_pool2d(x, return_argmax=True, **run)
    assert y.shape == argmax.shape == (0, 3, 2, 2)
    assert kernels.max_pool2d_backward(y, argmax, x.shape, **run).shape == x.shape
    assert kernels.avg_pool2d(x, **run).shape == (0, 3, 2, 2)
    assert kernels.avg_pool2d_backward(y, x.shape, **run).shape == x.shape


def test_inputs_are_left_alone():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(d) for d in [(2, 3, 6, 6), (4, 3, 3, 3), (4,), (2, 4, 4, 4)]]
    x, w, b, dy = arrays
    copies = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False
    run = {"kernel": "reference"}
    kernels.conv2d(x, w, b, **run)
    kernels.conv2d_backward_data(dy, w, x.shape, **run)
    kernels.conv2d_backward_filter(x, dy, w.shape, **run)
    kernels.conv2d_backward_bias(dy, **run)
    kernels.max_pool2d(x, **run)
    kernels.avg_pool2d(x, **run)
    assert all(np.array_equal(a, c) for a, c in zip(arrays, copies, strict=True))


def test_x_shape_may_be_a_list_of_numpy_integers():
    dx = kernels.conv2d_backward_data(
        ones(1, 1, 2, 2), ones(1, 1, 3, 3), [np.int32(1), 1, np.int64(4), 4], kernel="reference"
    )
    assert dx[0, 0, 1].tolist() == [2, 4, 4, 2]


@pytest.mark.parametrize("operation", ["conv2d", "max_pool2d", "avg_pool2d"])
def test_auto_is_cpu_on_the_host(operation):
    assert kernels.table.find(operation, "auto", like=ones(1)).name == "cpu"
    assert kernels.table.find(operation, "auto").name == "cpu"


def test_auto_is_what_runs_when_no_kernel_is_named(monkeypatch):
    asked = []
    find = kernels.table.find

    def spy(operation, name, like=None):
        asked.append((operation, name))
        return find(operation, "reference", like)

    monkeypatch.setattr(kernels.table, "find", spy)
    x, w, dy = ones(1, 1, 4, 4), ones(1, 1, 3, 3), ones(1, 1, 2, 2)
    kernels.conv2d(x, w)
    kernels.conv2d_backward_data(dy, w, x.shape)
    kernels.conv2d_backward_filter(x, dy, w.shape)
    kernels.conv2d_backward_bias(dy)
    y, argmax = kernels.max_pool2d(x, return_argmax=True)
    kernels.max_pool2d_backward(y, argmax, x.shape)
    kernels.avg_pool2d(x)
    kernels.avg_pool2d_backward(y, x.shape)
    assert asked == [
        *[("conv2d", "auto")] * 4, *[("max_pool2d", "auto")] * 2, *[("avg_pool2d", "auto")] * 2
    ]  # fmt: skip


def test_workspace_limit_holds_inside_its_block_only():
    before = workspace.limit()
    assert before == workspace.DEFAULT_LIMIT == 256 * 2**20
    with kernels.workspace_limit(5):
        assert workspace.limit() == 5
        with kernels.workspace_limit(0):
            assert workspace.limit() == 0
        assert workspace.limit() == 5
    with pytest.raises(KeyError), kernels.workspace_limit(7):
        raise KeyError
    assert workspace.limit() == before


def test_a_workspace_that_does_not_fit_is_told():
    with kernels.workspace_limit(1000):
        error = workspace.refuse("conv2d", "im2col_gemm", 123456, "one image")
    assert str(error) == (
        "conv2d: kernel 'im2col_gemm' needs 123,456 bytes of workspace for one image but the limit "
        "is 1,000; raise it with kernels.workspace_limit(...) or use kernel='tiled'"
    )


# Bad input. X and W are right: 1 image of 1 channel, 2 filters of 3x3.

X, W, B, DY = ones(1, 1, 6, 6), ones(2, 1, 3, 3), ones(2), ones(1, 2, 4, 4)
POOLED = ones(1, 1, 3, 3)
ARGMAX = np.zeros((1, 1, 3, 3), np.int32)


def conv(x=X, w=W, b=None, **how):
    return lambda: kernels.conv2d(x, w, b, kernel=how.pop("kernel", "reference"), **how)


def data(dy=DY, w=W, x_shape=X.shape, **how):
    return lambda: kernels.conv2d_backward_data(dy, w, x_shape, kernel="reference", **how)


def bank(x=X, dy=DY, w_shape=W.shape, **how):
    return lambda: kernels.conv2d_backward_filter(x, dy, w_shape, kernel="reference", **how)


def bias(dy=DY):
    return lambda: kernels.conv2d_backward_bias(dy, kernel="reference")


def pool(x=X, size=2, **how):
    return lambda: kernels.max_pool2d(x, size, kernel="reference", **how)


def average(x=X, size=2, **how):
    return lambda: kernels.avg_pool2d(x, size, kernel="reference", **how)


def pool_back(dy=POOLED, argmax=ARGMAX, x_shape=X.shape, size=2, **how):
    return lambda: kernels.max_pool2d_backward(dy, argmax, x_shape, size, kernel="reference", **how)


def average_back(dy=POOLED, x_shape=X.shape, size=2, **how):
    return lambda: kernels.avg_pool2d_backward(dy, x_shape, size, kernel="reference", **how)


def limit(nbytes):
    def enter():
        with kernels.workspace_limit(nbytes):
            pass

    return enter


def unaligned(*dims):
    count = int(np.prod(dims))
    return np.frombuffer(bytes(4 * count + 1), np.float32, count, offset=1).reshape(dims)


PAIR = "expected an int or (vertical, horizontal)"
PADDING = (
    "expected an int, (vertical, horizontal), ((top, bottom), (left, right)), 'valid' or 'same'"
)
FLOATS = "expected float32 or float64"
ARRAY = "expected a NumPy or CuPy array"
HELD = "expected every window to hold an input element: use less padding"

BAD = [
    # dtype
    (conv(x=X.astype(int)), TypeError, f"conv2d: x is int64; {FLOATS}: x.astype('float32')"),
    (conv(x=X.astype("f2")), TypeError, f"conv2d: x is float16; {FLOATS}: x.astype('float32')"),
    (conv(x=X.astype(">f4")), TypeError, f"conv2d: x is >f4; {FLOATS}: x.astype('float32')"),
    (conv(w=W.astype(">f4")), TypeError, f"conv2d: w is >f4; {FLOATS}: w.astype('float32')"),
    (conv(w=W.astype("c8")), TypeError, f"conv2d: w is complex64; {FLOATS}: w.astype('float32')"),
    (conv(x=X.astype(bool)), TypeError, f"conv2d: x is bool; {FLOATS}: x.astype('float32')"),
    (conv(x=X.astype(object)), TypeError, f"conv2d: x is object; {FLOATS}: x.astype('float32')"),
    (pool(x=X.astype("u1")), TypeError, f"max_pool2d: x is uint8; {FLOATS}: x.astype('float32')"),
    (average(x=X.astype("i2")), TypeError,
     f"avg_pool2d: x is int16; {FLOATS}: x.astype('float32')"),
    (bias(DY.astype("f2")), TypeError,
     f"conv2d_backward_bias: dy is float16; {FLOATS}: dy.astype('float32')"),
    (conv(w=W.astype("f8")), TypeError, "conv2d: w is float64 but the first array is float32; all "
     "arrays of a call share one dtype: w.astype('float32')"),
    (conv(b=B.astype("f8")), TypeError, "conv2d: b is float64 but the first array is float32; all "
     "arrays of a call share one dtype: b.astype('float32')"),
    (data(dy=DY.astype("f8")), TypeError, "conv2d_backward_data: w is float32 but the first array "
     "is float64; all arrays of a call share one dtype: w.astype('float64')"),
    (bank(dy=DY.astype("f8")), TypeError, "conv2d_backward_filter: dy is float64 but the first "
     "array is float32; all arrays of a call share one dtype: dy.astype('float32')"),
    # no array
    (conv(x=X.tolist()), TypeError,
     f"conv2d: x is list; {ARRAY}: numpy.asarray(x, dtype=numpy.float32)"),
    (conv(w=None), TypeError,
     f"conv2d: w is NoneType; {ARRAY}: numpy.asarray(w, dtype=numpy.float32)"),
    (conv(b=0.5), TypeError, f"conv2d: b is float; {ARRAY}: numpy.asarray(b, dtype=numpy.float32)"),
    (pool(x=np.float32(1)), TypeError,
     f"max_pool2d: x is float32; {ARRAY}: numpy.asarray(x, dtype=numpy.float32)"),
    # rank
    (conv(x=X[0]), ValueError,
     "conv2d: x has 3 dimensions, shape (1, 6, 6); expected (N, C, H, W)"),
    (conv(w=W[0, 0]), ValueError,
     "conv2d: w has 2 dimensions, shape (3, 3); expected (K, C, R, S)"),
    (conv(b=ones(2, 1)), ValueError, "conv2d: b has 2 dimensions, shape (2, 1); expected (K)"),
    (data(dy=DY[0]), ValueError,
     "conv2d_backward_data: dy has 3 dimensions, shape (2, 4, 4); expected (N, K, P, Q)"),
    (bias(B), ValueError,
     "conv2d_backward_bias: dy has 1 dimensions, shape (2,); expected (N, K, P, Q)"),
    (average(x=X[None]), ValueError,
     "avg_pool2d: x has 5 dimensions, shape (1, 1, 1, 6, 6); expected (N, C, H, W)"),
    (pool_back(dy=POOLED[0]), ValueError,
     "max_pool2d_backward: dy has 3 dimensions, shape (1, 3, 3); expected (N, C, P, Q)"),
    (data(x_shape=(1, 6, 6)), ValueError,
     "conv2d_backward_data: x shape is (1, 6, 6); expected (N, C, H, W)"),
    (bank(w_shape=9), ValueError, "conv2d_backward_filter: w shape is 9; expected (K, C, R, S)"),
    # layout
    (conv(x=X.transpose(0, 1, 3, 2)), ValueError,
     "conv2d: x of shape (1, 1, 6, 6) is not C-contiguous; pass ascontiguousarray(x)"),
    (conv(w=ones(2, 1, 3, 6)[..., ::2]), ValueError,
     "conv2d: w of shape (2, 1, 3, 3) is not C-contiguous; pass ascontiguousarray(w)"),
    (conv(b=ones(4)[::2]), ValueError,
     "conv2d: b of shape (2,) is not C-contiguous; pass ascontiguousarray(b)"),
    (data(dy=np.broadcast_to(np.float32(1), DY.shape)), ValueError,
     "conv2d_backward_data: dy of shape (1, 2, 4, 4) is not C-contiguous; pass "
     "ascontiguousarray(dy)"),
    (pool_back(argmax=ARGMAX.transpose(0, 1, 3, 2)), ValueError,
     "max_pool2d_backward: argmax of shape (1, 1, 3, 3) is not C-contiguous; pass "
     "ascontiguousarray(argmax)"),
    (conv(x=unaligned(1, 1, 6, 6)), ValueError,
     "conv2d: x of shape (1, 1, 6, 6) is not aligned to its 4-byte elements; pass x.copy()"),
    # channels, bias
    (conv(w=ones(2, 3, 5, 7)), ValueError,
     "conv2d: w has C=3 but x has C=1; expected w of shape (K, 1, 5, 7)"),
    (data(x_shape=(1, 4, 6, 6)), ValueError,
     "conv2d_backward_data: w has C=1 but x has C=4; expected w of shape (K, 4, 3, 3)"),
    (bank(w_shape=(2, 4, 3, 3)), ValueError,
     "conv2d_backward_filter: w has C=4 but x has C=1; expected w of shape (K, 1, 3, 3)"),
    (conv(b=ones(3)), ValueError,
     "conv2d: b has shape (3,); expected (2,) (one for each filter)"),
    # empty extents
    (conv(x=ones(1, 0, 6, 6)), ValueError, "conv2d: C of x shape is 0; expected at least 1"),
    (conv(w=ones(0, 1, 3, 3)), ValueError, "conv2d: K of w shape is 0; expected at least 1"),
    (conv(w=ones(2, 1, 0, 3)), ValueError, "conv2d: R of w shape is 0; expected at least 1"),
    (conv(w=ones(2, 1, 3, 0)), ValueError, "conv2d: S of w shape is 0; expected at least 1"),
    (pool(x=ones(1, 1, 0, 6)), ValueError, "max_pool2d: H of x shape is 0; expected at least 1"),
    (bias(ones(1, 2, 4, 0)), ValueError,
     "conv2d_backward_bias: Q of dy shape is 0; expected at least 1"),
    (data(x_shape=(1, 1, 6.0, 6)), TypeError,
     "conv2d_backward_data: H of x shape is 6.0 (float); expected an int"),
    (data(x_shape=(-1, 1, 6, 6)), ValueError,
     "conv2d_backward_data: N of x shape is -1; expected at least 0"),
    # stride, dilation, size
    (conv(stride=0), ValueError, "conv2d: stride is 0; expected at least 1"),
    (conv(stride=(1, -2)), ValueError, "conv2d: stride is -2; expected at least 1"),
    (conv(stride=1.5), TypeError, f"conv2d: stride is 1.5 (float); {PAIR}"),
    (conv(stride=True), TypeError, f"conv2d: stride is True (bool); {PAIR}"),
    (conv(stride=(np.True_, 1)), TypeError, f"conv2d: stride is np.True_ (bool); {PAIR}"),
    (conv(stride=None), TypeError, f"conv2d: stride is None (NoneType); {PAIR}"),
    (conv(stride=(1, 2, 3)), ValueError, f"conv2d: stride has 3 values, (1, 2, 3); {PAIR}"),
    (conv(stride=2**40), ValueError,
     f"conv2d: stride is {2**40}; kernels index with 32 bits, expected at most "
     f"{checks.INDEX_LIMIT}"),
    (conv(dilation=0), ValueError, "conv2d: dilation is 0; expected at least 1"),
    (conv(dilation=-1), ValueError, "conv2d: dilation is -1; expected at least 1"),
    (conv(dilation=(1, 2.0)), TypeError, f"conv2d: dilation is 2.0 (float); {PAIR}"),
    (conv(dilation=False), TypeError, f"conv2d: dilation is False (bool); {PAIR}"),
    (data(stride=0), ValueError, "conv2d_backward_data: stride is 0; expected at least 1"),
    (bank(dilation=0), ValueError, "conv2d_backward_filter: dilation is 0; expected at least 1"),
    (pool(size=0), ValueError, "max_pool2d: size is 0; expected at least 1"),
    (pool(size=(2, -1)), ValueError, "max_pool2d: size is -1; expected at least 1"),
    (average(size=2.0), TypeError, f"avg_pool2d: size is 2.0 (float); {PAIR}"),
    (average(size=True), TypeError, f"avg_pool2d: size is True (bool); {PAIR}"),
    (average(size="2"), TypeError, f"avg_pool2d: size is '2' (str); {PAIR}"),
    (pool(stride=0), ValueError, "max_pool2d: stride is 0; expected at least 1"),
    (pool_back(stride=-1), ValueError, "max_pool2d_backward: stride is -1; expected at least 1"),
    (average_back(size=0), ValueError, "avg_pool2d_backward: size is 0; expected at least 1"),
    # padding
    (conv(padding=-1), ValueError, "conv2d: padding is -1; expected at least 0"),
    (conv(padding=((0, 0), (0, -3))), ValueError, "conv2d: padding is -3; expected at least 0"),
    (conv(padding="full"), ValueError, f"conv2d: padding is 'full'; {PADDING}"),
    (conv(padding=1.0), TypeError, f"conv2d: padding is 1.0 (float); {PADDING}"),
    (conv(padding=True), TypeError, f"conv2d: padding is True (bool); {PADDING}"),
    (conv(padding=None), TypeError, f"conv2d: padding is None (NoneType); {PADDING}"),
    (conv(padding=()), ValueError, f"conv2d: padding is (); {PADDING}"),
    (conv(padding=(1, 1, 1, 1)), ValueError, f"conv2d: padding is (1, 1, 1, 1); {PADDING}"),
    (conv(padding=(1, (1, 1))), ValueError, f"conv2d: padding is (1, (1, 1)); {PADDING}"),
    (conv(padding=((1, 1), (1,))), ValueError, f"conv2d: padding is ((1, 1), (1,)); {PADDING}"),
    (conv(padding=((1, 1, 1), (1, 1))), ValueError,
     f"conv2d: padding is ((1, 1, 1), (1, 1)); {PADDING}"),
    (pool(padding="SAMES"), ValueError, f"max_pool2d: padding is 'SAMES'; {PADDING}"),
    # larger than the padded input
    (conv(w=ones(2, 1, 7, 3)), ValueError,
     "conv2d: the filter spans 7 rows but the padded input has 6 (6 + padding 0 + 0); use a "
     "smaller one or more padding"),
    (conv(w=ones(2, 1, 3, 10), padding=((0, 0), (1, 2))), ValueError,
     "conv2d: the filter spans 10 columns but the padded input has 9 (6 + padding 1 + 2); use a "
     "smaller one or more padding"),
    (conv(dilation=(1, 3)), ValueError,
     "conv2d: the filter with its dilation spans 7 columns but the padded input has 6 (6 + padding "
     "0 + 0); use a smaller one or more padding"),
    (pool(size=(7, 1)), ValueError,
     "max_pool2d: the window spans 7 rows but the padded input has 6 (6 + padding 0 + 0); use a "
     "smaller one or more padding"),
    # windows that are all padding
    (pool(padding=((2, 0), (0, 0))), ValueError,
     f"max_pool2d: padding (2, 0) makes a window of 2 rows all padding "
     f"(input 6, stride 2); {HELD}"),
    (pool(padding=((0, 2), (0, 0))), ValueError,
     f"max_pool2d: padding (0, 2) makes a window of 2 rows all padding "
     f"(input 6, stride 2); {HELD}"),
    (average(padding=((0, 0), (2, 0))), ValueError,
     f"avg_pool2d: padding (2, 0) makes a window of 2 columns all padding (input 6, stride 2); "
     f"{HELD}"),
    (average(padding=((0, 0), (0, 2))), ValueError,
     f"avg_pool2d: padding (0, 2) makes a window of 2 columns all padding (input 6, stride 2); "
     f"{HELD}"),
    (pool(size=1, stride=3, padding=((0, 1), (0, 0))), ValueError,
     f"max_pool2d: padding (0, 1) makes a window of 1 rows all padding "
     f"(input 6, stride 3); {HELD}"),
    (pool_back(padding=2), ValueError,
     f"max_pool2d_backward: padding (2, 2) makes a window of 2 rows all padding (input 6, stride "
     f"2); {HELD}"),
    # sizes past the index limit, from shapes alone
    (data(x_shape=(1, 1, 2**16, 2**15)), ValueError,
     f"conv2d_backward_data: x of shape (1, 1, 65536, 32768) has {2**31} elements; kernels index "
     f"with 32 bits, at most {checks.INDEX_LIMIT}: split the batch"),
    (average_back(x_shape=(2**12, 2**9, 2**5, 2**5)), ValueError,
     f"avg_pool2d_backward: x of shape (4096, 512, 32, 32) has {2**31} elements; kernels index "
     f"with 32 bits, at most {checks.INDEX_LIMIT}: split the batch"),
    # gradients and argmax of the wrong shape
    (data(dy=ones(1, 2, 4, 3)), ValueError,
     "conv2d_backward_data: dy has shape (1, 2, 4, 3); expected (1, 2, 4, 4) (N, K, P, Q) by "
     "x_shape and w"),
    (data(dy=ones(1, 3, 4, 4)), ValueError,
     "conv2d_backward_data: dy has shape (1, 3, 4, 4); expected (1, 2, 4, 4) (N, K, P, Q) by "
     "x_shape and w"),
    (bank(dy=ones(2, 2, 4, 4)), ValueError,
     "conv2d_backward_filter: dy has shape (2, 2, 4, 4); expected (1, 2, 4, 4) (N, K, P, Q) by x "
     "and w_shape"),
    (pool_back(dy=ones(1, 1, 2, 3)), ValueError,
     "max_pool2d_backward: dy has shape (1, 1, 2, 3); expected (1, 1, 3, 3) (N, C, P, Q) by "
     "x_shape and size"),
    (average_back(dy=ones(1, 2, 3, 3)), ValueError,
     "avg_pool2d_backward: dy has shape (1, 2, 3, 3); expected (1, 1, 3, 3) (N, C, P, Q) by "
     "x_shape and size"),
    (pool_back(argmax=ARGMAX.astype(np.int64)), ValueError,
     "max_pool2d_backward: argmax is int64 of shape (1, 1, 3, 3); expected int32 of shape (1, 1, "
     "3, 3), as max_pool2d(..., return_argmax=True) gave it"),
    (pool_back(argmax=ARGMAX[:, :, 1:]), ValueError,
     "max_pool2d_backward: argmax is int32 of shape (1, 1, 2, 3); expected int32 of shape (1, 1, "
     "3, 3), as max_pool2d(..., return_argmax=True) gave it"),
    (pool_back(argmax=None), TypeError,
     "max_pool2d_backward: argmax is NoneType; expected the array that max_pool2d(..., "
     "return_argmax=True) gave"),
    # workspace
    (limit(-1), ValueError, "workspace_limit: got -1; expected a number of bytes >= 0"),
    (limit("1 MB"), TypeError, "workspace_limit: got '1 MB'; expected a number of bytes (int)"),
    (limit(1e6), TypeError, "workspace_limit: got 1000000.0; expected a number of bytes (int)"),
    (limit(True), TypeError, "workspace_limit: got True; expected a number of bytes (int)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input_is_refused_with_a_way_out(call, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        call()


def test_the_inputs_called_right_above_are_right():
    for call in (conv(b=B), data(), bank(), bias(), pool(), average(), pool_back(), average_back()):
        call()


@pytest.mark.parametrize("name", ["fast", "", None, 3])
@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("conv2d", lambda name: kernels.conv2d(X, W, kernel=name)),
        ("conv2d", lambda name: kernels.conv2d_backward_bias(DY, kernel=name)),
        ("max_pool2d", lambda name: kernels.max_pool2d(X, kernel=name)),
        ("avg_pool2d", lambda name: kernels.avg_pool2d_backward(POOLED, X.shape, kernel=name)),
    ],
)
def test_an_unknown_kernel_is_answered_with_the_names_there_are(operation, call, name):
    there = ", ".join(repr(n) for n in ["auto", *kernels.table.names(operation)])
    assert there.startswith("'auto', 'reference', 'cpu'")
    text = f"{operation}: no kernel named {name!r}; there are {there}"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call(name)


def test_an_unknown_kernel_is_refused_for_an_empty_batch_too():
    with pytest.raises(ValueError, match="no kernel named 'fast'"):
        kernels.conv2d(ones(0, 1, 6, 6), W, kernel="fast")


@pytest.fixture
def cupy(monkeypatch):
    """Stand in for CuPy: arrays that are somewhere else, and can do nothing."""
    module = types.ModuleType("cupy")

    class ndarray:  # noqa: N801
        def __init__(self, host, gpu=0):
            self.shape, self.ndim, self.dtype = host.shape, host.ndim, host.dtype
            self.flags = types.SimpleNamespace(c_contiguous=True)
            self.device = types.SimpleNamespace(id=gpu)

    ndarray.__module__ = "cupy"
    module.ndarray = ndarray
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_arrays_in_different_places_are_refused(cupy):
    def refused(call, text):
        with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
            call()

    host, gpu = "host memory (NumPy)", "GPU 0 (CuPy)"
    move = "move one: cupy.asarray(...) or cupy.asnumpy(...)"
    near, far = cupy.ndarray(X), cupy.ndarray(X, gpu=1)
    refused(
        lambda: kernels.conv2d(near, W),
        f"conv2d: w is in {host} but the first array is in {gpu}; {move}",
    )
    refused(
        lambda: kernels.conv2d(X, W, cupy.ndarray(B)),
        f"conv2d: b is in {gpu} but the first array is in {host}; {move}",
    )
    refused(
        lambda: kernels.conv2d(far, cupy.ndarray(W)),
        f"conv2d: w is in {gpu} but the first array is in GPU 1 (CuPy); {move}",
    )
    refused(
        lambda: kernels.max_pool2d_backward(cupy.ndarray(POOLED), ARGMAX, X.shape),
        f"max_pool2d_backward: argmax is in {host} but the first array is in {gpu}; {move}",
    )


def test_a_kernel_of_the_host_refuses_gpu_arrays(cupy):
    there = ", ".join(map(repr, kernels.table.names("conv2d", "gpu")))
    text = (
        "conv2d: kernel 'reference' runs on NumPy arrays only but got a CuPy array; pass "
        f"cupy.asnumpy(...) or choose one of {there}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        kernels.conv2d(cupy.ndarray(X), cupy.ndarray(W), kernel="reference")


def test_auto_on_a_gpu_array_is_a_kernel_that_runs_there(cupy):
    for operation in ("conv2d", "max_pool2d", "avg_pool2d"):
        row = kernels.table.find(operation, "auto", like=cupy.ndarray(X))
        assert "gpu" in row.places
