"""Check kernels, then time them, cold and hot, in turns with their peers; write a result file.

Every kernel is held against the judge on the very shape it is timed on, and is not timed if it
fails. On a GPU the times are the GPU's own (CUDA events, graphs for short launches), on a CPU the
host's clock around a launch. Emulated and simulated kernels are not timed: `python -m kernels
check` runs them. Ctrl-C loses the shape at hand; --resume goes on with the file.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kernels import place, plugins, table
from profiling import bench_table, machine, peers, suites
from profiling.bench_group import Bench, ContextLostError, Group
from profiling.result_file import SCHEMA, Ceilings, End, Header, ResultFileError, Writer, load
from profiling.result_file import Group as Line
from profiling.timing import STANDARD, Policy

PASSES = {
    "forward": ("forward",),
    "data": ("backward_data", "backward"),
    "filter": ("backward_filter",),
    "bias": ("backward_bias",),
}


class BenchError(ValueError):
    """Something that was asked for and cannot be; the message is one line for the user."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    plugins.add_argument(parser)
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--suite", action="append", default=[], metavar="NAME",
        help=f"one of {', '.join(suites.SUITES)}; may be repeated (default: lenet)",
    )  # fmt: skip
    what.add_argument(
        "--shape", action="append", default=[], metavar="N,C,H,W,K,R,S[,stride,padding,dilation]",
        help="a shape of your own; any number may be a sweep, 64:8192:x2 or 16:64:+16; for a "
        "pooling max_pool2d:N,C,H,W,size[,stride,padding], for a fused block conv2d_relu_pool: and "
        "a convolution's numbers[,pool]; may be repeated",
    )  # fmt: skip
    what.add_argument("--batch", metavar="SWEEP", help="the suites' N, such as 256 or 64:1024:x2")
    what.add_argument(
        "--kernel", type=_names, metavar="NAMES",
        help="rows of python -m kernels list, with commas (default: all that run here)",
    )  # fmt: skip
    what.add_argument(
        "--pass", dest="passes", type=_names, default=["forward", "data", "filter"],
        metavar="PASSES", help=f"out of {','.join(PASSES)} (default: forward,data,filter); "
        "a pooling's backward counts as data",
    )  # fmt: skip
    what.add_argument(
        "--against", type=_names, metavar="PEERS",
        help=f"out of {','.join(peers.PACKAGES)}, or none (default: torch; on a GPU torch,cupy)",
    )  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    how.add_argument(
        "--threads", type=int, metavar="N", help="of the host, for kernels and peers alike"
    )
    how.add_argument("--seed", type=int, default=0, help="of the tensors' values")
    how.add_argument(
        "--max-seconds", type=float, default=STANDARD.max_seconds, metavar="S",
        help="for one kernel in one state; what has not settled by then is marked unstable "
        f"(default: {STANDARD.max_seconds:g})",
    )  # fmt: skip
    how.add_argument(
        "--min-seconds", type=float, default=STANDARD.min_seconds, metavar="S",
        help=f"inside the samples (default: {STANDARD.min_seconds:g})",
    )  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument("-o", "--output", type=Path, metavar="FILE", help="the result file")
    out.add_argument("--resume", action="store_true", help="go on with an unfinished FILE")
    out.add_argument("--json", action="store_true", help="print the rows for a program to read")


