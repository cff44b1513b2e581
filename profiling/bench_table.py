"""What a benchmark shows: progress while it runs, a table in the end, records for a program."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from profiling import roofline, units
from profiling.result_file import Ceilings, Device, Header, Ratio, Results, Row, Timing

PIPE_COLUMNS = 120
_COLUMNS = (("cold", 9), ("±", 6), ("hot", 9), ("rate", 13), ("of ceiling", 10))


class Progress:
    """One line a group on stderr, and on a terminal a bar with what is left.

    Parameters
    ----------
    groups
        How many there are to measure.
    """

    def __init__(self, groups: int) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._groups, self._number = groups, 0
        self._measured = 0
        self._spent = 0.0
        self._began: dict[str, float] = {}  # by the device
        self._devices = 1
        self._bars = Bars(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bars.add_task("", total=groups, left="")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Show what is being done before the first group."""
        self._bars.update(self._task, description=text)

    def header(self, header: Header, devices: Sequence[Device]) -> None:
        """Show what is measured on, each of several devices too, and its ceilings."""
        for line in [*header_lines(header), *device_lines(devices)]:
            self._console.print(line, markup=False, soft_wrap=True)

    def skip(self, title: str) -> None:
        """Count a group that the file has already."""
        self._number += 1
        self._console.print(f"{self._count()} {title}: in the file", markup=False, soft_wrap=True)
        self._bars.update(self._task, completed=self._number)

    def begin(self, title: str, on: str = "") -> None:
        """Start a group, on one of several devices."""
        self._began[on] = time.perf_counter()
        self._devices = max(self._devices, len(self._began))
        here = f"{self._count(1)} {title}" if self._devices == 1 else f"{self._devices} devices"
        self._bars.update(self._task, description=here, left=self._left())

    def share(self, share: float) -> None:
        """Show how much of its time limit a group has spent."""
        self._bars.update(self._task, completed=self._number + share, left=self._left())

    def finish(self, rows: Sequence[Row], on: str = "") -> None:
        """Say what came out of a group."""
        seconds = time.perf_counter() - self._began.pop(on)
        self._spent += seconds
        self._measured += 1
        self._number += 1
        title = f"{self._count()} {rows[0].label} {rows[0].direction}" if rows else self._count()
        texts = [f"{row.name} {_brief(row)}" for row in rows]
        left = "" if self._bars.disable is False else f"; {self._left()}"
        where = f", {on}" if on else ""
        line = f"{title}{where}: {', '.join(texts)} ({seconds:.0f} s{left})"
        self._console.print(line, markup=False, soft_wrap=True)
        self._bars.update(self._task, completed=self._number)

    def _count(self, ahead: int = 0) -> str:
        return f"{self._number + ahead:{len(str(self._groups))}}/{self._groups}"

    def _left(self) -> str:
        """Estimate the time left from the groups measured so far."""
        if not self._measured:
            return "time left not known yet"
        a_group, now = self._spent / self._measured, time.perf_counter()
        done = sum(min(now - began, a_group) for began in self._began.values())
        seconds = (a_group * (self._groups - self._number) - done) / self._devices
        return f"about {_duration(max(seconds, 0))} left"


def header_lines(header: Header) -> list[str]:
    """Return what a file says of machine and ceilings, for a person."""
    ceilings = header.ceilings
    commit = f"commit {header.commit[:8]}" if header.commit else "commit unknown"
    peak = f", hardware limit {units.rate(ceilings.peak, 'FLOP/s')}" if ceilings.peak else ""
    tensor = "".join(
        f", {name} GEMM {units.rate(rate, 'FLOP/s')}" for name, rate in ceilings.tensor_gemm.items()
    )
    return [
        f"{header.machine['name']}, {header.threads} threads, {header.date}, {commit}"
        + (" with changes" if header.dirty else "")
        + "".join(f", {name} {version}" for name, version in header.software.items()),
        f"ceilings measured: copy {units.rate(ceilings.copy, 'B/s')}, "
        f"read {units.rate(ceilings.read, 'B/s')}, float32 GEMM "
        f"{units.rate(ceilings.gemm, 'FLOP/s')}{peak}{tensor}; an empty launch takes "
        f"{units.seconds(ceilings.launch_s)}",
    ]


def device_lines(devices: Sequence[Device]) -> list[str]:
    """Return a line for each rank's device, and a warning where they are of several models."""
    lines = [
        f"rank {rank}: {device.name}, {device.model}: "
        f"copy {units.rate(device.ceilings.copy, 'B/s')}, "
        f"float32 GEMM {units.rate(device.ceilings.gemm, 'FLOP/s')}"
        for rank, device in enumerate(devices)
    ]
    models = Counter(device.model for device in devices)
    if len(models) > 1:
        held = ", ".join(f"{count} of {model}" for model, count in models.most_common())
        lines.append(
            f"WARNING: UNLIKE DEVICES: {held}; a shape and pass is measured on one of them, and "
            "nothing compares it with what another model measured: start a sweep for each model"
        )
    return lines


