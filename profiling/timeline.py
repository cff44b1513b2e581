"""What a traced command's processes appended (`spool.py`) -> a chrome trace and a summary.

The trace is the JSON that ui.perfetto.dev and chrome://tracing open: complete events ("X", times in
microseconds) by process and thread, asynchronous ones ("b", "e") for ranges that do not nest, and
the names of processes and threads. One line is in memory at a time, with the ranges that are open.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

BEGINNING = b'{"traceEvents":[\n'
# What a launch's span is called in `observer.py` and `gpu_track.py`; all other spans are ranges.
LAUNCH_CATEGORIES = ("gpu", "double", "launch", "emulated", "simulated", "cpu")
MOST_NAMES = 5000  # in the summary; what comes later is added up under `OTHERS`
OTHERS = "(others)"
ENDLESS = "unfinished"


class Line(msgspec.Struct):
    """One line of the spool; ns is CLOCK_MONOTONIC."""

    ph: str
    pid: int
    ns: int = 0
    tid: int = 0
    cat: str = ""
    name: str = ""
    id: int = 0
    dur: int = 0
    args: dict[str, Any] = {}


class Command(NamedTuple):
    """The command that was traced: its text, its first process, and when it ran (ns)."""

    text: str
    pid: int
    begin: int
    end: int


@dataclasses.dataclass
class Totals:
    """Spans of one name.

    Attributes
    ----------
    count
        How many.
    total_ns
        Their sum.
    self_ns
        Less what was inside of them on the same thread.
    longest_ns
        The longest.
    """

    count: int = 0
    total_ns: int = 0
    self_ns: int = 0
    longest_ns: int = 0


@dataclasses.dataclass
class Summary:
    """What a trace holds.

    Attributes
    ----------
    spans
        By category and name.
    dropped
        Events left out because the trace was full; where a process was killed, at least so many.
    unfinished
        Spans whose end nobody told; they are drawn to the end of their process.
    unreadable
        Lines that a dying process left torn.
    """

    spans: dict[tuple[str, str], Totals] = dataclasses.field(default_factory=dict)
    dropped: int = 0
    unfinished: int = 0
    unreadable: int = 0

    def add(self, line: Line, total: int, inside: int = 0) -> None:
        """Count one span of `total` ns, `inside` of them in spans of its own."""
        key = line.cat, line.name
        if key not in self.spans and len(self.spans) >= MOST_NAMES:
            key = line.cat, OTHERS
        totals = self.spans.setdefault(key, Totals())
        totals.count += 1
        totals.total_ns += total
        totals.self_ns += total - inside
        totals.longest_ns = max(totals.longest_ns, total)

    def ranges(self) -> dict[tuple[str, str], Totals]:
        """Return the ranges, by domain and name, the largest total first."""
        return self._sorted(lambda category: category not in LAUNCH_CATEGORIES)

    def launches(self) -> dict[tuple[str, str], Totals]:
        """Return the launches, by category and name, the largest total first."""
        return self._sorted(lambda category: category in LAUNCH_CATEGORIES)

    def _sorted(self, wanted: Any) -> dict[tuple[str, str], Totals]:
        chosen = [(key, totals) for key, totals in self.spans.items() if wanted(key[0])]
        return dict(sorted(chosen, key=lambda item: -item[1].total_ns))


@dataclasses.dataclass
class Open:
    """A span that has begun, and the ns spent in spans inside of it."""

    line: Line
    inside: int = 0


def is_trace(path: Path) -> bool:
    """Tell whether a file is a trace that `write` wrote."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(len(BEGINNING)) == BEGINNING
    except (OSError, EOFError):  # no gzip file, or half of one
        return False


