"""`benchmark.cu` in Numba's CUDA dialect, for Numba's simulator: run as a child process."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import warnings
from typing import Any

import numpy as np

TILE, FILTER = 16, 5  # as in __main__.py
IN = TILE + FILTER - 1


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*numba.cuda.*")  # that it moves to numba-cuda
    with contextlib.suppress(ImportError):
        importlib.import_module("numba_cuda")  # where it is there, numba.cuda is its
    cuda: Any = importlib.import_module("numba.cuda")


@cuda.jit
def conv2d_tiled(x: Any, w: Any, y: Any, H: int, W: int, P: int, Q: int) -> None:
    """Do the same loads, barrier, sums and stores as the CUDA C kernel."""
    tile = cuda.shared.array((IN, IN), np.float32)
    p0, q0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE

    # Load the tile; outside of the image it is zero.
    for i in range(cuda.threadIdx.y, IN, TILE):
        for j in range(cuda.threadIdx.x, IN, TILE):
            inside = p0 + i < H and q0 + j < W
            tile[i, j] = x[p0 + i, q0 + j] if inside else np.float32(0)
    cuda.syncthreads()  # every thread reads what others loaded

    total = np.float32(0)
    for r in range(FILTER):
        for s in range(FILTER):
            total += tile[cuda.threadIdx.y + r, cuda.threadIdx.x + s] * w[r, s]

    p, q = p0 + cuda.threadIdx.y, q0 + cuda.threadIdx.x
    has_output = p < P and q < Q
    if has_output:
        y[p, q] = total


def main() -> None:
    """Read a .npz of x and w from the first argument; write y beside it and print the seconds."""
    path = sys.argv[1]
    data = np.load(path)
    x, w = data["x"], data["w"]
    p, q = x.shape[0] - FILTER + 1, x.shape[1] - FILTER + 1
    y = np.full((p, q), np.nan, np.float32)
    grid = (-(-q // TILE), -(-p // TILE))
    start = time.perf_counter()
    conv2d_tiled[grid, (TILE, TILE)](x, w, y, *x.shape, p, q)
    seconds = time.perf_counter() - start
    np.save(path + ".y.npy", y)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
