"""No finding on kernels as people write them, whose results are NumPy's."""

from pathlib import Path

import numpy as np
import pytest

from kernels import xray

SOURCE = Path(__file__).with_name("healthy.cu")
N = 150
X = (np.arange(N) * 7 % 61).astype(np.float32)


def record(kernel, *args, grid=(3,), block=(64,), outputs=(), **options):
    recording = xray.record(SOURCE, grid, block, args, kernel=kernel, outputs=outputs, **options)
    assert recording.findings == ()
    return recording


@pytest.mark.parametrize("kernel", ["sums_by_shuffles", "tree_of_sums", "last_steps_by_syncwarp"])
def test_sums(kernel):
    total = np.zeros(1, np.float32)
    record(kernel, X, total, np.int32(N), shared_mem=256 if kernel == "tree_of_sums" else 0)
    assert total[0] == X.sum()


def test_histogram():
    bins = np.zeros(16, np.int32)
    record("histogram", X, bins, np.int32(N))
    np.testing.assert_array_equal(bins, np.bincount(X.astype(int) % 16, minlength=16))


def test_scan():
    y = np.full(50, np.nan, np.float32)
    record("scan", X[:50], y, np.int32(50), grid=(1,), outputs=[y])
    np.testing.assert_array_equal(y, np.cumsum(X[:50]))


def test_product():
    n = 37
    a, b = (np.arange(n * n) % 5).astype(np.float32), (np.arange(n * n) % 7).astype(np.float32)
    c = np.full(n * n, np.nan, np.float32)
    recording = record("product", a, b, c, np.int32(n), grid=(3, 3), block=(16, 16), outputs=[c])
    np.testing.assert_array_equal(c.reshape(n, n), a.reshape(n, n) @ b.reshape(n, n))
    assert recording.flops == 2 * 48**3


def test_copy_by_fours():
    y = np.full(N, np.nan, np.float32)
    record("copy_by_fours", X, y, np.int32(N), outputs=[y])
    np.testing.assert_array_equal(y, X)


def test_structs_in_shared_memory():
    value, index = np.full(1, np.nan, np.float32), np.full(1, -1, np.int32)
    record("largest", X, value, index, np.int32(N), grid=(1,), outputs=[value, index])
    assert value[0] == X.max() == X[index[0]]


def test_bytes():
    x, y = (np.arange(N) % 200).astype(np.uint8), np.zeros(N, np.uint8)
    record("bytes", x, y, np.int32(N), outputs=[y])
    wide = np.pad(x.astype(int), 1)
    np.testing.assert_array_equal(y, (wide[:-2] + wide[1:-1] + wide[2:]) // 3)


def test_local_arrays():
    y = np.full(N, np.nan, np.float32)
    record("local_array", X, y, np.int32(N), outputs=[y])
    np.testing.assert_array_equal(y, [X[(i + np.arange(8)) % N].sum() for i in range(N)])


def test_a_word_read_by_all_and_rewritten():
    y = np.full(N, np.nan, np.float32)
    record("rescaled", X, y, np.int32(N), outputs=[y])
    np.testing.assert_array_equal(y, 2 * X + 5)
