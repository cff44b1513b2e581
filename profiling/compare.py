"""Compare two benchmark files row by row: faster, slower or the same, and by how much.

A is the baseline, B the candidate; a ratio above 1 means that B takes longer. Its 95 % interval
holds what scatters within a run and, from the other rows, what differs between two runs as far as
it does not move all rows alike: of one run a side nobody can tell that from a change of every
kernel. Where it matters run both in turns, A B A B A B, and give all files: --also-a, --also-b.

Files of `bench --distributed` may hold several models of device: then rows are compared only where
both sides measured them on the same model.

A row is the same unless its whole interval lies beyond --smallest, and stays so when all rows are
judged together: of the rows called different one in twenty is so by chance, on average. A row that
the benchmark could not settle is marked; its interval is widened by what its quarters differ. The
exit status is 1 if a row's interval lies above 1 + --tolerance, or if a row that A timed failed in
B.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from profiling import conditions, verdicts
from profiling.result_file import ResultFileError, Results, Row, Timing, load

# Of single runs: so many rows, this share of them beyond the margin on one side, are suspicious.
MANY, TOGETHER = 5, 0.8


class Compared(NamedTuple):
    """A row that both sides timed.

    Attributes
    ----------
    row
        As B has it.
    state
        ``"cold"`` or ``"hot"``.
    change
        What became of it.
    measured
        The samples.
    same_source
        Whether the kernel's source, or the peer's version, was the same.
    model
        Of the device that both sides measured it on, where a side has several; else empty.
    """

    row: Row
    state: str
    change: verdicts.Change
    measured: verdicts.Measured
    same_source: bool
    model: str = ""

    def regressed(self, tolerance: float) -> bool:
        """Tell whether the row is slower by more than a relative tolerance."""
        return self.change.verdict == "slower" and self.change.low > 1 + tolerance


class Comparison(NamedTuple):
    """Two sides, compared.

    Attributes
    ----------
    compared
        Rows that both timed.
    failed
        Rows that A timed and B's judge failed.
    untimed
        Rows of both that one side did not time, with what they are there.
    only_a, only_b
        Rows that the other side has not.
    """

    compared: list[Compared]
    failed: list[Row]
    untimed: list[tuple[Row, str]]
    only_a: list[Row]
    only_b: list[Row]

    def regressions(self, tolerance: float) -> list[Compared]:
        """Return the rows that are slower by more than a relative tolerance."""
        return [one for one in self.compared if one.regressed(tolerance)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("before", type=Path, metavar="A", help="a benchmark's file: the baseline")
    parser.add_argument("after", type=Path, metavar="B", help="another: the candidate")
    for side in "ab":
        parser.add_argument(
            f"--also-{side}",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help=f"more runs of {side.upper()}'s side",
        )
    parser.add_argument("--state", choices=("cold", "hot", "both"), default="cold")
    parser.add_argument(
        "--smallest",
        type=_per_cent,
        default=0.005,
        metavar="PERCENT",
        help="differences up to this do not matter (0.5: code elsewhere in memory does as much)",
    )
    parser.add_argument(
        "--tolerance",
        type=_per_cent,
        default=0.02,
        metavar="PERCENT",
        help="exit with 1 if a row is slower by more than this (2)",
    )
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Compare, print, and return the exit code: 1 where something got slower or failed."""
    try:
        before = [load(path) for path in (args.before, *args.also_a)]
        after = [load(path) for path in (args.after, *args.also_b)]
        states = ("cold", "hot") if args.state == "both" else (args.state,)
        found = compare(before, after, states, args.smallest)
    except (ResultFileError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    warnings = [*conditions.differences(before, after), *_doubts(found, before + after)]
    if args.json:
        print(json.dumps(_record(found, warnings, args), indent=2))
    else:
        from profiling import compare_table  # rich takes a while

        compare_table.show(found, warnings, before, after, args.smallest, args.tolerance)
    return 1 if found.failed or found.regressions(args.tolerance) else 0


def compare(
    before: list[Results], after: list[Results], states: tuple[str, ...], smallest: float
) -> Comparison:
    """Match the rows of two sides by their key, and judge those that both timed.

    Where a side has several models of device, rows of unlike ones are not matched.

    Parameters
    ----------
    before, after
        The runs of each side.
    states
        ``"cold"``, ``"hot"`` or both.
    smallest
        Relative differences up to this one do not matter.

    Raises
    ------
    ResultFileError
        Two sides with no row in common, or none that both timed.
    """
    apart = conditions.has_several_models(before) or conditions.has_several_models(after)
    one, other = _by_key(before, apart), _by_key(after, apart)
    both = [key for key in one if key in other]
    if not both:
        raise ResultFileError(
            f"{before[0].path} and {after[0].path} have no row in common: A has {_names(before)}, "
            f"B has {_names(after)}; benchmark the same kernels on the same shapes"
            f"{' and models of device' if apart else ''}"
        )
    failed, rows, kept = [], [], []
    untimed, alone = _elsewhere(one, other)
    for key in both:
        was, now = one[key], other[key]
        if _status(was) == "timed" and _status(now) == "failed":
            failed.append(next(row for row in now if row.status == "failed"))
            continue
        for state in states:
            times = [[_timing(row, state) for row in side] for side in (was, now)]
            known = [[timing for timing in side if timing is not None] for side in times]
            if not all(known):
                said = f"{state}: {_status(was)} in A, {_status(now)} in B"
                untimed.append((now[0], said))
                continue
            samples = [[np.array(timing.samples_s) for timing in side] for side in known]
            unstable = not all(timing.stable for side in known for timing in side)
            rows.append(verdicts.Measured(samples[0], samples[1], unstable))
            kept.append((now[0], state, conditions.same_source(was, now), key[-1]))
    if not rows and not failed:
        raise ResultFileError(
            f"{before[0].path} and {after[0].path}: no row was timed {' or '.join(states)} in both"
            f"; {untimed[0][0].name} is {untimed[0][1]}"
        )
    changes = verdicts.judge(rows, smallest)
    return Comparison(
        [
            Compared(row, state, change, measured, same, model)
            for (row, state, same, model), change, measured in zip(kept, changes, rows, strict=True)
        ],
        failed,
        untimed,
        *alone,
    )


def means(found: Comparison) -> list[tuple[str, int, tuple[float, float, float]]]:
    """Return geometric means of the ratios, of each kernel or peer and of all kernels.

    Returns
    -------
    list of (name, number of rows, (mean, low, high))
    """
    groups: dict[str, list[Compared]] = {}
    for one in found.compared:
        groups.setdefault(f"{one.row.operation} {one.row.name}", []).append(one)
    ours = [one for one in found.compared if one.row.kind == "kernel"]
    if ours:
        groups["all kernels"] = ours
    return [
        (
            name,
            len(group),
            verdicts.geometric_mean([x.measured for x in group], [x.change for x in group]),
        )
        for name, group in groups.items()
    ]


def _per_cent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < 1000:
        raise argparse.ArgumentTypeError(f"{text!r}; expected per cent, 0 or more, such as 2")
    return value / 100


def _by_key(side: list[Results], apart: bool) -> dict[tuple[Any, ...], list[Row]]:
    """Return a side's rows by their keys; `apart`, by the device's model as well."""
    rows: dict[tuple[Any, ...], list[Row]] = {}
    for run in side:
        for row in run.rows:
            rows.setdefault((*row.key, run.model(row) if apart else ""), []).append(row)
    return rows


def _elsewhere(
    one: dict[tuple[Any, ...], list[Row]], other: dict[tuple[Any, ...], list[Row]]
) -> tuple[list[tuple[Row, str]], tuple[list[Row], list[Row]]]:
    """Return what both sides measured, but on unlike devices; and what one side alone has."""
    models: list[dict[tuple[Any, ...], list[str]]] = [{}, {}]
    for side, rows in zip(models, (one, other), strict=True):
        for *key, model in rows:
            side.setdefault(tuple(key), []).append(model)
    unlike = [
        (one[(*key, found[0])][0],
         f"on {' and '.join(found)} in A, on {' and '.join(models[1][key])} in B")
        for key, found in models[0].items()
        if key in models[1] and not set(found) & set(models[1][key])
    ]  # fmt: skip
    only_a = [rows[0] for key, rows in one.items() if key[:-1] not in models[1]]
    only_b = [rows[0] for key, rows in other.items() if key[:-1] not in models[0]]
    return unlike, (only_a, only_b)


def _status(rows: list[Row]) -> str:
    """Return one word for a row in all runs of a side: the worst."""
    found = {row.status for row in rows}
    return next(status for status in ("failed", "timed", "skipped") if status in found)


def _timing(row: Row, state: str) -> Timing | None:
    return row.cold if state == "cold" else row.hot


def _names(side: list[Results]) -> str:
    names = sorted({f"{row.operation} {row.name}" for run in side for row in run.rows})
    return ", ".join(names[:4]) + (" ..." if len(names) > 4 else "") or "no rows"


def _doubts(found: Comparison, runs: list[Results]) -> list[str]:
    """Return what one run a side leaves open."""
    if len(runs) > 2 or not found.compared:
        return []
    ratios = np.array([one.change.ratio for one in found.compared])
    beyond = [one.change for one in found.compared if one.change.verdict != "same"]
    if len(ratios) <= verdicts.LEAST_OTHERS and beyond:
        return [
            f"one run a side and {len(ratios)} rows: how much two runs of the same code differ is "
            "not known; run both in turns and give all files (--also-a, --also-b)"
        ]
    slower = float(np.mean([change.ratio > 1 for change in beyond])) if beyond else 0.0
    share = len(beyond) / len(ratios) * max(slower, 1 - slower)
    if len(ratios) >= MANY and share >= TOGETHER:
        return [
            f"{share:.0%} of the rows moved together, by {np.median(ratios) - 1:+.1%} in the "
            "median: of one run a side this may be the machine; run both in turns and give all "
            "files (--also-a, --also-b)"
        ]
    return []


def _record(found: Comparison, warnings: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Return what --json prints."""

    def identity(row: Row, model: str = "") -> dict[str, Any]:
        return {
            "operation": row.operation, "name": row.name, "direction": row.direction,
            "kind": row.kind, "label": row.label, "dtype": row.dtype, "shape": row.shape,
        } | ({"model": model} if model else {})  # fmt: skip

    return {
        "a": [str(path) for path in (args.before, *args.also_a)],
        "b": [str(path) for path in (args.after, *args.also_b)],
        "smallest": args.smallest,
        "tolerance": args.tolerance,
        "warnings": warnings,
        "rows": [
            identity(one.row, one.model)
            | {"state": one.state, **one.change._asdict()}
            | {"unstable": one.measured.unstable, "same_source": one.same_source}
            | {"regression": one.regressed(args.tolerance)}
            for one in found.compared
        ],
        "failed": [identity(row) | {"reason": row.reason} for row in found.failed],
        "untimed": [identity(row) | {"reason": said} for row, said in found.untimed],
        "only_in_a": [identity(row) for row in found.only_a],
        "only_in_b": [identity(row) for row in found.only_b],
        "geometric_means": [
            {"name": name, "rows": count, "ratio": ratio, "low": low, "high": high}
            for name, count, (ratio, low, high) in means(found)
        ],
    }
