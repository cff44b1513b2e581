"""Traces one launch on the emulator and puts what was seen into a `Recording`."""

from __future__ import annotations

import ctypes
import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernels import emulator
from kernels.emulator import options
from kernels.emulator.module import Function, load
from kernels.emulator.scan import followed

from . import binding, names
from .memory import Argument, Memory
from .record import Index3, Recording
from .translation import Translation

MOST_BLOCKS = 4096
MOST_EVENTS = 3 << 19  # of a warp, from barrier to barrier
SLOWER = 40  # the time limit is meant for untraced launches

_lock = threading.Lock()  # the runtime traces one launch at a time


def sample(blocks: int, most: int) -> list[int]:
    """Return which of a launch's blocks to trace: all, or first, last and evenly between."""
    if blocks <= most:
        return list(range(blocks))
    if most == 1:
        return [0]
    return sorted({i * (blocks - 1) // (most - 1) for i in range(most)})


def trace(
    function: Function,
    grid: Index3,
    block: Index3,
    args: Sequence[Any],
    shared_mem: int,
    memory: Memory,
    most_blocks: int = MOST_BLOCKS,
    local_arrays: bool = False,
) -> Recording:
    """
    Run one launch traced, and record it.

    Parameters
    ----------
    function : Function
        The emulator's, of a plain or a traced build.
    grid, block : tuple of 3 int
        Blocks, and threads a block.
    args : sequence
        As for the function.
    shared_mem : int
        Bytes of dynamic shared memory.
    memory : Memory
        Of this launch and those that go before it.
    most_blocks : int
        Of a larger grid a sample of this many blocks is traced; the others only run.
    local_arrays : bool
        Whether accesses to the kernel's own arrays are recorded.

    Raises
    ------
    EmulatorError
        For what ends a kernel early and is no finding: time limit, trap, a machine's want.
    """
    build = dataclasses.replace(function.module.build, traced=True)
    traced = load(
        build.path,
        dict(build.defines),
        build.include_dirs,
        build.name_expressions,
        traced=True,
        local_arrays=local_arrays,
    ).get_function(function.name)
    traced.max_dynamic_shared_size_bytes = function.max_dynamic_shared_size_bytes
    files = followed(build.path, build.include_dirs)
    return _Trace(traced, files, grid, block, shared_mem, most_blocks).run(args, memory)


class _Trace:
    def __init__(
        self,
        function: Function,
        files: Sequence[Path],
        grid: Index3,
        block: Index3,
        shared_mem: int,
        most_blocks: int,
    ) -> None:
        self.function = function
        self.files = files
        self.grid, self.block, self.shared_mem = grid, block, shared_mem
        self.blocks = grid[0] * grid[1] * grid[2]
        self.sampled = sample(self.blocks, most_blocks)
        self.shared = names.shared_arrays(function.module.library_path)
        self.regions: list[tuple[binding.Array, Argument]] = []

    def run(self, args: Sequence[Any], memory: Memory) -> Recording:
        arguments = self._arguments(args)
        began = time.perf_counter()
        with _lock:
            memory.enter(arguments)
            self.regions = memory.regions(arguments)
            packed = [
                memory.packed(arg) if isinstance(arg, np.ndarray) and arg.size else arg
                for arg in args
            ]
            runtime = binding.runtime()
            request, alive = self._request()
            runtime.emulator_trace_begin(ctypes.byref(request))
            try:
                ended = self._launch(packed)
                seen = binding.Result()
                runtime.emulator_trace_result(ctypes.byref(seen))
                recording = self._translation().recording(seen, ended)
            finally:
                runtime.emulator_trace_end()
                del alive
            partial = ended is not None or len(self.sampled) < self.blocks or seen.cut > 0
            memory.leave(arguments, everything=partial)
        if isinstance(ended, emulator.EmulatorError) and not recording.findings:
            raise ended
        return dataclasses.replace(recording, seconds=time.perf_counter() - began)

    def _arguments(self, args: Sequence[Any]) -> list[Argument]:
        _, _, parameters = names.declaration(self.function.name, self.files)
        found = []
        for number, (arg, expected) in enumerate(
            zip(args, self.function.parameters, strict=False), 1
        ):
            if expected.is_pointer and isinstance(arg, np.ndarray) and arg.size:
                fits = len(parameters) == len(self.function.parameters)
                name = parameters[number - 1] if fits else f"argument {number}"
                found.append(Argument(arg, name, expected.is_const))
        return found

    def _request(self) -> tuple[binding.Request, list[Any]]:
        arrays = (binding.Array * len(self.regions))(*(region for region, _ in self.regions))
        shared = (binding.Shared * len(self.shared))(
            *(binding.Shared(offset, size) for _, offset, size in self.shared)
        )
        blocks = None
        if len(self.sampled) < self.blocks:
            blocks = (ctypes.c_uint64 * len(self.sampled))(*self.sampled)
        library = self.function.module.library
        request = binding.Request(
            pen=ctypes.addressof(ctypes.c_char.in_dll(library, "traced_pen")),
            arrays=arrays,
            shared=shared,
            blocks=blocks,
            copies=ctypes.addressof(ctypes.c_char.in_dll(library, "traced_copies")),
            array_count=len(arrays),
            shared_count=len(shared),
            block_count=len(self.sampled),
            copy_count=ctypes.c_uint64.in_dll(library, "traced_copy_count").value,
            most_events=MOST_EVENTS,
            local_arrays=self.function.module.build.local_arrays,
        )
        return request, [arrays, shared, blocks]

    def _launch(self, packed: Sequence[Any]) -> emulator.EmulatorError | None:
        now = options.current()
        limit = None if now.time_limit is None else SLOWER * now.time_limit
        settings = dataclasses.replace(now, order="forward", workers=1, time_limit=limit)
        try:
            self.function.launch(self.grid, self.block, packed, self.shared_mem, settings)
        except (emulator.BarrierDivergence, emulator.IllegalAddress) as error:
            return error
        return None

    def _translation(self) -> Translation:
        return Translation(
            self.function, self.files, self.grid, self.block, self.shared_mem, self.regions
        )
