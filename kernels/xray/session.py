"""Records launches: one that is asked for, or all of a ``with`` block."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kernels import emulator
from kernels.emulator import options
from kernels.emulator.module import Function
from kernels.emulator.scan import followed

from . import names
from .launch import MOST_BLOCKS, trace
from .memory import Memory
from .record import Finding, Index3, Recording


@contextmanager
def recording(
    *,
    outputs: Iterable[np.ndarray] = (),
    inputs: Iterable[np.ndarray] | None = None,
    most_blocks: int = MOST_BLOCKS,
    local_arrays: bool = False,
) -> Iterator[list[Recording]]:
    """
    Record every launch on the emulator inside a ``with`` block, also those of the lab's rows.

    A fault of a kernel is a finding of its recording; it is not raised. Findings of the kind
    ``"unwritten"`` are there when the block has ended.

    Parameters
    ----------
    outputs : iterable of numpy.ndarray
        Arrays that hold nothing before: reading them before they are written is a finding, and so
        is an element that no launch has written.
    inputs : iterable of numpy.ndarray, optional
        Arrays that hold something before. Where given, an array that is neither input nor output
        (a workspace) holds nothing before it is written.
    most_blocks : int
        Of a grid with more blocks, a sample of this many is traced; the others only run.
    local_arrays : bool
        Whether accesses to a kernel's own arrays are recorded, which takes longer. Most of them are
        kept in registers on a GPU: `static.report` says which are not.

    Yields
    ------
    list of Recording
        It grows by one a launch.

    Raises
    ------
    EmulatorError
        For what ends a kernel early and is no finding: its time limit, a trap.
    ValueError
        For a `most_blocks` below 1.
    """
    if most_blocks < 1:
        raise ValueError(f"most_blocks is {most_blocks}; expected at least 1")
    memory = Memory(outputs, inputs)
    recordings: list[Recording] = []
    launches: list[tuple[Function, Sequence[Any]]] = []

    def record_one(
        function: Function, grid: Index3, block: Index3, args: Sequence[Any], shared_mem: int
    ) -> None:
        launches.append((function, args))
        recordings.append(
            trace(function, grid, block, args, shared_mem, memory, most_blocks, local_arrays)
        )

    token = options.interceptor.set(record_one)
    try:
        yield recordings
    finally:
        options.interceptor.reset(token)
    for output in memory.outputs:
        _add_unwritten(recordings, launches, memory, output)


def _add_unwritten(
    recordings: list[Recording],
    launches: Sequence[tuple[Function, Sequence[Any]]],
    memory: Memory,
    output: np.ndarray,
) -> None:
    """Add a finding for an output's elements that no launch wrote, to the last that could have."""
    missing = memory.unwritten(output)
    if not missing.size:
        return
    for number in range(len(recordings) - 1, -1, -1):
        function, args = launches[number]
        for position, arg in enumerate(args):
            is_it = isinstance(arg, np.ndarray) and arg.ctypes.data == output.ctypes.data
            if not is_it or function.parameters[position].is_const:
                continue
            recording = recordings[number]
            build = function.module.build
            files = followed(build.path, build.include_dirs)
            file, line, parameters = names.declaration(function.name, files)
            fits = len(parameters) == len(args)
            name = parameters[position] if fits else f"argument {position + 1}"
            place = str(file), line
            for access in recording.accesses:
                if access.array == name and access.operation != "read":
                    place = access.file, access.line
                    break
            index = int(missing[0])
            finding = Finding(
                kind="unwritten",
                kernel=function.name,
                file=place[0],
                line=place[1],
                block=None,
                thread=None,
                array=name,
                index=index,
                message=f"{missing.size} of {output.size} elements of {name} are never written, "
                f"the first is {name}[{index}]",
                count=int(missing.size),
            )
            recordings[number] = dataclasses.replace(
                recording, findings=(*recording.findings, finding)
            )
            return


def record(
    source: str | os.PathLike[str] | Function,
    grid: Sequence[int],
    block: Sequence[int],
    args: Sequence[Any],
    *,
    kernel: str = "",
    shared_mem: int = 0,
    defines: Mapping[str, object] | None = None,
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    outputs: Iterable[np.ndarray] = (),
    most_blocks: int = MOST_BLOCKS,
    local_arrays: bool = False,
) -> Recording:
    """
    Record one launch of a kernel.

    Parameters
    ----------
    source : path or Function
        A ``.cu`` file, or a function of the emulator.
    grid, block : tuple of 1 to 3 int
        Blocks, and threads a block.
    args : sequence
        Arrays, NumPy scalars, structured scalars, None for a null pointer. Arrays are written to.
    kernel : str
        Which of the file's kernels, or a template's instance such as ``"scale<float, 3>"``; may be
        left out where the file has one only.
    shared_mem : int
        Bytes of dynamic shared memory.
    defines, include_dirs
        As for `kernels.emulator.load`.
    outputs, most_blocks, local_arrays
        As for `recording`.

    Returns
    -------
    Recording
        With its findings.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    EmulatorError
        For what does not compile, does not fit, or ends the kernel early and is no finding.
    """
    if isinstance(source, Function):
        function = source
    else:
        instances = [kernel] if "<" in kernel or "::" in kernel else []
        module = emulator.load(Path(source), defines, include_dirs, instances)
        if not kernel and len(module.kernels) > 1:
            raise emulator.EmulatorError(
                f"{module.path.name} has several kernels: name one of {', '.join(module.kernels)}"
            )
        function = module.get_function(kernel or module.kernels[0])
    # More than 48 KiB is asked for on a GPU by an attribute; here it is enough to ask.
    if shared_mem > function.max_dynamic_shared_size_bytes:
        function.max_dynamic_shared_size_bytes = shared_mem
    with recording(
        outputs=outputs, most_blocks=most_blocks, local_arrays=local_arrays
    ) as recordings:
        function(tuple(grid), tuple(block), tuple(args), shared_mem=shared_mem)
    return recordings[0]
