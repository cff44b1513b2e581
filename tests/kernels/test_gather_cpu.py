import numpy as np
import pytest

from kernels.training.gather_cpu import gather


@pytest.mark.parametrize("count", [0, 1, 37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_what_numpy_takes(count, dtype):
    rng = np.random.default_rng(count)
    images = rng.standard_normal((50, 1, 7, 9)).astype(dtype)
    indices = rng.integers(0, 50, count)
    got = gather(images, indices)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, images[indices])


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_index_without_an_image_is_refused(wrong):
    with pytest.raises(IndexError, match="expected 0 to 2"):
        gather(np.ones((3, 1, 2, 2), np.float32), np.array([0, wrong]))
