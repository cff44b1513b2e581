"""The command ``xray``: a row's pass, or a kernel of the user's own, under the X-ray."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from kernels import emulator, page, resources, shape_text, table
from kernels.source import KernelCompileError
from kernels.xray import gpus, launches, own_file, source_view, static, unsupported, xray_page
from kernels.xray.arguments import ArgumentsError
from kernels.xray.launches import Xray
from kernels.xray.line_totals import Place, label, line_totals
from kernels.xray.record import Recording
from kernels.xray.static import Report
from kernels.xray.wording import counted

# Small, and with edges on all sides: what a kernel does wrong it mostly does there.
DEFAULT_SHAPES = {
    "conv2d": "2,1,28,28,6,5,5,1,2",
    "conv2d_relu_pool": "2,1,28,28,6,5,5,1,2",
    "max_pool2d": "2,6,28,28,2",
    "avg_pool2d": "2,6,28,28,2",
}
DEFAULT_GPU = "h200"
PIPED_WIDTH = 120
OF_A_ROW = ("shape", "direction")
OF_A_FILE = ("kernel", "grid", "block", "shared", "defines", "include_dirs", "arguments")


class XrayError(ValueError):
    """What was asked for cannot be done; the message says what can."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options; `run` takes what is parsed."""
    parser.description = (
        "Run a CUDA C kernel on the emulator and see, line by line, what it does with memory and "
        "what it does wrong. NAME is a row of the lab, or a .cu file of your own; the file alone "
        "lists its kernels and a command line to start from. Exit 1 means findings."
    )
    parser.add_argument("name", metavar="NAME", help="a kernel's name, or a .cu file")
    parser.add_argument(
        "--gpu", metavar="GPU",
        help=f"for resources, occupancy and the bound: {', '.join(gpus.GPUS)} "
        f"(default {DEFAULT_GPU})",
    )  # fmt: skip
    parser.add_argument(
        "--measured", metavar="TIME",
        help="what the launch took on such a GPU, such as 12.3us: to stand beside the bound",
    )  # fmt: skip
    parser.add_argument(
        "--line", metavar="[FILE:]L", help="this line alone, and where the lanes of a warp fall"
    )
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page as well")
    parser.add_argument("--json", action="store_true", help="for a program to read")
    rows = parser.add_argument_group("a kernel of the lab")
    rows.add_argument(
        "--shape", metavar="SHAPE",
        help="N,C,H,W,K,R,S[,stride[,padding[,dilation]]]; of a pooling "
        "N,C,H,W,size[,stride[,padding]]",
    )  # fmt: skip
    rows.add_argument("--pass", dest="direction", metavar="PASS", help="(default forward)")
    files = parser.add_argument_group("a .cu file of your own")
    files.add_argument("--kernel", metavar="NAME", help="which kernel, where there are several")
    files.add_argument("--grid", metavar="N", help="blocks: 64, 8x8 or 8x8x2")
    files.add_argument("--block", metavar="N", help="threads a block: 256 or 16x16")
    files.add_argument("--shared", metavar="BYTES", help="dynamic shared memory (default 0)")
    files.add_argument(
        "--arg", dest="arguments", action="append", metavar="[NAME=]VALUE",
        help="one for each parameter, by name or in order. Arrays: INIT:SHAPE or INIT:TYPE:SHAPE, "
        "such as x=random:float32:32x32, where INIT is random, zeros, ones, arange or empty (reads "
        "before writes are findings, and so is what is never written); a .npy file; null. "
        "Numbers: n=1024",
    )  # fmt: skip
    files.add_argument(
        "-D", dest="defines", action="append", metavar="NAME[=VALUE]", help="a macro"
    )
    files.add_argument(
        "-I", dest="include_dirs", action="append", metavar="DIR", help="where includes are"
    )