def run(args: argparse.Namespace) -> int:
    """Measure, and return the exit code: 0 done, 1 a kernel failed the judge, 2 bad input."""
    try:
        return _run(args)
    except (BenchError, ResultFileError, suites.SuiteError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except ContextLostError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    where = _where(args.device)
    threads = _threads(args.threads)
    policy = _policy(args)
    asked = args.suite or ([] if args.shape else ["lenet"])
    cases = suites.cases(asked, args.shape, args.batch)
    against, missing = _against(args.against, where)
    groups = _groups(cases, _directions(args.passes), args.kernel, against, where)
    if args.resume and args.output is None:
        raise BenchError("--resume wants -o FILE, the file to go on with")
    for reason in missing:
        print(f"bench: {reason}; going on without", file=sys.stderr)
    plan = _fingerprint(groups, threads, policy, args.seed)
    began = time.perf_counter()
    with _pinned(threads), contextlib.ExitStack() as stack:
        begun = load(args.output, unfinished=True) if args.resume else None
        if begun is None and args.output is not None and args.output.exists():
            raise BenchError(
                f"{args.output} exists; choose another name, or --resume to go on with it"
            )
        if begun is not None and not _may_resume(begun, plan):
            print(f"bench: {args.output} is whole already", file=sys.stderr)
            return 0
        progress = stack.enter_context(bench_table.Progress(len(groups)))
        if begun is None:
            progress.say("measuring the ceilings")
            header = _header(where, threads, asked, args, plan, len(groups), against)
        else:
            header = begun.header
        rows = list(begun.rows) if begun else []
        writer = None
        if args.output is not None:
            writer = stack.enter_context(Writer(args.output, None if begun else header))
        bench = Bench(where, _clock(where), header.ceilings, policy, args.seed)
        done = {(row.operation, row.direction, tuple(row.shape.values())) for row in rows}
        progress.header(header)
        for group in groups:
            if (group.case.operation, group.direction, tuple(group.case.shape)) in done:
                progress.skip(group.title)
                continue
            progress.begin(group.title)
            found = bench.group(group, progress.share)
            rows += found
            if writer is not None:
                writer.add(Line(found))
            progress.finish(found, header.ceilings)
        if writer is not None:
            writer.add(End(len(rows), round(time.perf_counter() - began, 1)))
    if args.json:
        print(json.dumps(bench_table.records(rows, header.ceilings), indent=1))
    else:
        bench_table.show(rows, header.ceilings, args.output)
    return 1 if any(row.status == "failed" for row in rows) else 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _where(device: str) -> str:
    problem = None if device == "cpu" else place.gpu_problem()
    if device == "gpu" and problem:
        raise BenchError(f"--device gpu: {problem}; --device cpu times the host's kernels")
    return "cpu" if device == "cpu" or problem else "gpu"


def _threads(threads: int | None) -> int:
    cores = len(os.sched_getaffinity(0))
    if threads is None:
        return cores
    if not 1 <= threads <= cores:
        raise BenchError(f"--threads is {threads}; expected 1 to {cores}, the cores there are")
    return threads


def _policy(args: argparse.Namespace) -> Policy:
    if not 0 < args.min_seconds <= args.max_seconds:
        raise BenchError(
            f"--min-seconds is {args.min_seconds:g} and --max-seconds {args.max_seconds:g}; "
            "expected two numbers above 0, the second not below the first"
        )
    return STANDARD._replace(min_seconds=args.min_seconds, max_seconds=args.max_seconds)


def _directions(passes: Sequence[str]) -> list[str]:
    for name in passes:
        if name not in PASSES:
            raise BenchError(f"unknown pass {name!r}; expected some of {', '.join(PASSES)}")
    if not passes:
        raise BenchError(f"--pass is empty; expected some of {', '.join(PASSES)}")
    return [direction for name in dict.fromkeys(passes) for direction in PASSES[name]]


def _against(names: list[str] | None, where: str) -> tuple[list[str], list[str]]:
    """Return the peers that can be had, and why others cannot."""
    wanted = [] if names == ["none"] else names or list(peers.DEFAULT[where])
    try:
        problems = {name: peers.problem(name, where) for name in wanted}
    except ValueError as error:
        raise BenchError(str(error)) from None
    return (
        [name for name, reason in problems.items() if not reason],
        [reason for reason in problems.values() if reason],
    )


def _groups(
    cases: Sequence[suites.Case],
    directions: Sequence[str],
    kernels: Sequence[str] | None,
    against: Sequence[str],
    where: str,
) -> list[Group]:
    """Return what is measured together, with the kernels that can be timed at the place."""
    operations = dict.fromkeys(case.operation for case in cases)
    if kernels is not None:
        _check_kernels(kernels, operations, where)
    groups = []
    for case in cases:
        rows = tuple(
            row
            for row in table.rows(case.operation)
            if where in row.places
            and (row.name != "reference" if kernels is None else row.name in kernels)
        )
        possible = {d for row in table.rows(case.operation) for d in row.passes}
        groups += [
            Group(case, direction, rows, tuple(against))
            for direction in directions
            if direction in possible and rows
        ]
    if not groups:
        raise BenchError("no kernel and pass is left to measure; see python -m kernels list")
    return groups


def _check_kernels(kernels: Sequence[str], operations: Any, where: str) -> None:
    known = {row.name: row for operation in operations for row in table.rows(operation)}
    for name in kernels:
        if name not in known:
            raise BenchError(
                f"unknown kernel {name!r} for {', '.join(operations)}; expected some of "
                f"{', '.join(known)}"
            )
        if where not in known[name].places:
            how = "the emulator's or simulator's time says nothing about a GPU's"
            raise BenchError(
                f"kernel {name!r} cannot be timed on this {where.upper()}: "
                + (how if where == "cpu" else "it runs on the host only")
                + f"; choose some of {', '.join(n for n, r in known.items() if where in r.places)}"
            )
    if not kernels:
        raise BenchError("--kernel is empty; see python -m kernels list")


def _fingerprint(groups: Sequence[Group], threads: int, policy: Policy, seed: int) -> str:
    asked = [
        (g.case, g.direction, [row.name for row in g.rows], g.peers) for g in groups
    ]  # fmt: skip
    return hashlib.sha256(repr((asked, threads, policy, seed)).encode()).hexdigest()[:16]


def _may_resume(begun: Any, plan: str) -> bool:
    """Tell whether there is something left to do; raise where it is not this file's to do."""
    if begun.header.plan != plan:
        raise BenchError(f"{begun.path} was begun with other options; --resume wants the same ones")
    here = machine.describe("cpu" if begun.header.place == "cpu" else "gpu")
    if begun.header.machine["name"] != here["name"]:
        raise BenchError(
            f"{begun.path} was begun on {begun.header.machine['name']}, this is {here['name']}; "
            "one file holds one machine"
        )
    commit, dirty = machine.commit()
    if (begun.header.commit, begun.header.dirty) != (commit, dirty):
        print(f"bench: the source changed since {begun.path} was begun", file=sys.stderr)
    return begun.end is None


def _header(
    where: str,
    threads: int,
    asked: list[str],
    args: argparse.Namespace,
    plan: str,
    groups: int,
    against: list[str],
) -> Header:
    about = machine.describe(where)
    at: Any = "test double" if where == "gpu" and machine.is_test_double() else where
    commit, dirty = machine.commit()
    software = {name: str(about[name]) for name in ("numpy", "numba", "cupy") if name in about}
    return Header(
        SCHEMA, at, about, machine.today(), commit, dirty, threads,
        asked + ["--shape"] * bool(args.shape), groups, plan, _ceilings(where),
        software | {name: peers.version(name) for name in against},
    )  # fmt: skip


def _ceilings(where: str) -> Ceilings:
    from profiling import ceilings

    return ceilings.measure_gpu() if where == "gpu" else ceilings.measure_cpu()


def _clock(where: str) -> Any:
    if where == "cpu":
        from profiling.clock_cpu import CpuClock

        return CpuClock()
    from profiling.clock_gpu import GpuClock

    clock = GpuClock()
    peers.use_stream(clock.stream)
    return clock


@contextlib.contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """Give every library of the host the same number of threads."""
    import numba
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    peers.set_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        numba.set_num_threads(before)
