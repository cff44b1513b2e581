"""What `profiling compare` shows a person."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiling.compare import Compared, Comparison, means
from profiling.result_file import Results, Row

PIPE_COLUMNS = 80  # where the output is no terminal
COLOURS = {"faster": "green", "slower": "bold red", "same": ""}


def show(
    found: Comparison,
    warnings: list[str],
    before: list[Results],
    after: list[Results],
    smallest: float,
    tolerance: float,
) -> None:
    """Print a comparison.

    Parameters
    ----------
    found, warnings
        What to print.
    before, after
        The runs of each side, for their names.
    smallest, tolerance
        Relative: what was asked.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    for name, side in (("A", before), ("B", after)):
        for run in side:
            header = run.header
            commit = f"{header.commit[:8]}{' with changes' * header.dirty}" if header.commit else ""
            models = " and ".join(
                str(part.header.machine.get("name", "")) for part in run.by_model()
            )
            about = ", ".join(filter(None, (models, header.date[:10], commit)))
            console.print(f"{name}: {run.path} ({about})", soft_wrap=True)
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    if found.compared:
        _print_rows(console, found.compared)
        console.print(_means(found))
    _legend(console, found.compared, smallest)
    _list(console, "only in A", (_name(row) for row in found.only_a))
    _list(console, "only in B", (_name(row) for row in found.only_b))
    _list(console, "not timed", (f"{_name(row)}, {said}" for row, said in found.untimed))
    regressions = [
        f"{_name(one.row)}, {one.state}: {one.change.ratio - 1:+.1%}, at least "
        f"{one.change.low - 1:+.1%}"
        for one in found.regressions(tolerance)
    ]
    failed = [f"{_name(row)}: {row.reason}" for row in found.failed]
    _list(console, "REGRESSION, failed in B", failed, "bold red")
    _list(console, f"REGRESSION, past {100 * tolerance:g} %", regressions, "bold red")


def _print_rows(console: Console, compared: list[Compared]) -> None:
    """Print a title and a table for each pass of each kernel, with columns in the same places."""
    states = {one.state for one in compared}
    groups: dict[str, list[Compared]] = {}
    for one in compared:
        state = f", {one.state}" if len(states) > 1 else ""
        model = f", on {one.model}" if one.model else ""
        title = f"{one.row.operation} {one.row.name} {one.row.direction}{state}{model}"
        groups.setdefault(title, []).append(one)
    console.print(_table())
    for title, group in groups.items():
        console.print(title, style="bold")
        table = _table(header=False)
        for one in group:
            change = one.change
            marks = "*" * one.measured.unstable + "?" * change.few
            marks += "=" * (one.same_source and change.verdict != "same")
            table.add_row(
                f"  {one.row.label}",
                _time(change.before_s),
                _time(change.after_s),
                _ratio(change.ratio),
                f"{_ratio(change.low)} to {_ratio(change.high)}",
                Text(f"{change.verdict} {marks}".rstrip(), COLOURS[change.verdict]),
            )
        console.print(table)


def _table(header: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, show_header=header)
    table.add_column("  shape", overflow="fold", width=24)
    for name, width in (("A", 8), ("B", 8), ("B/A", 5), ("95 % interval", 14)):
        table.add_column(name, justify="right", width=width)
    table.add_column("verdict", width=10)
    return table


def _means(found: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("geometric mean of B/A", overflow="fold", width=24)
    for name, width in (("", 8), ("rows", 8), ("B/A", 5), ("95 % interval", 14)):
        table.add_column(name, justify="right", width=width)
    for name, count, (ratio, low, high) in means(found):
        table.add_row(
            f"  {name}", "", str(count), _ratio(ratio), f"{_ratio(low)} to {_ratio(high)}"
        )
    return table


def _legend(console: Console, compared: list[Compared], smallest: float) -> None:
    counts = dict.fromkeys(COLOURS, 0)
    for one in compared:
        counts[one.change.verdict] += 1
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    console.print(f"{said}; differences up to {100 * smallest:g} % do not matter")
    for mark, used, meaning in (
        ("*", any(one.measured.unstable for one in compared),
         "did not settle; the interval is widened by what its quarters differ"),
        ("?", any(one.change.few for one in compared), "too few samples for a verdict"),
        ("=", any(one.same_source and one.change.verdict != "same" for one in compared),
         "the source is the same: look to the compiler or the machine first"),
    ):  # fmt: skip
        if used:
            console.print(f"{mark} {meaning}", style="dim")


def _list(console: Console, title: str, items: Iterable[str], style: str = "") -> None:
    lines = list(items)
    if lines:
        console.print(f"{title}:", style=style)
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)


def _name(row: Row) -> str:
    return f"{row.operation} {row.name} {row.direction}, {row.label}"


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.3g}"


def _time(seconds: float) -> str:
    unit, scale = next(
        (unit, scale)
        for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6))
        if seconds * scale >= 1 or unit == "us"
    )
    return f"{seconds * scale:#.4g} {unit}"