def show(results: Results, path: Path | None) -> None:
    """Print a table for every group, what was not timed, and what to do next."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_COLUMNS)

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, soft_wrap=True)

    for group in _groups(results.rows):
        ceilings, device = results.ceilings(group[0]), results.device(group[0])
        timed = [row for row in group if timings(row)]
        peer = next((ratio.peer for row in timed if (ratio := best_ratio(row))), None)
        against = f", fastest peer {peer}" if peer else ""
        on = f", {device.model}, {device.name}" if device else ""
        line(f"{group[0].label} {group[0].direction}{on}{against}", "bold")
        if timed:
            table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=True)
            table.add_column("  kernel", min_width=28, no_wrap=True)
            for title, width in _COLUMNS:
                table.add_column(title, justify="right", min_width=width, no_wrap=True)
            table.add_column("bound", min_width=7, no_wrap=True)
            table.add_column("peer / it" if peer else "", no_wrap=True)
            for row in timed:
                table.add_row(f"  {row.name}", *_cells(row, ceilings))
            console.print(table)
        for row in group:
            for remark in remarks(row, ceilings):
                line(f"  {remark}", "dim")
    line(
        "cold: with the caches overwritten before; ±: half of the median's 95 % interval; "
        "?: not settled; rate and share are the cold ones, of the measured ceiling that binds"
    )
    if path is not None:
        line(f"written to {path}; python -m profiling report {path}")


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    return [list(group) for _, group in itertools.groupby(rows, lambda row: row.key[:3])]


def remarks(row: Row, ceilings: Ceilings) -> list[str]:
    """Return a line for everything about a row that is not as it should be."""
    if row.status != "timed":
        return [f"{row.status.upper()} {row.name}: {row.reason}"]
    found = [f"NOTE {row.name}: {row.reason}"] if row.reason else []
    for state, timing in timings(row):
        if not timing.stable:
            found.append(f"UNSTABLE {row.name}, {state}: {timing.unstable_because}")
        stands = roofline.standing(row, timing, ceilings, cold=state == "cold")
        if stands.impossible:
            found.append(f"IMPOSSIBLE {row.name}, {state}: {stands.impossible}")
    if row.after.throttled:
        found.append(f"THROTTLED {row.name}: {', '.join(row.after.throttled)}")
    return found


def records(results: Results) -> list[dict[str, Any]]:
    """Return rows as a program reads them: without samples, with rates and verdicts."""
    found = []
    for row in results.rows:
        ceilings, device = results.ceilings(row), results.device(row)
        record: dict[str, Any] = msgspec.to_builtins(row)
        record["device"] = device and {
            "name": device.name, "model": device.model,
            "host": device.host, "identity": device.identity,
        }  # fmt: skip
        for state, timing in timings(row):
            stands = roofline.standing(row, timing, ceilings, cold=state == "cold")
            del record[state]["samples_s"]
            record[state] |= {"samples": len(timing.samples_s), **stands._asdict()}
        found.append(record)
    return found


def timings(row: Row) -> list[tuple[str, Timing]]:
    """Return a row's timings by state."""
    states = (("cold", row.cold), ("hot", row.hot))
    return [(state, timing) for state, timing in states if timing is not None]


def best_ratio(row: Row, state: str = "cold") -> Ratio | None:
    """Return the ratio to the fastest of the peers, or None where there was none."""
    return min((r for r in row.ratios if r.state == state), key=lambda r: r.median, default=None)


def _cells(row: Row, ceilings: Ceilings) -> list[str]:
    timing = row.cold or row.hot
    if timing is None:
        return []
    stands = roofline.standing(row, timing, ceilings, cold=row.cold is not None)
    half = (timing.high_s - timing.low_s) / 2 / timing.median_s
    ratio = best_ratio(row)
    compute = row.least_flops / ceilings.product(row.precision) >= row.least_bytes / ceilings.copy
    rate = (stands.flops_per_s, "FLOP/s") if compute else (stands.bytes_per_s, "B/s")
    return [
        f"{units.seconds(row.cold.median_s)}{_mark(row.cold)}" if row.cold else "",
        f"{half:.1%}" if half < 1 else f"{half:.0%}",
        f"{units.seconds(row.hot.median_s)}{_mark(row.hot)}" if row.hot else "",
        units.rate(*rate) if row.kind == "kernel" else "",
        f"{stands.of_gemm if compute else stands.of_copy:.1%}" if row.kind == "kernel" else "",
        ("IMPOSSIBLE" if stands.impossible else stands.bound) if row.kind == "kernel" else "",
        f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
    ]


def _mark(timing: Timing) -> str:
    return "" if timing.stable else "?"


def _brief(row: Row) -> str:
    if row.status != "timed" or row.cold is None:
        return row.status
    return units.seconds(row.cold.median_s) + _mark(row.cold)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
