"""Times one kernel on the emulator and on Numba's CUDA simulator: python -m kernels.emulator."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from . import EmulatorError, load

HERE = Path(__file__).resolve().parent
TILE, FILTER = 16, 5  # as in benchmark_numba.py
REPEATS = 7


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the correlation of plane x with filter w, VALID, in float64."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), w.shape)
    return np.asarray(np.einsum("pqrs,rs->pq", windows, w.astype(np.float64)))


def check(what: str, y: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    """Raise EmulatorError where a result is off by more than its sum's rounding can be."""
    bound = (w.size + 1) * 2.0**-24 * expected(abs(x), abs(w))
    if not np.all(abs(y - expected(x, w)) <= bound):
        raise EmulatorError(f"{what}: the result is wrong")


def time_emulator(x: np.ndarray, w: np.ndarray) -> float:
    """Return the median seconds of a launch; compiling stays out."""
    fn = load(HERE / "benchmark.cu", {"TILE": TILE, "FILTER": FILTER}).get_function("conv2d_tiled")
    p, q = x.shape[0] - FILTER + 1, x.shape[1] - FILTER + 1
    y = np.full((p, q), np.nan, np.float32)
    grid = (-(-q // TILE), -(-p // TILE))
    sizes = tuple(np.int32(n) for n in (*x.shape, p, q))
    fn(grid, (TILE, TILE), (x, w, y, *sizes))  # the first starts the workers
    samples = []
    for _ in range(REPEATS):
        y.fill(np.nan)
        start = time.perf_counter()
        fn(grid, (TILE, TILE), (x, w, y, *sizes))
        samples.append(time.perf_counter() - start)
    check("emulator", y, x, w)
    return statistics.median(samples)


def time_simulator(x: np.ndarray, w: np.ndarray) -> float:
    """Return the seconds of one launch on Numba's simulator, in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "data.npz")
        np.savez(path, x=x, w=w)
        done = subprocess.run(
            [sys.executable, str(HERE / "benchmark_numba.py"), path],
            capture_output=True,
            text=True,
            env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        )
        if done.returncode:
            raise EmulatorError(f"Numba's simulator fails: {done.stderr.strip()[-500:]}")
        check("simulator", np.load(path + ".y.npy"), x, w)
        return float(json.loads(done.stdout)["seconds"])


def main() -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kernels.emulator", description=__doc__)
    parser.add_argument("--size", type=int, default=96, help="height and width of the image")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if options.size < FILTER:
        parser.error(f"--size is {options.size}; expected at least {FILTER}")
    random = np.random.default_rng(0)
    x = random.standard_normal((options.size, options.size)).astype(np.float32)
    w = random.standard_normal((FILTER, FILTER)).astype(np.float32)
    try:
        emulator, simulator = time_emulator(x, w), time_simulator(x, w)
    except EmulatorError as error:
        print(error, file=sys.stderr)
        return 1
    ratio = simulator / emulator
    if options.json:
        result = {
            "size": options.size,
            "filter": FILTER,
            "tile": TILE,
            "emulator_seconds": emulator,
            "simulator_seconds": simulator,
            "ratio": ratio,
        }
        print(json.dumps(result))
        return 0
    print(f"tiled convolution, {options.size} x {options.size}, filter {FILTER} x {FILTER}")
    print(f"  emulator (median of {REPEATS})  {emulator:12.6f} s")
    print(f"  Numba's simulator      {simulator:12.6f} s")
    print(f"  ratio                  {ratio:12.0f} x")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
