"""What a benchmark has measured so far: in memory, and in its file as soon as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from profiling.bench_group import Group
from profiling.result_file import Device, End, Header, Results, Row, Writer
from profiling.result_file import Group as Line


class Record:
    """The rows of a run, and of what it goes on with.

    Parameters
    ----------
    path
        The result file; None to keep the rows in memory alone.
    header
        Its first line.
    begun
        The file to go on with; None for a new one.
    devices
        Of the ranks, one each; none where one process alone measures.

    Raises
    ------
    ResultFileError
        A file that cannot be written.
    """

    def __init__(
        self, path: Path | None, header: Header, begun: Results | None, devices: Sequence[Device]
    ) -> None:
        self._path, self._header = path or Path(), header
        self._rows = list(begun.rows) if begun else []
        self._done = {row.key[:3] for row in self._rows}
        self._devices = list(begun.devices) if begun else []
        self._writer = Writer(path, None if begun else header) if path else None
        for device in devices:
            if device not in self._devices:
                self._devices.append(device)
                self._write(device)
        self._numbers = [self._devices.index(device) for device in devices]

    def has(self, group: Group) -> bool:
        """Tell whether a group was measured already."""
        shape = tuple(group.case.shape._asdict().items())
        return (group.case.operation, group.direction, shape) in self._done

    def add(self, rows: list[Row], rank: int) -> list[Row]:
        """Keep a group's rows, and return them with the device that the rank measured them on."""
        if self._numbers:
            number = self._numbers[rank]
            rows = [msgspec.structs.replace(row, device=number) for row in rows]
        self._rows += rows
        self._write(Line(rows))
        return rows

    def end(self, seconds: float) -> Results:
        """Say that the file is whole, and return what is in it."""
        end = End(len(self._rows), round(seconds, 1))
        self._write(end)
        return Results(self._path, self._header, self._rows, end, tuple(self._devices))

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)

    def _write(self, line: Device | Line | End) -> None:
        if self._writer is not None:
            self._writer.add(line)
