"""``python -m kernels list --resources``: one line a GPU function, or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from importlib import metadata

from kernels import resources, table
from kernels.source import KernelCompileError

ARCH = "sm_90"
PIPE_COLUMNS = 100  # where the output is no terminal

Listing = list[tuple[table.Row, list[resources.Resources]]]


def run(args: argparse.Namespace) -> int:
    """Print what `args` asks for; return 0, 1 (a file does not compile) or 2 (bad input)."""
    arch, dtype = ARCH if args.arch is None else args.arch, args.dtype or "float32"
    try:
        resources.check_arch(arch)
    except (ValueError, resources.NvrtcMissingError) as error:
        print(f"list: {error}", file=sys.stderr)
        return 2
    try:
        listing = _compile(arch, dtype)
    except resources.NvrtcMissingError as error:
        print(f"list: {error}", file=sys.stderr)
        return 2
    except KernelCompileError as error:
        print(f"list: {error}", file=sys.stderr)
        return 1
    compilers = {
        "cuda_c": f"NVRTC {resources.nvrtc_version()}",
        "numba": f"numba-cuda {metadata.version('numba-cuda')}",
    }
    if args.json:
        records = [
            {"operation": row.operation, "name": row.name, "language": row.language, "arch": arch}
            | {"compiler": compilers[row.language]}
            | dataclasses.asdict(one)
            for row, found in listing
            for one in found
        ]
        print(json.dumps(records, indent=2))
    else:
        _print(listing, f"{arch}, {dtype}", " and ".join(compilers.values()))
    return 0


def _compile(arch: str, dtype: str) -> Listing:
    from rich.console import Console
    from rich.progress import Progress

    rows = [row for row in table.rows() if "gpu" in row.places]
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        rows_seen = progress.track(rows, description=f"compiling for {arch}")
        listing = [(row, resources.of_row(row, arch, dtype)) for row in rows_seen]
    return [(row, found) for row, found in listing if found]


def _print(listing: Listing, made_for: str, made_by: str) -> None:
    from rich.console import Console
    from rich.table import Table

    view = Table(box=None, padding=(0, 1, 0, 0))  # narrow: the names are long
    view.add_column("function", overflow="fold")
    view.add_column("tile")
    for column in ("registers", "shared", "+ dynamic", "spills", "stack"):
        view.add_column(column, justify="right")
    for row, found in listing:
        view.add_row(f"[bold]{row.operation} {row.name}[/] ({row.language})")
        for one in found:
            view.add_row(
                f"   {one.function}",
                _tile(one.defines),
                str(one.registers),
                f"{one.shared_bytes:,}",
                _dynamic(one.dynamic_bytes),
                f"{one.spill_stores}/{one.spill_loads}" if _spills(one) else "0",
                str(one.stack_bytes),
            )
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)
    console.print(view)
    everything = [one for _, found in listing for one in found]
    spilling = sum(map(_spills, everything))
    console.print(
        f"{len(everything)} compiled functions for {made_for}: at most "
        f"{max((one.registers for one in everything), default=0)} registers; "
        f"spilling: {spilling or 'none'}.",
        highlight=False,
    )
    console.print(
        f"Compiled by {made_by}.\n"
        "Registers are a thread's, the rest is bytes. Shared memory is a block's; dynamic is what\n"
        "LeNet's layers launch the function with (-: they do not), first/second if they differ.\n"
        "Spills are stored/loaded.",
        style="dim",
        highlight=False,
    )


def _spills(one: resources.Resources) -> bool:
    return bool(one.spill_stores or one.spill_loads)


def _tile(defines: dict[str, int | str]) -> str:
    if "TILE_P" in defines:
        return f"{defines['TILE_P']}x{defines['TILE_Q']}"
    if "LAYER" in defines:  # the fused block's
        return "x".join(str(defines[name]) for name in ("IMAGES", "FILTERS", "ROWS", "STRIP"))
    if "FILTER" in defines:  # register_tiled's: a filter's size, and outputs of a thread
        size = f"{defines['FILTER']}x{defines['FILTER']}" if defines["FILTER"] else "any"
        return f"{size}/{defines['COLS']}" if "COLS" in defines else size
    return "-"


def _dynamic(layers: dict[str, int]) -> str:
    """Return the bytes, by layer where they differ."""
    if not layers:
        return "-"
    if len(set(layers.values())) == 1:
        return f"{next(iter(layers.values())):,}"
    return "/".join(f"{nbytes:,}" for nbytes in layers.values())
