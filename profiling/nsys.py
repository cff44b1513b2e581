"""Nsight Systems round a command: run `nsys profile`, then its sums of ranges and kernels."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

# The reports' names now, and before 2023.
REPORTS = {"range": ("nvtx_sum", "nvtxsum"), "kernel": ("cuda_gpu_kern_sum", "gpukernsum")}
# What names a row: nvtx_sum has Range, cuda_gpu_kern_sum has Name.
NAME_COLUMNS = ("Range", "Name")
STDERR = 2
MISSING = (
    "nsys is not on PATH; it comes with the CUDA toolkit and from "
    "https://developer.nvidia.com/nsight-systems (without it, leave --nsys out)"
)


class NsysError(RuntimeError):
    """nsys is missing or failed; the message says what to do."""


def run(command: list[str], output: Path | None, top: int, as_json: bool) -> int:
    """Profile a command and print one table; return the command's exit code.

    Parameters
    ----------
    command
        To execute.
    output
        The report, ``trace.nsys-rep`` by default; one that is there is replaced.
    top
        Rows of each kind.
    as_json
        Print JSON; the command's output goes to stderr.

    Raises
    ------
    NsysError
        nsys is missing, wrote no report or cannot read it.
    """
    if shutil.which("nsys") is None:
        raise NsysError(MISSING)
    report = (output or Path("trace.nsys-rep")).with_suffix(".nsys-rep")
    line = [
        "nsys", "profile", "--trace=cuda,nvtx,osrt", "--force-overwrite=true",
        f"--output={report.with_suffix('')}", *command,
    ]  # fmt: skip
    code = subprocess.run(line, stdout=STDERR if as_json else None, check=False).returncode
    if not report.exists():
        raise NsysError(f"nsys wrote no {report} (exit code {code}): {shlex.join(line)}")
    tables = {kind: read_report(report, names)[:top] for kind, names in REPORTS.items()}
    if as_json:
        print(json.dumps({"report": str(report), "exit_code": code, **tables}, indent=2))
    else:
        show(tables, report)
    return 128 - code if code < 0 else code


def read_report(report: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of one of nsys's sums: name, count, total_s, mean_s.

    Parameters
    ----------
    report
        The ``.nsys-rep``.
    names
        The sum's name, and its older ones.

    Raises
    ------
    NsysError
        ``nsys stats`` knows none of the names; the message is its own.
    """
    said = ""
    for name in names:
        line = ["nsys", "stats", "--report", name, "--format", "csv", "--output", "-", str(report)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "could not be found" not in done.stdout + done.stderr:
            return parse(done.stdout)
        said = said or (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    raise NsysError(f"nsys stats --report {names[0]} failed: {said.splitlines()[-1]}")


def parse(text: str) -> list[dict[str, Any]]:
    """Read what ``nsys stats --format csv`` prints: remarks, a header, and rows.

    A report without data (SKIPPED, no header) gives no rows.
    """
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("Time (%),")), None)
    if start is None:
        return []
    rows = []
    for row in csv.DictReader(lines[start:]):
        name = next((row[column] for column in NAME_COLUMNS if row.get(column)), None)
        if name is None or not row.get("Instances"):
            continue
        total, count = float(row["Total Time (ns)"]), int(row["Instances"])
        rows.append(
            {"name": name, "count": count, "total_s": total / 1e9, "mean_s": total / count / 1e9}
        )
    return rows


def show(tables: dict[str, list[dict[str, Any]]], report: Path) -> None:
    """Print ranges and kernels in one table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="")
    for heading in ("kind", "name"):
        table.add_column(heading)
    for heading in ("count", "total", "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for kind, rows in tables.items():
        for row in rows:
            times = (f"{row[key] * 1e3:,.3f} ms" for key in ("total_s", "mean_s"))
            table.add_row(kind, row["name"], f"{row['count']:,}", *times)
    console = Console(highlight=False, markup=False)
    console.print(table)
    for kind, rows in tables.items():
        if not rows:
            console.print(f"nsys saw no {kind}")
    console.print(f"{report}: open it in Nsight Systems", soft_wrap=True)