def run(args: argparse.Namespace) -> int:
    """X-ray what `args` name; return 0, 1 where there are findings, 2 for bad input."""
    try:
        return _run(args)
    except (XrayError, ArgumentsError, shape_text.ShapeTextError) as error:
        print(f"xray: {error}", file=sys.stderr)
        return 2
    except (emulator.CompileError, emulator.CompilerNotFound, emulator.LaunchError) as error:
        print(f"xray: {unsupported.with_advice(str(error))}", file=sys.stderr)
        return 2
    except emulator.EmulatorError as error:  # the kernel's own end: a trap, the time limit
        print(f"xray: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    gpu = _gpu(args.gpu or DEFAULT_GPU)
    measured = _seconds(args.measured) if args.measured else None
    if args.html:
        _check_page(args.html)
    if args.json and args.line:
        raise XrayError("--line is for a person; --json has all lines")
    is_row = any(row.name == args.name for row in table.rows())
    of_a_file = args.name.endswith(".cu") or (not is_row and Path(args.name).is_file())
    _refuse(args, OF_A_ROW if of_a_file else OF_A_FILE, of_a_file)
    if of_a_file:
        asked = own_file.read(args)
        if isinstance(asked, str):
            print(asked)
            return 0
        record = partial(own_file.record, asked)
    else:
        row, direction = _row(args.name, args.direction or "forward")
        text = args.shape or DEFAULT_SHAPES[row.operation]
        shape = shape_text.parse(text, row.operation)
        if shape.n == 0:
            raise XrayError(f"shape {text!r}: N is 0; an empty batch launches nothing")
        if reason := row.refuses(direction, shape, "float32"):
            raise XrayError(f"kernel {row.name!r} {reason}; name another --shape")
        record = partial(launches.of_row, row, direction, shape, text)
    with _busy(args.name):
        xray = record()
    if measured and len(xray.recordings) != 1:
        raise XrayError(f"--measured is for one launch; there are {len(xray.recordings)}")
    focus = _focus(args.line, xray) if args.line else None
    include_dirs = tuple(map(Path, args.include_dirs or ()))
    with _busy(gpu.name):
        reports = (
            []
            if focus and not args.html
            else [_report(one, xray, gpu, measured, include_dirs) for one in xray.recordings]
        )
    if any(isinstance(report, Report) and report.has_local_memory for report in reports):
        # What goes there is counted in a run of its own: it is slow, and most kernels have none.
        # Where the compiler does not take what makes it visible, it stays unknown.
        with _busy(f"{args.name}: local memory"), contextlib.suppress(emulator.CompileError):
            xray = record(local_arrays=True)
        with _busy(gpu.name):
            reports = [_report(one, xray, gpu, measured, include_dirs) for one in xray.recordings]
    if args.json:
        print(json.dumps(to_dict(xray, reports), indent=2))
    else:
        source_view.render(_console(), xray, reports, focus)
        for note in _closing(args, of_a_file, xray):
            print(note)
    if args.html:
        _write(args.html, xray, reports)
    return 1 if xray.findings else 0


def to_dict(xray: Xray, reports: Sequence[Report | str]) -> dict[str, Any]:
    """Return an X-ray as JSON has it.

    Parameters
    ----------
    xray
        What was recorded.
    reports
        For each launch the static report, or why there is none.
    """
    return {
        "title": xray.title,
        "declared_flops": xray.declared_flops,
        "findings": len(xray.findings),
        "launches": [
            recording.to_dict()
            | {
                "static": None if isinstance(report, str) else report.to_dict(),
                "static_missing": report if isinstance(report, str) else None,
            }
            for recording, report in zip(xray.recordings, reports, strict=True)
        ],
        "not_traced": [str(step) for step in xray.steps if isinstance(step, launches.Product)],
    }


def _gpu(name: str) -> gpus.Gpu:
    try:
        return gpus.find(name)
    except ValueError as error:
        raise XrayError(f"--gpu: {error}") from None


def _refuse(args: argparse.Namespace, others: Sequence[str], of_a_file: bool) -> None:
    options = {"direction": "--pass", "defines": "-D", "include_dirs": "-I", "arguments": "--arg"}
    for name in others:
        if getattr(args, name) is not None:
            goes = "a kernel of the lab, not with a .cu file" if of_a_file else "a .cu file"
            raise XrayError(f"{options.get(name, '--' + name)} goes with {goes}; got {args.name!r}")


def _row(name: str, direction: str) -> tuple[table.Row, str]:
    rows = [row for row in table.rows() if row.language == "cuda_c"]
    known = ", ".join(row.name for row in rows)
    row = next((row for row in rows if row.name == name), None)
    if row is None:
        other = next((row for row in table.rows() if row.name == name), None)
        twin = name.removesuffix("_numba")
        if other and any(row.name == twin for row in rows):
            raise XrayError(f"the X-ray is of CUDA C; {name!r} is Numba, its twin is {twin!r}")
        if other:
            raise XrayError(f"the X-ray is of CUDA C; {name!r} runs on the host; there are {known}")
        hint = f"; a .cu file of your own: {name}.cu" if Path(f"{name}.cu").exists() else ""
        raise XrayError(f"no CUDA C kernel named {name!r}; there are {known}{hint}")
    if direction not in row.passes:
        raise XrayError(f"{name} has no pass {direction!r}; it has {', '.join(row.passes)}")
    return row, direction


def _focus(text: str, xray: Xray) -> Place:
    name, _, number = text.rpartition(":")
    if not re.fullmatch(r"\d{1,9}", number):
        raise XrayError(f"--line {text}: expected a line's number, or FILE:NUMBER")
    places = sorted({at for recording in xray.recordings for at in line_totals(recording)})
    for file, line in places:
        if line == int(number) and name in ("", file, label(file), Path(file).name):
            return file, line
    lines: dict[str, list[str]] = {}
    for file, line in places:
        lines.setdefault(label(file), []).append(str(line))
    known = "; ".join(f"{file}: {', '.join(numbers)}" for file, numbers in lines.items())
    there = f"there, but at {known}" if known else "at any line"
    raise XrayError(f"--line {text}: nothing was recorded {there}")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ns|us|µs|ms|s)", text)
    if not match or not float(match[1]):
        raise XrayError(f"--measured {text}: expected a time with its unit, such as 12.3us or 1ms")
    return float(match[1]) * {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}[match[2]]


