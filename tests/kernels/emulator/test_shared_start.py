"""Shared memory starts as NaN in every block, the very first of a thread among them."""

import numpy as np
import pytest

from kernels import emulator

DECLARED = {
    "static": "__shared__ float tile[32];",
    "dynamic": "extern __shared__ float tile[];",
}


@pytest.mark.parametrize("kind", DECLARED)
def test_shared_memory_starts_as_nan(kind, tmp_path):
    path = tmp_path / f"{kind}.cu"
    path.write_text(
        f"""extern "C" __global__ void reads_first(float* y) {{
            {DECLARED[kind]}
            y[blockIdx.x * 32 + threadIdx.x] = tile[threadIdx.x];
            tile[threadIdx.x] = 7;
        }}"""
    )
    y = np.zeros(96, np.float32)
    with emulator.settings(workers=1):
        fn = emulator.load(path).get_function("reads_first")
        fn((3,), (32,), (y,), shared_mem=128 if kind == "dynamic" else 0)
    assert np.isnan(y).all()
