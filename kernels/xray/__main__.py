"""Times the lab's convolutions on the emulator, plain and X-rayed: python -m kernels.xray."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from kernels import check, compare, emulator, operations, table
from kernels.shapes import Conv2dShape

from .session import recording

SHAPE = Conv2dShape.of((8, 6, 28, 28), (16, 6, 5, 5), padding=2)
REPEATS = 5


def _least(run: Callable[[], None]) -> float:
    run()  # what is compiled and loaded stays out
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure(row: table.Row, direction: str) -> tuple[float, float]:
    """
    Time one pass on one worker.

    Returns
    -------
    plain, recorded : float
        Seconds, the least of several runs; the X-ray's with its sanitiser and all its counts.
    """
    inputs = check.make_inputs("conv2d", direction, SHAPE, "float32", np.random.default_rng(0))
    ((dims, _),) = compare.outputs("conv2d", direction, SHAPE)
    output = np.empty(dims, np.float32)

    def plain() -> None:
        operations.run(row, direction, (*inputs, output), SHAPE)

    def recorded() -> None:
        with recording(outputs=[output]):
            plain()

    with emulator.settings(workers=1):
        return _least(plain), _least(recorded)


def main() -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kernels.xray", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = []
    try:
        for row in table.rows():
            if row.operation != "conv2d" or row.language != "cuda_c":
                continue
            for direction in row.passes:
                results.append((row.name, direction, *measure(row, direction)))
    except emulator.EmulatorError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        keys = ("kernel", "pass", "plain_seconds", "xray_seconds")
        rows = [dict(zip(keys, result, strict=True)) for result in results]
        print(json.dumps({"shape": SHAPE._asdict(), "passes": rows}))
        return 0
    print(f"{'kernel':12} {'pass':16} {'plain s':>9} {'X-ray s':>9} {'ratio':>7}")
    for name, direction, plain, traced in results:
        print(f"{name:12} {direction:16} {plain:9.4f} {traced:9.4f} {traced / plain:6.1f}x")
    plain, traced = sum(one[2] for one in results), sum(one[3] for one in results)
    print(f"{'all':12} {'':16} {plain:9.4f} {traced:9.4f} {traced / plain:6.1f}x")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
