"""Check kernels, then time them, cold and hot, in turns with their peers; write a result file.

Every kernel is held against the judge on the very shape it is timed on, and is not timed if it
fails. On a GPU the times are the GPU's own (CUDA events, graphs for short launches), on a CPU the
host's clock around a launch. Emulated and simulated kernels are not timed: `python -m kernels
check` runs them. Ctrl-C loses the shape at hand; --resume goes on with the file.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from kernels import plugins
from kernels.one_line import one_line
from lenet import launcher
from profiling import (
    bench_plan,
    bench_table,
    hand_out,
    machine,
    peers,
    suites,
    sweep,
)
from profiling.bench_group import Bench, ContextLostError
from profiling.bench_plan import PASSES, BenchError, Plan
from profiling.bench_record import Record
from profiling.result_file import (
    SCHEMA,
    Ceilings,
    Device,
    Header,
    ResultFileError,
    Results,
    Row,
    load,
)
from profiling.timing import STANDARD


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
    how.add_argument(
        "--distributed", action="store_true",
        help="one sweep over the devices of all processes of an MPI job: mpiexec -n 4 python -m "
        "profiling bench --distributed ..., one process a GPU, or on CPUs one a host",
    )  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument("-o", "--output", type=Path, metavar="FILE", help="the result file")
    out.add_argument("--resume", action="store_true", help="go on with an unfinished FILE")
    out.add_argument("--json", action="store_true", help="print the rows for a program to read")


def run(args: argparse.Namespace) -> int:
    """Measure, and return the exit code: 0 done, 1 a kernel failed the judge, 2 bad input."""
    try:
        crew = _crew(args)
        if crew is None:
            return launcher.watch(
                lambda ended, at: (
                    f"bench: {ended} {at or 'before its first group'}; {_way_on(args)}"
                )
            )
        with crew.guard(_way_on(args)):
            return _run(args, crew)
    except sweep.ElsewhereError:
        return 2
    except (BenchError, ResultFileError, suites.SuiteError) as error:
        print(f"bench: {one_line(str(error))}", file=sys.stderr)
        return 2
    except (ContextLostError, hand_out.LostError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _way_on(args: argparse.Namespace) -> str:
    if args.output is None:
        return "without -o FILE nothing of it was kept"
    return f"what was measured is in {args.output}, and --resume goes on with it"


def _crew(args: argparse.Namespace) -> sweep.Alone | None:
    """Return the processes that measure; None in one that is to watch over a rank of them."""
    if args.distributed:
        if launcher.launched() is None or launcher.is_watched():
            return sweep.join()
        return None
    rank, size = launcher.launched() or launcher.SINGLE
    if size > 1:
        if rank:
            raise sweep.ElsewhereError
        raise BenchError(
            f"{size} processes were started, and each would measure all of it, into one file; add "
            "--distributed for one sweep over the devices of all"
        )
    return sweep.Alone()


def _run(args: argparse.Namespace, crew: sweep.Alone) -> int:
    plan = crew.together(lambda: bench_plan.make(args, crew.sharing))
    crew.agree(plan)
    began = time.perf_counter()
    with _pinned(plan.threads), contextlib.ExitStack() as stack:
        begun = crew.from_first(lambda: _begun(args, plan), _without_rows)
        if begun is not None and begun.end is not None:
            if crew.first:
                print(f"bench: {args.output} is whole already", file=sys.stderr)
            return 0
        progress = bench_table.Progress(len(plan.groups))
        if crew.first:
            for reason in plan.missing:
                print(f"bench: {reason}; going on without", file=sys.stderr)
            stack.enter_context(progress)
            progress.say("measuring the ceilings")
        measure_ceilings = functools.partial(_ceilings, plan.where)
        devices = crew.devices(plan.where, begun.devices if begun else (), measure_ceilings)
        mine = devices[crew.rank] if devices else None
        ceilings = mine.ceilings if mine else begun.header.ceilings if begun else measure_ceilings()
        bench = Bench(plan.where, _clock(plan.where), ceilings, plan.policy, args.seed)

        def measure(number: int, between: hand_out.Between) -> list[Row]:
            group = plan.groups[number]
            on = f" on {mine.name}" if mine else ""
            launcher.note(f"at {group.title}{on}")
            return bench.group(group, between)

        header = begun.header if begun else _header(plan, ceilings)
        record = crew.from_first(
            lambda: stack.enter_context(Record(args.output, header, begun, devices)),
            lambda record: None,
        )
        if record is None:
            crew.measure([], measure)
            return 0
        progress.header(header, devices)
        todo = []
        for number, group in enumerate(plan.groups):
            if record.has(group):
                progress.skip(group.title)
            else:
                todo.append(number)

        def begin(number: int, rank: int) -> None:
            progress.begin(plan.groups[number].title, _name(devices, rank))

        def keep(number: int, rank: int, rows: list[Row]) -> None:
            del number
            progress.finish(record.add(rows, rank), _name(devices, rank))

        try:
            crew.measure(todo, measure, begin, keep, progress.share)
        except hand_out.LostError as error:
            where = f"rank {error.rank}, {devices[error.rank].name}"
            title = plan.groups[error.number].title
            raise hand_out.LostError(
                error.rank, error.number,
                f"{where}, stopped at {title}: {error}; {_way_on(args)}",
            ) from None  # fmt: skip
        results = record.end(time.perf_counter() - began)
    if args.json:
        print(json.dumps(bench_table.records(results), indent=1))
    else:
        bench_table.show(results, args.output)
    return 1 if any(row.status == "failed" for row in results.rows) else 0


def _name(devices: Sequence[Device], rank: int) -> str:
    return devices[rank].name if devices else ""


def _begun(args: argparse.Namespace, plan: Plan) -> Results | None:
    """Return the file to go on with, if any; raise where it is not this run's to write."""
    begun = load(args.output, unfinished=True) if args.resume else None
    if begun is None:
        if args.output is not None and args.output.exists():
            raise BenchError(
                f"{args.output} exists; choose another name, or --resume to go on with it"
            )
        return None
    if begun.header.plan != plan.fingerprint:
        raise BenchError(f"{begun.path} was begun with other options; --resume wants the same ones")
    here = machine.describe("cpu" if begun.header.place == "cpu" else "gpu")
    if not args.distributed and begun.header.machine["name"] != here["name"]:
        raise BenchError(
            f"{begun.path} was begun on {begun.header.machine['name']}, this is {here['name']}; "
            "one file holds one machine"
        )
    commit, dirty = machine.commit()
    if (begun.header.commit, begun.header.dirty) != (commit, dirty):
        print(f"bench: the source changed since {begun.path} was begun", file=sys.stderr)
    return begun


def _without_rows(begun: Results | None) -> Results | None:
    return begun and begun._replace(rows=[])


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _header(plan: Plan, ceilings: Ceilings) -> Header:
    about = machine.describe(plan.where)
    double = plan.where == "gpu" and machine.is_test_double()
    commit, dirty = machine.commit()
    software = {name: str(about[name]) for name in ("numpy", "numba", "cupy") if name in about}
    return Header(
        SCHEMA, "test double" if double else cast(Any, plan.where), about, machine.today(),
        commit, dirty, plan.threads, plan.suites, len(plan.groups), plan.fingerprint, ceilings,
        software | {name: peers.version(name) for name in plan.against},
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
    # Numba counts the cores before OpenMP, which PyTorch loads, may bind this thread to one.
    import numba  # noqa: F401
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    peers.set_threads(threads)  # before Numba's OpenMP: where both share one, it has its defaults

    from kernels import cpu_threads

    before = cpu_threads.limit(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        cpu_threads.limit(before)
