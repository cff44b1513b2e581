"""Run a command under a timeline: NVTX ranges, launches and, on a GPU, event-timed kernels.

COMMAND is anything: `lenet train ...`, `python script.py`, a program that starts others. The trace
opens in https://ui.perfetto.dev, in chrome://tracing, and needs neither a GPU nor Nsight.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kernels.observe import VARIABLE
from kernels.one_line import one_line
from profiling import listener, nsys, timeline
from profiling.observer import DOMAIN, INJECTION
from profiling.spool import LIMIT, PATH

OURS = ("lenet", "kernels", "profiling")
# What a launch's name does not say of itself.
CALLED = dict.fromkeys(timeline.LAUNCH_CATEGORIES, "")
CALLED |= {"gpu": " (GPU)", "double": " (test double)"}


class TraceError(ValueError):
    """What was asked cannot be done; the message says why, in one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the trace (trace.json; .json.gz too)"
    )
    parser.add_argument(
        "--limit", type=int, default=256, metavar="MIB", help="record no more than this (256)"
    )
    parser.add_argument("--top", type=int, default=12, metavar="N", help="lines a table (12)")
    parser.add_argument(
        "--json", action="store_true", help="the summary as JSON; COMMAND prints to stderr"
    )
    parser.add_argument(
        "--nsys", action="store_true", help="under Nsight Systems instead, with a table of its sums"
    )
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="a program and its arguments; python, lenet, kernels and profiling mean this "
        "interpreter and its modules",
    )


def run(args: argparse.Namespace) -> int:
    """Run COMMAND, write its trace, print the summary; return COMMAND's exit code, or 2."""
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    try:
        for option in ("limit", "top"):
            if getattr(args, option) < 1:
                raise TraceError(f"--{option} is {getattr(args, option)}; expected at least 1")
        command = resolve(words)
        if args.nsys:
            return nsys.run(command, args.output, args.top, args.json)
        output = args.output or Path("trace.json")
        replaced = check_output(output)
        with tempfile.TemporaryDirectory(prefix=".trace-", dir=output.parent) as folder:
            spool = Path(folder) / "spool"
            spool.touch()
            env, notes = environment(spool, args.limit << 20)
            code, ran = execute(command, shlex.join(words), env, args.json)
            summary = timeline.write(spool, output, ran)
    except BrokenPipeError:
        raise  # for `output.run`
    except (TraceError, nsys.NsysError, OSError) as error:
        print(f"trace: {one_line(str(error))}", file=sys.stderr)
        return 2
    if replaced:
        notes.insert(0, f"{output}: the trace that was there is replaced")
    notes += remarks(summary, ran)
    if args.json:
        print(json.dumps(record(summary, ran, output, code, notes), indent=2))
    else:
        show(summary, ran, output, args.top)
    for note in notes:
        print(f"trace: {note}", file=sys.stderr)
    return code


def resolve(words: list[str]) -> list[str]:
    """Return the command to execute for what was typed after ``--``.

    Raises
    ------
    TraceError
        Nothing was typed, or there is no such program.
    """
    if not words:
        raise TraceError("got no command; expected one, such as: trace -- lenet train --epochs 1")
    program = words[0]
    if program.partition(".")[0] in OURS:  # profiling.launch_once, too
        return [sys.executable, "-m", *words]
    if program in ("python", "python3"):
        return [sys.executable, *words[1:]]
    if program.endswith(".py") and Path(program).is_file():
        return [sys.executable, *words]
    if shutil.which(program) is None:
        raise TraceError(
            f"{program}: there is no such program; expected one on PATH, a .py file, python, or "
            f"one of {', '.join(OURS)}"
        )
    return words


def check_output(output: Path) -> bool:
    """Return whether a trace is there already, which may be replaced.

    Raises
    ------
    TraceError
        The folder is missing, or the file is something else than a trace.
    """
    if not output.parent.is_dir():
        raise TraceError(f"{output}: there is no folder {output.parent}; make it, or choose -o")
    if not output.exists():
        return False
    if not output.is_file() or not timeline.is_trace(output):
        raise TraceError(f"{output} is there and is no trace; remove it, or choose another -o")
    return True