def write(spool: Path, output: Path, command: Command) -> Summary:
    """Write the trace of a command.

    Parameters
    ----------
    spool
        What its processes appended.
    output
        The trace, put in place when it is whole; ``.gz`` compresses it.
    command
        Gives the time that the trace begins at.

    Returns
    -------
    Summary
        Of the spans in it.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    part = output.with_name(f".{output.name}.part")
    try:
        with gzip.open(part, "wb", 6) if output.suffix == ".gz" else part.open("wb") as file:
            summary = _Writer(file, command).run(spool)
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
    return summary


class _Writer:
    def __init__(self, file: BinaryIO | gzip.GzipFile, command: Command) -> None:
        self.file, self.command = file, command
        self.summary = Summary()
        self.open: dict[tuple[int, int], list[Open]] = {}
        self.heard: dict[int, int] = {}  # by pid, when last
        self.named: set[int] = set()
        self.threads: set[tuple[int, int]] = set()
        self.started: dict[tuple[int, int], Line] = {}  # process ranges by (pid, id)
        self.dropped: dict[tuple[int, str], int] = {}
        self.strays = 0
        self.separator = b""

    def run(self, spool: Path) -> Summary:
        self.file.write(BEGINNING)
        command = self.command
        whole = Line("X", command.pid, command.begin, command.pid, "command", command.text)
        self._name_process(command.pid, command.text)
        self._thread(whole)
        self._complete(whole, command.end)
        for line in _lines(spool, self.summary):
            self._take(line)
        self._close_what_is_open()
        self.summary.dropped = sum(self.dropped.values())
        self.file.write(b'\n],"displayTimeUnit":"ms"}\n')
        return self.summary

    def _take(self, line: Line) -> None:
        if line.ph == "dropped":
            self.dropped[line.pid, line.cat] = line.id
            return
        if line.ph == "process":
            if line.pid != self.command.pid:
                self._name_process(line.pid, line.name)
            return
        if line.ph == "track":
            self.threads.add((line.pid, line.tid))
            self._put("M", line.pid, line.tid, name="thread_name", args={"name": line.name})
            return
        self._thread(line)
        thread = line.pid, line.tid
        if line.ph == "B":
            self.open.setdefault(thread, []).append(Open(line))
        elif line.ph == "E":
            self._end(line)
        elif line.ph == "X":
            self.summary.add(line, line.dur)
            self._complete(line, line.ns + line.dur)
        elif line.ph == "b":
            self.started[line.pid, line.id] = line
        elif line.ph == "e" and (begun := self.started.pop((line.pid, line.id), None)):
            self._asynchronous(begun, line.ns)
            self.summary.add(begun, line.ns - begun.ns)
        elif line.ph == "i":
            self._put("i", *thread, line, ts=self._us(line.ns), s="t")

    def _end(self, line: Line) -> None:
        """Close the latest open span of the thread in the same domain."""
        stack = self.open.get((line.pid, line.tid), [])
        at = next((i for i in reversed(range(len(stack))) if stack[i].line.cat == line.cat), None)
        if at is None:
            return  # begun before a fork, in another process
        span = stack.pop(at)
        total = line.ns - span.line.ns
        self.summary.add(span.line, total, span.inside)
        if at < len(stack):  # one that began later, of another domain, is still open
            self._asynchronous(span.line, line.ns)
            return
        if stack:
            stack[-1].inside += total
        self._complete(span.line, line.ns)

    def _close_what_is_open(self) -> None:
        for stack in self.open.values():
            for span in reversed(stack):
                self._unfinished(span.line, span.inside)
        for line in self.started.values():
            self._unfinished(line)

    def _unfinished(self, line: Line, inside: int = 0) -> None:
        end = self.command.end if line.pid == self.command.pid else self.heard[line.pid]
        line.args = line.args | {ENDLESS: True}
        self.summary.unfinished += 1
        self.summary.add(line, end - line.ns, min(inside, end - line.ns))
        if line.ph == "b":
            self._asynchronous(line, end)
        else:
            self._complete(line, end)

    def _complete(self, line: Line, end: int) -> None:
        times = {"ts": self._us(line.ns), "dur": (end - line.ns) / 1e3}
        self._put("X", line.pid, line.tid, line, **times)

    def _asynchronous(self, line: Line, end: int) -> None:
        self.strays += 1
        for kind, ns in (("b", line.ns), ("e", end)):
            self._put(kind, line.pid, line.tid, line, ts=self._us(ns), id=self.strays)

    def _thread(self, line: Line) -> None:
        """Name a thread when it is first heard of, and its process unless it named itself."""
        if line.pid not in self.named:
            self._name_process(line.pid, f"process {line.pid}")
        self.heard[line.pid] = max(self.heard.get(line.pid, 0), line.ns + line.dur)
        if (line.pid, line.tid) not in self.threads:
            self.threads.add((line.pid, line.tid))
            name = "main thread" if line.tid == line.pid else f"thread {line.tid}"
            self._put("M", line.pid, line.tid, name="thread_name", args={"name": name})

    def _name_process(self, pid: int, name: str) -> None:
        self.named.add(pid)
        self._put("M", pid, pid, name="process_name", args={"name": name})

    def _us(self, ns: int) -> float:
        return (ns - self.command.begin) / 1e3

    def _put(self, kind: str, pid: int, tid: int, line: Line | None = None, **more: Any) -> None:
        event: dict[str, Any] = {"ph": kind, "pid": pid, "tid": tid}
        if line is not None:
            event |= {"cat": line.cat, "name": line.name or "(no name)"}
            if line.args:
                event["args"] = line.args
        self.file.write(self.separator + msgspec.json.encode(event | more))
        self.separator = b",\n"


def _lines(spool: Path, summary: Summary) -> Iterator[Line]:
    decoder = msgspec.json.Decoder(Line)
    with spool.open("r", errors="replace", newline="\n") as file:  # a range's name may be no UTF-8
        for text in file:
            try:
                line = decoder.decode(text)
            except msgspec.DecodeError:
                summary.unreadable += 1
                continue
            yield line
