"""The check's sanitiser: every pass of a kernel recorded on a few small shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kernels import cases, check, emulator, table

from .passes import record_pass
from .record import Finding


def sanitise(row: table.Row, seed: int = 0, but: Collection[str] = ()) -> Iterator[check.Result]:
    """
    Record every pass of a kernel on small shapes that reach all of its branches.

    Parameters
    ----------
    row : Row
        A kernel in CUDA C.
    seed : int
        Of the random inputs.
    but : collection of str
        Passes to leave out.

    Yields
    ------
    Result
        One for each (shape, pass), not ok where there was a finding: an access out of bounds, a
        race, a read of what nobody wrote, an element never written, a barrier that not all reach.
        As `check.check_row`'s they end with a file that does not compile, or a pass that does not
        end.
    """
    ended = set(but)
    for shape in cases.fixed(row.operation, "simulator"):
        for direction in row.passes:
            if direction in ended or row.refuses(direction, shape, "float32"):
                continue
            skips = ""
            try:
                recordings = record_pass(row, direction, shape, seed=seed)
                found = [finding for recording in recordings for finding in recording.findings]
                message = "\n".join(map(describe, found))
            except emulator.EmulatorError as error:  # an endless loop, a trap
                message, skips = f"{type(error).__name__}: {error}", check.skipped_after(error)
            yield check.Result(
                row.operation, row.name, direction, "sanitiser", "float32", shape,
                not message, 0.0, message, skips,
            )  # fmt: skip
            if skips == "row":
                return
            if skips:
                ended.add(direction)


def describe(finding: Finding) -> str:
    """Return a finding in one line: where, what, and how often."""
    place = f"{finding.file.rpartition('/')[2]}:{finding.line}"
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    return f"{place} {finding.kind}: {finding.message}{times}"
