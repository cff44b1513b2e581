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


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(row: table.Row, direction: str) -> tuple[list[float], list[float]]:
    """
    Time one pass on one worker.

    Returns
    -------
    plain, recorded : list of float
        Seconds, of runs that took turns; the X-ray's with its sanitiser and all its counts.
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
        plain()  # what is compiled and loaded stays out
        recorded()
        pairs = [(_seconds(plain), _seconds(recorded)) for _ in range(REPEATS)]
    first, second = zip(*pairs, strict=True)
    return list(first), list(second)


def _row(name: str, direction: str, plain: float, traced: float) -> str:
    return f"{name:18} {direction:16} {plain:9.4f} {traced:9.4f} {traced / plain:6.1f}x"


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
                if row.refuses(direction, SHAPE, "float32"):
                    continue
                results.append((row.name, direction, *measure(row, direction)))
    except emulator.EmulatorError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        keys = ("kernel", "pass", "plain_seconds", "xray_seconds")
        rows = [dict(zip(keys, result, strict=True)) for result in results]
        print(json.dumps({"shape": SHAPE._asdict(), "passes": rows}))
        return 0
    print(f"{'kernel':18} {'pass':16} {'plain s':>9} {'X-ray s':>9} {'ratio':>7} {'all turns':>13}")
    for name, direction, plain, traced in results:
        ratios = [b / a for a, b in zip(plain, traced, strict=True)]
        print(
            f"{_row(name, direction, min(plain), min(traced))} "
            f"{min(ratios):5.1f}x-{max(ratios):5.1f}x"
        )
    total = [sum(map(min, seconds)) for seconds in list(zip(*results, strict=True))[2:]]
    print(_row("all", "", *total))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
