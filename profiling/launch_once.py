"""Run one pass once, for a profiler: ``python -m profiling.launch_once KERNEL SHAPE --pass PASS``.

Everything else (tensors, compilation, warm-up) comes before; the pass alone stands between
cudaProfilerStart and cudaProfilerStop and in the NVTX range "launch_once". The command `ncu` writes
the line that goes with it. Without a GPU the emulator or the simulator runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator

import numpy as np

from kernels import operations, place, plugins, ranges, table
from kernels.shapes import Shape
from profiling.buffers import Buffers, OutOfMemoryError
from profiling.suites import SuiteError, parse_shape

WARM_UP = 3


class TargetError(ValueError):
    """A kernel, pass or shape that cannot be run; the message says what is wanted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what names a launch."""
    plugins.add_argument(parser)
    parser.add_argument("kernel", help="a row's name (python -m kernels list)")
    parser.add_argument(
        "shape",
        help="N,C,H,W,K,R,S[,stride[,padding[,dilation[,pool]]]]; N,C,H,W,size[,stride[,padding]]",
    )
    parser.add_argument("--pass", dest="direction", default="forward", metavar="PASS")
    parser.add_argument(
        "--warm-up", type=int, default=WARM_UP, metavar="N", help=f"passes before it ({WARM_UP})"
    )


def find(args: argparse.Namespace) -> tuple[table.Row, Shape]:
    """Return the row and the shape that were named.

    Raises
    ------
    TargetError
        There is no such kernel for a GPU, it has no such pass, or the shape is none.
    """
    rows = [row for row in table.rows() if "gpu" in row.places]
    row = next((row for row in rows if row.name == args.kernel), None)
    if row is None:
        raise TargetError(
            f"no GPU kernel named {args.kernel!r}; there are {', '.join(row.name for row in rows)}"
        )
    if args.direction not in row.passes:
        raise TargetError(
            f"{row.name} has no pass {args.direction!r}; it has {', '.join(row.passes)}"
        )
    if args.warm_up < 0:
        raise TargetError(f"--warm-up is {args.warm_up}; expected 0 or more")
    try:
        return row, parse_shape(args.shape, row.operation)
    except SuiteError as error:
        raise TargetError(str(error)) from None


def launch(row: table.Row, direction: str, shape: Shape, warm_up: int) -> str:
    """Run a pass on random tensors, the last time for the profiler; return where it ran.

    Raises
    ------
    TargetError
        The tensors do not fit.
    """
    on_gpu = place.gpu_problem() is None
    if on_gpu:
        import cupy as xp
    else:
        xp = np
    try:
        tensors = Buffers(xp, row.operation, direction, shape, 1, np.random.default_rng(0))
    except OutOfMemoryError as error:
        raise TargetError(f"{row.name} {direction}: {error}") from None
    arrays = (*tensors.inputs[0], *tensors.outputs[0])
    with np.errstate(all="ignore"):
        for _ in range(warm_up):
            operations.run(row, direction, arrays, shape)
        with _profiled(xp), ranges.span("launch_once"):
            operations.run(row, direction, arrays, shape)
    return "gpu" if on_gpu else next(where for where in row.places if where != "gpu")


@contextlib.contextmanager
def _profiled(xp: object) -> Iterator[None]:
    if xp is np:
        yield
        return
    from cupy.cuda import Device, runtime

    Device().synchronize()
    runtime.profilerStart()
    try:
        yield
        Device().synchronize()
    finally:
        runtime.profilerStop()


def main(argv: list[str] | None = None) -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m profiling.launch_once", description="Run one pass once, for a profiler."
    )
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        row, shape = find(args)
        where = launch(row, args.direction, shape, args.warm_up)
    except TargetError as error:
        print(f"launch_once: {error}", file=sys.stderr)
        return 2
    print(f"{row.operation} {args.direction} {row.name} ran {args.warm_up} + 1 times ({where})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
