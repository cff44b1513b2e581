"""Result files side by side: what they share, and in which order it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kernels import table
from profiling import result_file
from profiling.result_file import Device, Header, ResultFileError, Results, Row, Timing

FIRST_RUNG = "naive"


class Series(NamedTuple):
    """One file, or of a file its rows of one model of device: its name on the page, its rows."""

    name: str
    results: Results

    @property
    def header(self) -> Header:
        """The file's first line."""
        return self.results.header

    @property
    def devices(self) -> list[tuple[Device, list[Row]]]:
        """The devices of a file of several, each with its rows."""
        return [
            (device, rows)
            for i, device in enumerate(self.results.devices)
            if (rows := [row for row in self.results.rows if row.device == i])
        ]

    def timed(self, which: Pass) -> list[Row]:
        """Return the rows of a pass that were timed, in the file's order."""
        return [row for row in self.of(which) if row.status == "timed"]

    def of(self, which: Pass) -> list[Row]:
        """Return all rows of a pass, in the file's order."""
        return [row for row in self.results.rows if Pass.of(row) == which]


class Pass(NamedTuple):
    """What kernels are compared within: an operation, a direction, a type."""

    operation: str
    direction: str
    dtype: str

    @classmethod
    def of(cls, row: Row) -> Pass:
        """Return a row's pass."""
        return cls(row.operation, row.direction, row.dtype)

    @property
    def title(self) -> str:
        """``"conv2d forward"``; float32 goes without saying."""
        return " ".join(self[:2] if self.dtype == "float32" else self)


class Block(NamedTuple):
    """The rows of one shape: kernels in the ladder's order, then peers; files in theirs."""

    label: str
    entries: list[tuple[Series, Row]]


class Sweep(NamedTuple):
    """Shapes that differ in their batch alone."""

    title: str
    fixed: frozenset[tuple[str, int]]

    def rows(self, file: Series, which: Pass) -> list[Row]:
        """Return a file's timed rows of the sweep, by batch."""
        mine = [row for row in file.timed(which) if _fixed(row) == self.fixed and row.shape["n"]]
        return sorted(mine, key=lambda row: row.shape["n"])


def load(paths: Sequence[Path]) -> list[Series]:
    """Read result files that belong on one page.

    Raises
    ------
    ResultFileError
        One cannot be read, is given twice, times a row without a time, or has no shape and pass in
        common with any other.
    """
    twice = {path for i, path in enumerate(paths) if path.resolve() in _resolved(paths[:i])}
    if twice:
        raise ResultFileError(f"{min(twice)} is given twice; name each file once")
    every = [result_file.load(path) for path in paths]
    stems = [path.stem for path in paths]
    unique = len(set(stems)) == len(stems)
    for results in every:
        for row in results.rows:
            if row.status == "timed" and not timings(row):
                raise ResultFileError(
                    f"{results.path}: {row.name} on {row.label} is timed but has no time"
                )
        others = {cell for other in every if other is not results for cell in _cells(other)}
        if len(every) > 1 and not _cells(results) & others:
            raise ResultFileError(
                f"{results.path} has no operation, pass, shape and type in common with "
                f"{' or '.join(str(o.path) for o in every if o is not results)}; "
                "make a page of each"
            )
    found = []
    for stem, results in zip(stems, every, strict=True):
        name, parts = stem if unique else str(results.path), results.by_model()
        for part in parts:
            said = f"{name}, {part.model(part.rows[0])}" if len(parts) > 1 else name
            found.append(Series(said, part))
    return found


def passes(files: Sequence[Series], *, timed: bool = True) -> list[Pass]:
    """Return the passes that any file has (has timed), those of the table first, in its order."""
    known = [(row.operation, direction) for row in table.rows() for direction in row.passes]
    rows = [row for file in files for row in file.results.rows]
    found = {Pass.of(row) for row in rows if not timed or row.status == "timed"}
    return sorted(found, key=lambda p: (known.index(p[:2]) if p[:2] in known else len(known), p))


def ladder_order(row: Row) -> tuple[bool, int, str]:
    """Return a key that sorts kernels as the table does, peers after them by name."""
    names = table.names(row.operation)
    rung = names.index(row.name) if row.name in names else len(names)
    return row.kind == "peer", rung if row.kind == "kernel" else 0, row.name


def main_timing(row: Row) -> tuple[str, Timing]:
    """Return what a timed row is judged by: its cold timing, or the hot one if it has no other."""
    return timings(row)[0]


def timings(row: Row) -> list[tuple[str, Timing]]:
    """Return the timings that a row has, cold first."""
    return [(s, t) for s, t in (("cold", row.cold), ("hot", row.hot)) if t is not None]


def groups(files: Sequence[Series], which: Pass) -> list[str]:
    """Return the groups of a pass, in the order in which the files have them."""
    return list(dict.fromkeys(row.group for file in files for row in file.of(which)))


def sweeps(files: Sequence[Series], which: Pass) -> list[Sweep]:
    """Return what is the same but for its batch, named by its group, or by a shape within it."""
    found: dict[frozenset[tuple[str, int]], Row] = {}
    for file in files:
        for row in file.timed(which):
            if row.shape.get("n"):
                found.setdefault(_fixed(row), row)
    groups = [row.group for row in found.values()]
    return [
        Sweep(row.group if groups.count(row.group) == 1 else f"{row.group} as {row.label}", fixed)
        for fixed, row in found.items()
    ]


def largest(files: Sequence[Series], which: Pass) -> list[Block]:
    """Return each group's largest shape, as far as most files have it."""
    return [_blocks(files, which, group)[-1] for group in groups(files, which)]


def both_ends(files: Sequence[Series], which: Pass) -> list[Block]:
    """Return each group's smallest and largest shape."""
    ends = []
    for group in groups(files, which):
        blocks = _blocks(files, which, group)
        ends += blocks if len(blocks) == 1 else [blocks[0], blocks[-1]]
    return ends


def _blocks(files: Sequence[Series], which: Pass, group: str) -> list[Block]:
    """Return a group's shapes by size: those which the most files have."""
    shapes: dict[Any, list[tuple[Series, Row]]] = {}
    for file in files:
        for row in file.of(which):
            if row.group == group:
                shapes.setdefault(tuple(row.shape.items()), []).append((file, row))
    spread = {shape: len({file.name for file, _ in rows}) for shape, rows in shapes.items()}
    widest = [rows for shape, rows in shapes.items() if spread[shape] == max(spread.values())]
    widest.sort(key=lambda rows: rows[0][1].least_bytes)
    return [
        Block(rows[0][1].label, sorted(rows, key=lambda entry: ladder_order(entry[1])))
        for rows in widest
    ]


def _fixed(row: Row) -> frozenset[tuple[str, int]]:
    return frozenset((name, extent) for name, extent in row.shape.items() if name != "n")


def _cells(results: Results) -> set[tuple[Any, ...]]:
    return {row.key[:-1] for row in results.rows}


def _resolved(paths: Sequence[Path]) -> list[Path]:
    return [path.resolve() for path in paths]
