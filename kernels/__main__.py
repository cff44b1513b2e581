"""Command line: ``python -m kernels list | check | new | tune | explain | xray | exercise``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from kernels import explain, list_resources, new, output, plugins, table, tune
from kernels.exercises import cli as exercises
from kernels.one_line import Parser, one_line
from kernels.source import SCALARS
from kernels.xray import cli

DEFAULT_RANDOM_SHAPES = 20
SHOWN_FAILURES = 3
PIPE_COLUMNS = 120  # where the output is no terminal
LAUNCH_SECONDS = 10.0  # what is checked takes a fraction of one
# What is said of a result after which something is not checked.
SKIPPED = {
    "row": "It does not compile: nothing else of it is checked.",
    "pass": "The rest of this pass is skipped, also under the sanitiser.",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a check failed, 2 bad usage or input."""
    parser = Parser(prog="python -m kernels", description="The lab's kernels.")
    commands = parser.add_subparsers(dest="command", required=True)

    listing = commands.add_parser("list", help="every kernel: language, places, idea")
    listing.add_argument(
        "--resources",
        action="store_true",
        help="instead: registers, shared memory, spills and stack of every GPU function, compiled "
        "by NVRTC without a GPU",
    )
    listing.add_argument(
        "--arch", metavar="SM", help=f"architecture to compile for (default {list_resources.ARCH})"
    )
    listing.add_argument("--dtype", choices=SCALARS, help="of the arrays (default float32)")
    listing.add_argument(
        "--auto", action="store_true",
        help="instead: what kernel='auto' chose on GPUs, with the times measured",
    )  # fmt: skip
    listing.add_argument(
        "--tiles", action="store_true", help="instead: the tiles that 'tune' found on GPUs"
    )
    listing.add_argument(
        "--forget", action="store_true", help="with --auto or --tiles: forget them all"
    )
    listing.add_argument("--json", action="store_true", help="for a program to read")
    listing.set_defaults(run=_list)

    check = commands.add_parser(
        "check",
        help="hold kernels against the float64 judge",
        description="Run every pass of a kernel on fixed and random shapes, against the float64 "
        "judge; on the emulator with threads in forward and in reverse order. Numba's simulator, "
        "where a thread takes a millisecond, gets few and tiny shapes. CUDA C is run under the "
        "X-ray's sanitiser too, on small shapes: accesses out of bounds, races, reads of what "
        "nobody wrote, elements never written.",
    )
    check.add_argument("name", nargs="?", help="a kernel's name; all of them without it")
    check.add_argument(
        "--shapes",
        type=_count,
        default=DEFAULT_RANDOM_SHAPES,
        metavar="N",
        help="random shapes beside the fixed ones (default %(default)s), a tenth of it simulated",
    )
    check.add_argument("--seed", type=_count, default=0, help="of shapes and values (default 0)")
    check.add_argument(
        "--place",
        choices=("cpu", "emulator", "simulator", "gpu"),
        help="where to run (default: everywhere that the kernel can run here)",
    )
    check.add_argument(
        "--limit",
        type=_seconds,
        default=LAUNCH_SECONDS,
        metavar="SECONDS",
        help="of an emulated launch, which is ended then (default %(default)g)",
    )
    check.add_argument("--fast", action="store_true", help="leave the sanitiser out")
    check.add_argument("--json", action="store_true", help="for a program to read")
    check.set_defaults(run=_check)

    beginning = commands.add_parser(
        "new",
        help="begin a kernel: its files and its row, right as they are",
        description=new.__doc__,
    )
    new.add_arguments(beginning)
    beginning.set_defaults(run=new.run)

    tuning = commands.add_parser("tune", help="search a kernel's tile sizes on this GPU")
    tune.add_arguments(tuning)
    tuning.set_defaults(run=tune.run)

    explaining = commands.add_parser(
        "explain", help="the arithmetic of a layer or a network, and a page of it"
    )
    explain.add_arguments(explaining)
    explaining.set_defaults(run=explain.run)

    xraying = commands.add_parser("xray", help="what a CUDA C kernel does, line by line, no GPU")
    cli.add_arguments(xraying)
    xraying.set_defaults(run=cli.run)

    exercising = commands.add_parser("exercise", help="graded exercises in writing kernels, no GPU")
    exercises.add_arguments(exercising)
    exercising.set_defaults(run=exercises.run)

    for command in (listing, check, tuning, xraying):
        plugins.add_argument(command)

    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except plugins.PluginError as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise  # for `output.run`
    except OSError as error:  # a path that the system does not take
        named = one_line(str(error.filename or "output"))
        print(f"{args.command}: {named}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; expected seconds above 0")
    return value


