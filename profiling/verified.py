"""The README's "Verified on" table, written from the records of `profiling.verify`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec

from kernels import table
from kernels.one_line import one_line
from profiling import verify

BEGIN = "<!-- written by: python -m profiling verified --write README.md -->"
END = "<!-- end of what is written -->"

NOT_ON_GPU = "not yet run on a GPU"
NOT_ON_HOST = "not yet run"


_Word = Annotated[str, msgspec.Meta(pattern=r"^[ -~]{0,200}\Z")]  # what the table shows


class _Outcome(msgspec.Struct):
    passed: int
    failed: int


class _Kernel(msgspec.Struct):
    operation: str
    name: str
    passes: dict[str, _Outcome]


class _Lenet(msgspec.Struct):
    ok: bool
    conv: str | None = None
    pool: str | None = None
    block: str | None = None


class _Machine(msgspec.Struct):
    name: _Word


class _Record(msgspec.Struct):
    """What of a record the table is made of."""

    place: str
    machine: _Machine
    date: _Word
    commit: _Word | None
    dirty: bool
    kernels: list[_Kernel]
    lenet: list[_Lenet]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--write", type=Path, metavar="FILE", help="put the table into FILE")
    how.add_argument("--check", type=Path, metavar="FILE", help="fail unless FILE has this table")
    parser.add_argument("--results", type=Path, default=verify.RESULTS, metavar="DIR")


def run(args: argparse.Namespace) -> int:
    """Print, write or check the table and return the exit code."""
    path = args.write or args.check
    try:
        text = render(load(args.results))
        if path is None:
            print(text)
            return 0
        old = path.read_text()
        new = insert(old, text)
    except (OSError, ValueError) as error:
        print(f"verified: {one_line(str(error))}", file=sys.stderr)
        return 2
    if args.write:
        path.write_text(new)
    elif new != old:
        print(
            f"verified: the table in {path} is not what {args.results} gives; "
            f"python -m profiling verified --write {path}",
            file=sys.stderr,
        )
        return 1
    return 0


def load(folder: Path) -> list[dict[str, Any]]:
    """Return the records in a folder, by name of file; those of a test double are not among them.

    Raises
    ------
    ValueError
        A file that is no record, or one of another schema.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = msgspec.json.decode(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != verify.SCHEMA:
            raise ValueError(f"{path}: schema {schema!r}; expected {verify.SCHEMA}")
        try:
            msgspec.convert(record, _Record)
        except ValueError as error:
            raise ValueError(f"{path}: damaged: {error}; verify again") from None
        if record["place"] in verify.STEPS:
            records.append(record)
    return records


def render(records: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: a line for each kernel that runs on a GPU."""
    lines = ["| kernel | emulator (Numba: simulator) | GPU |", "| --- | --- | --- |"]
    for row in table.rows():
        if "gpu" not in row.places:
            continue
        on_host = [
            cell for where in row.places if where != "gpu" for cell in _cells(row, records, where)
        ]
        on_gpu = _cells(row, records, "gpu")
        lines.append(
            f"| {row.operation} `{row.name}` | {'<br>'.join(on_host) or NOT_ON_HOST} "
            f"| {'<br>'.join(on_gpu) or NOT_ON_GPU} |"
        )
    return "\n".join(lines)


def insert(document: str, text: str) -> str:
    """Return a document with the table between its markers.

    Raises
    ------
    ValueError
        When the markers are not there, each once and in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r}, once each")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def _cells(row: table.Row, records: list[dict[str, Any]], where: str) -> list[str]:
    cells = []
    for record in records:
        if record["place"] != where:
            continue
        found = [
            kernel
            for kernel in record["kernels"]
            if (kernel["operation"], kernel["name"]) == (row.operation, row.name)
        ]
        if not found:
            continue
        commit = f"`{record['commit'][:8]}`" if record["commit"] else "commit unknown"
        changed = " with changes" if record["dirty"] else ""
        name = f"{record['machine']['name']}, " if where == "gpu" else ""
        cells.append(f"{name}{_verdict(row, found[0], record)} {record['date']}, {commit}{changed}")
    return cells


def _verdict(row: table.Row, kernel: dict[str, Any], record: dict[str, Any]) -> str:
    """Return "passed", or what failed: passes, LeNet, or a pass that was not run."""
    failed = [
        name
        for name in row.passes
        if (outcome := kernel["passes"].get(name)) is None
        or outcome["failed"]
        or not outcome["passed"]
    ]
    own = {row.name, f"{row.operation.partition('_')[0]}:{row.name}"}
    kind = {"conv2d": "conv", "conv2d_relu_pool": "block"}.get(row.operation, "pool")
    runs = [lenet for lenet in record["lenet"] if lenet.get(kind) in own]
    if not all(lenet["ok"] for lenet in runs):
        failed.append("LeNet")
    return f"**failed**: {', '.join(failed)};" if failed else "passed"
