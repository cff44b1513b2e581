import numpy as np
import pytest

from kernels.training import matmul_cpu
from kernels.training.matmul_cpu import matmul


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("work", [0, matmul_cpu.LEAST_WORK], ids=["threads", "BLAS if small"])
@pytest.mark.parametrize("dims", [(256, 400, 120), (3, 5, 7), (1, 1, 1), (29, 84, 65), (6, 0, 4)])
def test_a_product_of_any_layout_is_within_its_bound(dims, work, dtype, monkeypatch):
    monkeypatch.setattr(matmul_cpu, "LEAST_WORK", work)
    rows, depth, columns = dims
    rng = np.random.default_rng(depth)
    a = rng.standard_normal((rows, depth)).astype(dtype)
    b = rng.standard_normal((depth, columns)).astype(dtype)
    wide = [array.astype(np.longdouble) for array in (a, b)]
    want = wide[0] @ wide[1]
    # n terms, each product and sum rounded once: (n + 1) u times the sum of magnitudes.
    bound = (depth + 1) * np.finfo(dtype).eps / 2 * (abs(wide[0]) @ abs(wide[1]))
    for left in (a, np.ascontiguousarray(a.T).T):
        for right in (b, np.ascontiguousarray(b.T).T):
            out = np.full((rows, columns), np.nan, dtype)
            assert matmul(left, right, out) is out
            assert np.all(abs(out - want) <= bound)