def _list(args: argparse.Namespace) -> int:
    if sum((args.resources, args.auto, args.tiles)) > 1:
        print("list: give one of --resources, --auto and --tiles", file=sys.stderr)
        return 2
    if args.forget and not (args.auto or args.tiles):
        print("list: --forget goes with --auto or --tiles only", file=sys.stderr)
        return 2
    if args.forget and args.json:
        print(
            "list: --json is for what there is; --forget says in words what went", file=sys.stderr
        )
        return 2
    if args.resources:
        return list_resources.run(args)
    for option in ("arch", "dtype"):
        if getattr(args, option) is not None:
            print(f"list: --{option} goes with --resources only", file=sys.stderr)
            return 2
    if args.auto or args.tiles:
        from kernels import list_choices

        return list_choices.run(args)
    from kernels.check import places_here

    listing = [(row, places_here(row)) for row in table.rows()]
    if args.json:
        keys = ("operation", "name", "language", "passes", "summary")
        rows = [{key: getattr(row, key) for key in keys} | {"places": p} for row, p in listing]
        print(json.dumps(rows, indent=2))
        return 0
    _print_listing(listing)
    return 0


def _print_listing(listing: list[tuple[table.Row, dict[str, str | None]]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    view = Table(box=None, padding=(0, 1, 0, 0))
    view.add_column("kernel", no_wrap=True)
    for column in ("language", "runs here on", "idea"):
        view.add_column(column)
    problems: dict[str, str] = {}
    # What an operation's have in common stands above them, so that 80 columns have room.
    for operation, passes in table.PASSES.items():
        view.add_row(f"[bold]{operation}[/]", "", "", f"[dim]passes: {_in_short(passes)}[/]")
        for row, places in listing:
            if row.operation != operation:
                continue
            problems |= {where: why for where, why in places.items() if why}
            here = ", ".join(where for where, why in places.items() if not why) or "-"
            idea = row.summary
            if set(row.passes) != set(passes):
                idea += f" (passes: {_in_short(row.passes)})"
            view.add_row(f"  {row.name}", row.language, here, escape(idea))
    console = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)
    console.print(view)
    console.print("A kernel has all passes of its operation, unless it says which.", style="dim")
    for where, why in problems.items():
        console.print(f"no {where}: {why}", style="dim", markup=False, soft_wrap=True)


def _in_short(passes: Sequence[str]) -> str:
    return ", ".join(name.removeprefix("backward_") for name in passes)


def _check(args: argparse.Namespace) -> int:
    from kernels.check import places_here

    rows = [row for row in table.rows() if row.name == args.name or args.name is None]
    if not rows:
        known = ", ".join(dict.fromkeys(row.name for row in table.rows()))
        print(f"check: no kernel named {args.name!r}; there are {known}", file=sys.stderr)
        return 2
    if args.name == "reference":
        print("check: 'reference' is the judge itself; its tests hold it", file=sys.stderr)
        return 2
    work, reasons = [], []
    for row in rows:
        if row.name == "reference":
            continue
        for where, why in places_here(row).items():
            if args.place in (None, where):
                if why is None:
                    work.append((row, where))
                else:
                    reasons.append(f"{row.operation} {row.name} cannot run on {where}: {why}")
    if not work:
        reason = reasons[0] if reasons else f"{args.name!r} does not run on {args.place}"
        print(f"check: {reason}", file=sys.stderr)
        return 2
    return _report(work, args)


def _report(work: list[tuple[table.Row, str]], args: argparse.Namespace) -> int:
    """Check every (row, place), printing one line each, and return the exit code."""
    failures = 0
    records: list[dict[str, Any]] = []
    for row, where in work:
        results = _checked(row, where, args)
        ended = {result.direction for result in results if result.skips}
        compiles = all(result.skips != "row" for result in results)
        if where == "emulator" and not args.fast and compiles and ended < set(row.passes):
            results += _sanitised(row, ended, args)
        failures += sum(not result.ok for result in results)
        records += map(_record, results)
    if args.json:
        print(json.dumps(records, indent=2))
    return 1 if failures else 0


def _checked(row: table.Row, where: str, args: argparse.Namespace) -> list[Any]:
    from rich.console import Console
    from rich.progress import Progress

    from kernels import cases, emulator
    from kernels.check import check_row

    shapes = cases.chosen(row.operation, where, args.shapes, args.seed)
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    seen = progress.track(shapes, description=f"{row.operation} {row.name} on {where}")
    with emulator.settings(time_limit=args.limit):
        return _told(row, where, check_row(row, seen, where, args.seed), progress, args)


def _sanitised(row: table.Row, but: set[str], args: argparse.Namespace) -> list[Any]:
    from rich.console import Console

    from kernels import emulator
    from kernels.xray.launch import SLOWER
    from kernels.xray.sanitise import sanitise

    status = Console(stderr=True).status(f"sanitising {row.operation} {row.name}")
    # The X-ray takes a limit as one of an untraced launch, and stretches it.
    with emulator.settings(time_limit=args.limit / SLOWER):
        return _told(row, "sanitised", sanitise(row, args.seed, but), status, args)


def _told(
    row: table.Row, where: str, results: Iterable[Any], shown: Any, args: argparse.Namespace
) -> list[Any]:
    """Return all results, printing one line of them, and the first that failed once it is known.

    Parameters
    ----------
    row, where
        For that line.
    results
        From `check.check_row` or `sanitise`.
    shown
        What a terminal shows meanwhile: Rich's Progress or Status.
    args
        Of the command.
    """
    began, done, bad = time.perf_counter(), [], []
    head = f"{row.operation:16} {row.name:19} {where:9}"
    with shown:
        for result in results:
            done.append(result)
            if result.ok:
                continue
            bad.append(result)
            if len(bad) == 1 and not args.json:
                shown.stop()  # while it is shown, Rich takes what is printed to standard error
                print(f"{head} FAILED, first:")
                _show(result)
                shown.start()
    if args.json:
        return done
    verdict = f"{len(bad)} of {len(done)} FAILED" if bad else f"{len(done)} ok"
    worst = max((result.worst for result in done if result.ok), default=0.0)
    bound = f"{'':24}" if where == "sanitised" else f"worst {worst:5.2f} of the bound  "
    print(f"{head} {verdict:18} {bound}{time.perf_counter() - began:5.1f} s", flush=True)
    # What ended a pass or the row is told in any case.
    more = [result for at, result in enumerate(bad) if at < SHOWN_FAILURES or result.skips][1:]
    for result in more:
        _show(result)
    if len(bad) > len(more) + 1:
        print(f"  ... and {len(bad) - len(more) - 1} more (--json has them all)")
    return done


def _show(result: Any) -> None:
    print(f"  {result.direction} {result.dtype} {result.shape}")
    print("    " + result.message.replace("\n", "\n    "))
    if result.skips:
        print(f"    {SKIPPED[result.skips]}")
    sys.stdout.flush()


def _record(result: Any) -> dict[str, Any]:
    return {
        "operation": result.operation,
        "name": result.name,
        "pass": result.direction,
        "place": result.where,
        "dtype": result.dtype,
        "shape": result.shape._asdict(),
        "ok": result.ok,
        "worst": result.worst if result.worst < float("inf") else "inf",
        "message": result.message,
        "skips": result.skips,
    }


if __name__ == "__main__":
    sys.exit(output.run(main))