def _report(
    recording: Recording,
    xray: Xray,
    gpu: gpus.Gpu,
    measured: float | None,
    include_dirs: tuple[Path, ...],
) -> Report | str:
    file = xray.compiled_from.get(recording.file, recording.file)
    try:
        named = dataclasses.replace(recording, file=file)
        return static.of_recording(named, gpu, measured, include_dirs)
    except (resources.NvrtcMissingError, KernelCompileError, ValueError) as error:
        first, *more = str(error).strip().splitlines()
        said = next((line for line in more if "error" in line), "")
        return f"{first} {said}".strip().replace(file, label(recording.file))


def _closing(args: argparse.Namespace, of_a_file: bool, xray: Xray) -> list[str]:
    """Return what was chosen for the user, and how to choose otherwise; and what is to be seen."""
    notes = []
    if args.shape is None and not of_a_file:
        notes.append("The shape is a small one: --shape names another.")
    if args.gpu is None and args.line is None:
        notes.append(f"The GPU is {DEFAULT_GPU}: --gpu names another.")
    if xray.findings:
        notes.append(f"{counted(len(xray.findings), 'finding')}, listed at the top.")
    return notes


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _busy(what: str) -> Any:
    """Return a context that shows on a terminal that something is going on."""
    console = Console(stderr=True)
    return console.status(f"compiling and running {what}")


def _check_page(path: Path) -> None:
    """Refuse a page that could not be written, before anything is run."""
    if not path.parent.is_dir():
        raise XrayError(f"--html {path}: there is no directory {path.parent}")
    if path.is_dir() or (path.exists() and not page.is_ours(path)):
        raise XrayError(f"--html {path}: there is something that is no page of this lab")


def _write(path: Path, xray: Xray, reports: Sequence[Report | str]) -> None:
    try:
        path.write_text(xray_page.build(xray, reports), encoding="utf-8")
    except OSError as error:
        raise XrayError(f"--html {path}: {error.strerror}") from None
    print(f"{path}  {path.stat().st_size / 1e3:,.0f} kB", file=sys.stderr)