def environment(spool: Path, limit: int) -> tuple[dict[str, str], list[str]]:
    """Return the environment of a traced command, and what the user should know of it.

    Parameters
    ----------
    spool
        The file that its processes append to.
    limit
        Bytes after which nothing is begun any more.
    """
    env = {**os.environ, PATH: str(spool.absolute()), LIMIT: str(limit)}
    env[VARIABLE] = "profiling.observer"
    notes = []
    try:
        env[INJECTION] = str(listener.build())
    except listener.ListenerError as error:
        env.pop(INJECTION, None)
        notes.append(f"ranges of other libraries are not heard, only the lab's own: {error}")
    return env, notes


def execute(
    command: list[str], text: str, env: dict[str, str], to_stderr: bool
) -> tuple[int, timeline.Command]:
    """Run a command to its end, whatever it is; return its exit code (128 + n for signal n).

    Raises
    ------
    TraceError
        It cannot be started.
    """
    begin = time.monotonic_ns()
    try:
        process = subprocess.Popen(command, env=env, stdout=nsys.STDERR if to_stderr else None)
    except OSError as error:
        raise TraceError(f"{command[0]} cannot be started: {error.strerror}") from None
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue  # the command got it too, and may have something to save
    finally:
        signal.signal(signal.SIGTERM, before)
    ran = timeline.Command(text, process.pid, begin, time.monotonic_ns())
    return (code if code >= 0 else 128 - code), ran


def remarks(summary: timeline.Summary, ran: timeline.Command) -> list[str]:
    """Return what a reader of the trace must know of it."""
    said = []
    if not summary.spans:
        said.append(
            f"no range and no launch was heard from: {ran.text} (is it a program of this lab, or "
            "one that marks NVTX ranges?)"
        )
    if summary.dropped:
        said.append(
            f"the trace is full: {summary.dropped:,} ranges and launches at its end are left out; "
            "--limit MIB allows more"
        )
    if summary.unfinished:
        said.append(f"{summary.unfinished:,} spans did not end; they are drawn to the end")
    if summary.unreadable:
        said.append(f"{summary.unreadable:,} lines of a process that died are unreadable")
    return said


def record(
    summary: timeline.Summary, ran: timeline.Command, output: Path, code: int, notes: list[str]
) -> dict[str, Any]:
    """Return the summary for a program to read; times in seconds."""

    def rows(spans: dict[tuple[str, str], timeline.Totals], first: str) -> list[dict[str, Any]]:
        return [
            {
                first: category,
                "name": name,
                "count": totals.count,
                "total_s": totals.total_ns / 1e9,
                "mean_s": totals.total_ns / totals.count / 1e9,
                "longest_s": totals.longest_ns / 1e9,
                "self_s": totals.self_ns / 1e9,
            }
            for (category, name), totals in spans.items()
        ]

    return {
        "trace": str(output),
        "command": ran.text,
        "exit_code": code,
        "seconds": (ran.end - ran.begin) / 1e9,
        "ranges": rows(summary.ranges(), "domain"),
        "launches": rows(summary.launches(), "where"),
        "dropped": summary.dropped,
        "unfinished": summary.unfinished,
        "notes": notes,
    }


def show(summary: timeline.Summary, ran: timeline.Command, output: Path, top: int) -> None:
    """Print the tables of ranges and of launches, the largest totals first."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    for title, spans in (("range", summary.ranges()), ("launch", summary.launches())):
        if not spans:
            continue
        table = Table(box=None, header_style="", padding=(0, 1))
        table.add_column(title)
        for heading in ("count", "total ms", "mean ms", "self ms"):
            table.add_column(heading, justify="right", no_wrap=True)
        for (category, name), totals in list(spans.items())[:top]:
            label = name if category in (DOMAIN, *CALLED) else f"{name} [{category}]"
            label += CALLED.get(category, "")
            times = (totals.total_ns, totals.total_ns / totals.count, totals.self_ns)
            table.add_row(label, f"{totals.count:,}", *(f"{ns / 1e6:,.3f}" for ns in times))
        console.print(table)
        if len(spans) > top:
            console.print(f" ... and {len(spans) - top} more names: --top N", soft_wrap=True)
    seconds = (ran.end - ran.begin) / 1e9
    console.print(
        f"{output}: {seconds:.2f} s of {ran.text}; open it in https://ui.perfetto.dev",
        soft_wrap=True,
    )
