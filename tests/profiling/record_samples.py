"""Record what the tests of `profiling compare` resample: cpu kernels, timed over and over.

    python tests/profiling/record_samples.py

Every round times each kernel some hundred times in a row with the caches overwritten before, as the
benchmark does. The rounds are spread over six minutes, so that two of them differ as two runs do.
Through the second half another process takes a core for one second in four. The convolutions run
in one thread, the pooling in two, which is the noisier.
"""

import atexit
import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np

import kernels

TO = Path(__file__).parent / "data" / "recorded_samples.npz"
ROUNDS, SAMPLES = 12, 500
FLUSH_BYTES = 128 * 2**20
BETWEEN_ROUNDS_S = 2.0
LOAD = """
import time
while True:
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        pass
    time.sleep(3)
"""


def launches():
    """Return what is timed, by name."""
    rng = np.random.default_rng(0)
    x1 = rng.standard_normal((32, 1, 28, 28), dtype=np.float32)
    w1 = rng.standard_normal((6, 1, 5, 5), dtype=np.float32)
    x2 = rng.standard_normal((32, 6, 14, 14), dtype=np.float32)
    w2 = rng.standard_normal((16, 6, 5, 5), dtype=np.float32)
    dy2 = rng.standard_normal((32, 16, 10, 10), dtype=np.float32)
    x3 = rng.standard_normal((32, 6, 28, 28), dtype=np.float32)
    return {
        "conv1 forward": lambda: kernels.conv2d(x1, w1, padding=2, kernel="cpu"),
        "conv2 forward": lambda: kernels.conv2d(x2, w2, kernel="cpu"),
        "conv2 backward_filter": lambda: kernels.conv2d_backward_filter(
            x2, dy2, w2.shape, kernel="cpu"
        ),
        "pool1 forward": lambda: kernels.max_pool2d(x3, kernel="cpu"),
    }


def main():
    """Record and write the file."""
    timed, flush = launches(), np.zeros(FLUSH_BYTES // 8)
    nanoseconds = np.zeros((ROUNDS, len(timed), SAMPLES), np.uint32)
    for launch in timed.values():  # compile
        launch()
    for number in range(ROUNDS):
        if number == ROUNDS // 2:
            atexit.register(subprocess.Popen([sys.executable, "-c", LOAD]).kill)
        for row, launch in zip(nanoseconds[number], timed.values(), strict=True):
            numba.set_num_threads(2 if launch is timed["pool1 forward"] else 1)
            for i in range(SAMPLES):
                flush += 1
                begin = time.perf_counter_ns()
                launch()
                row[i] = time.perf_counter_ns() - begin
        print(number, np.median(nanoseconds[number], axis=1).astype(int), flush=True)
        time.sleep(BETWEEN_ROUNDS_S)
    np.savez_compressed(TO, nanoseconds=nanoseconds, names=np.array(list(timed)))
    print(TO, TO.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
