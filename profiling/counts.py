"""The X-ray's counts of memory against Nsight Compute's, for the same passes of the same kernels.

The X-ray counts on the emulator what the source asks for; Nsight Compute counts what the GPU did.
Where they differ by more than --tolerance the compiler did something that the X-ray does not see,
or the X-ray is wrong.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kernels import place, shape_text, table, xray
from kernels.one_line import one_line
from kernels.xray import Recording
from profiling import machine, ncu

KERNELS = ("naive", "tiled", "im2col_gemm")
# LeNet's layers, with few images: the counts of an image are those of all.
SHAPES = ("8,1,28,28,6,5,5,1,2", "8,6,14,14,16,5,5")
PASSES = ("forward", "backward_data", "backward_filter")
TOLERANCE = 0.01
ALL_BLOCKS = 1 << 30

_GLOBAL = "l1tex__t_{what}_pipe_lsu_mem_global_op_{op}.sum"
_SHARED = "l1tex__data_pipe_lsu_wavefronts_mem_shared_op_{op}.sum"
METRICS = {
    **{
        f"global {name} {what}": _GLOBAL.format(what=what, op=op)
        for name, op in (("read", "ld"), ("write", "st"))
        for what in ("requests", "sectors")
    },
    **{
        f"shared {name} wavefronts": _SHARED.format(op=op)
        for name, op in (("read", "ld"), ("write", "st"))
    },
}


class CountsError(ValueError):
    """What was asked cannot be done; the message says why, in one line."""


class Compared(NamedTuple):
    """One figure, counted twice.

    Attributes
    ----------
    kernel, shape, direction, function
        The pass, and which of its launches.
    figure
        ``"global read sectors a request"``, ``"shared write wavefronts"`` ...
    xray, ncu
        The two counts.
    """

    kernel: str
    shape: str
    direction: str
    function: str
    figure: str
    xray: float
    ncu: float

    @property
    def apart(self) -> float:
        """The difference as a share of Nsight Compute's count."""
        return abs(self.xray - self.ncu) / max(self.ncu, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--kernel", action="append", metavar="NAME",
        help=f"CUDA C, may be repeated (default: {', '.join(KERNELS)})",
    )  # fmt: skip
    parser.add_argument(
        "--shape", action="append", metavar="N,C,H,W,K,R,S[,...]",
        help=f"may be repeated (default: {' and '.join(SHAPES)})",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="X",
        help=f"share by which two counts may differ ({TOLERANCE})",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the figures, JSON")


def run(args: argparse.Namespace) -> int:
    """Count both ways, print, and return the exit code: 0 alike, 1 apart, 2 not possible here."""
    problem = ncu.MISSING if shutil.which("ncu") is None else place.gpu_problem()
    if problem:
        print(f"counts: {problem}", file=sys.stderr)
        return 2
    found: list[Compared] = []
    try:
        for name in args.kernel or KERNELS:
            for shape in args.shape or SHAPES:
                for direction in PASSES:
                    found += compare(name, shape, direction)
    except ValueError as error:
        print(f"counts: {one_line(str(error))}", file=sys.stderr)
        return 2
    for one in found:
        mark = "" if one.apart <= args.tolerance else f"  APART by {one.apart:.1%}"
        print(
            f"{one.kernel:12} {one.direction:16} {one.function:32} {one.figure:30} "
            f"X-ray {one.xray:12,.2f}  ncu {one.ncu:12,.2f}{mark}"
        )
    if args.output:
        record = {
            "machine": machine.describe("gpu"), "date": machine.today(),
            "commit": machine.commit()[0], "tolerance": args.tolerance,
            "counts": [{**one._asdict(), "apart": one.apart} for one in found],
        }  # fmt: skip
        args.output.write_text(json.dumps(record) + "\n")
    return 1 if any(one.apart > args.tolerance for one in found) else 0


def compare(name: str, shape: str, direction: str) -> list[Compared]:
    """Count one pass both ways.

    Raises
    ------
    CountsError
        No such kernel in CUDA C, or launches that do not correspond.
    ValueError
        A shape that is none.
    """
    row = next((r for r in table.rows("conv2d") if r.name == name and r.language == "cuda_c"), None)
    if row is None:
        raise CountsError(f"no CUDA C kernel {name!r} for conv2d; see python -m kernels list")
    recordings = xray.record_pass(
        row, direction, shape_text.parse(shape, "conv2d"), most_blocks=ALL_BLOCKS
    )
    ours = {recording.kernel for recording in recordings}
    measured = [launch for launch in measure(name, shape, direction) if launch[0] in ours]
    if [recording.kernel for recording in recordings] != [function for function, _ in measured]:
        raise CountsError(
            f"{name} {direction}: the X-ray saw {[r.kernel for r in recordings]}, Nsight Compute "
            f"{[function for function, _ in measured]}"
        )
    return [
        Compared(name, shape, direction, recording.kernel, figure, mine, theirs)
        for recording, (_, counts) in zip(recordings, measured, strict=True)
        for figure, mine, theirs in _figures(totals(recording), counts)
    ]


def totals(recording: Recording) -> dict[str, float]:
    """Return a recording's counts under the names of `METRICS`."""
    sums = dict.fromkeys(METRICS, 0.0)
    for access in recording.accesses:
        for what in ("requests", "sectors", "wavefronts"):
            key = f"{access.space} {access.operation} {what}"
            if key in sums:
                sums[key] += getattr(access, what)
    return sums


def measure(name: str, shape: str, direction: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield every launch of a pass as Nsight Compute counts it: (function, counts)."""
    words = [
        "ncu", "--profile-from-start", "off", "--csv", "--page", "raw", "--print-units", "base",
        "--metrics", ",".join(METRICS.values()),
        sys.executable, "-m", "profiling.launch_once", name, shape,
        "--pass", direction, "--warm-up", "1",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if ncu.FORBIDDEN in done.stdout + done.stderr:
        raise CountsError(f"{ncu.FORBIDDEN}: {ncu.ALLOW}")
    yield from read(done.stdout)


def read(text: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield (function, counts) from what ``ncu --csv --page raw`` printed.

    Raises
    ------
    CountsError
        A text without a table, or without a metric.
    """
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        said = next((line for line in reversed(lines) if line.strip()), "nothing")
        raise CountsError(f"ncu printed no table; it said: {said}")
    for row in csv.DictReader(io.StringIO("\n".join(lines[start:]))):
        if not row["ID"]:  # the line of units
            continue
        if missing := [metric for metric in METRICS.values() if not row.get(metric)]:
            raise CountsError(f"ncu gave no {missing[0]}")
        counts = {key: float(row[m].replace(",", "")) for key, m in METRICS.items()}
        yield row["Kernel Name"].partition("(")[0].split()[-1], counts


def _figures(
    mine: dict[str, float], theirs: dict[str, float]
) -> Iterator[tuple[str, float, float]]:
    for name in ("read", "write"):
        requests = f"global {name} requests"
        if mine[requests] or theirs[requests]:
            sectors = f"global {name} sectors"
            yield (
                f"{sectors} a request",
                mine[sectors] / max(mine[requests], 1),
                theirs[sectors] / max(theirs[requests], 1),
            )
        wavefronts = f"shared {name} wavefronts"
        if mine[wavefronts] or theirs[wavefronts]:
            yield wavefronts, mine[wavefronts], theirs[wavefronts]
