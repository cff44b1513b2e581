"""Numba's simulator with arrays that note who touches them: counts and faults, as the X-ray's.

The module `cuda` that a kernel sees is Numba's own double; its threads are those of `turns`.

Other than the X-ray, which sees the machine code, this sees Python run: the k-th access of each
lane of a warp at a line is taken as one request, which is not quite so where some lanes leave an
inner loop early. Branches and arithmetic are not counted.
"""

from __future__ import annotations

import dataclasses
import linecache
import operator
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba.cuda.simulator import kernelapi

from kernels.exercises.turns import Place, Thread, indices, run_block
from kernels.xray.record import Access, Array, Finding, Index3, Party, Recording, Warp

WARP, BANKS, SECTOR = 32, 32, 32


def record(
    function: Any,
    grid: Sequence[int],
    block: Sequence[int],
    args: Mapping[str, Any],
    empty: Sequence[str],
    outputs: Sequence[str],
) -> Recording:
    """Run one launch of a kernel's Python function on the simulator, and record it.

    Parameters
    ----------
    function
        With the module `cuda` among its globals.
    grid, block
        Blocks, and threads a block.
    args
        By parameter; arrays are written to.
    empty
        Arrays that hold nothing before.
    outputs
        Those whose every element has to be written.
    """
    watch = _Watch()
    grid3, block3 = _three(grid), _three(block)
    arrays = {
        name: _Watched(watch, name, value, "global", defined=name not in empty)
        for name, value in args.items()
        if isinstance(value, np.ndarray)
    }
    values = [arrays.get(name, _plain(value)) for name, value in args.items()]
    with kernelapi.swapped_cuda_module(function, _Cuda(grid3, block3, watch)):
        for at in indices(grid3):
            watch.look_at_barriers(run_block(partial(function, *values), at, block3))
    for name in outputs:
        watch.add_unwritten(function, arrays[name])
    threads = block3[0] * block3[1] * block3[2]
    blocks = grid3[0] * grid3[1] * grid3[2]
    return Recording(
        kernel=function.__name__, file=function.__code__.co_filename, defines={}, grid=grid3,
        block=block3, static_shared_bytes=0, dynamic_shared_bytes=0, accesses=watch.accesses(),
        branches=(), lines=(), findings=tuple(watch.findings.values()), flops=0,
        arrays=tuple(array.summary() for array in arrays.values()), blocks=blocks,
        warps=blocks * -(-threads // WARP), blocks_traced=blocks, cut=0, seconds=0.0,
    )  # fmt: skip


def _three(extent: Sequence[int]) -> Index3:
    x, y, z = (*extent, 1, 1)[:3]
    return x, y, z


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


class _Touch(NamedTuple):
    """One access by one thread; `epoch` counts the barriers that it had passed."""

    place: Place
    thread: Thread
    epoch: int
    operation: str

    def collides(self, other: _Touch) -> bool:
        """Whether nothing orders the two, and at least one of them writes."""
        if self.thread is other.thread:
            return False
        if self.thread.block == other.thread.block and self.epoch != other.epoch:
            return False
        operations = {self.operation, other.operation}
        return operations not in ({"read"}, {"atomic"})

    def party(self) -> Party:
        return Party(*self.place, self.thread.block, self.thread.at, self.operation)


class _Watch:
    """What all arrays of a launch have in common: the threads, the requests, the findings."""

    def __init__(self) -> None:
        self.findings: dict[tuple[Any, ...], Finding] = {}
        self._visits: dict[tuple[Any, ...], int] = {}
        self._requests: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[int, int]]] = {}

    def look_at_barriers(self, threads: Sequence[Thread]) -> None:
        """Look whether all threads of a block came to the same number of barriers."""
        most = max((thread.passed for thread in threads), key=len)
        for thread in threads:
            number = len(thread.passed)
            if number < len(most):
                here = sum(len(other.passed) > number for other in threads)
                self.add(
                    "barrier", most[number], thread.block, thread.at, None, None,
                    f"cuda.syncthreads() is reached by {here} of the block's {len(threads)} "
                    f"threads only: thread {thread.at} does not come",
                )  # fmt: skip
                return

    def request(self, array: _Watched, touch: _Touch, index: int) -> None:
        """Take an access as its lane's part in a request of the warp."""
        key = (touch.place, array.name, array.space, touch.operation, array.values.itemsize)
        thread = touch.thread
        visit = self._visits.get((key, thread), 0)
        self._visits[key, thread] = visit + 1
        group = self._requests.setdefault(key, {})
        lanes = group.setdefault((thread.block, thread.number // WARP, visit), {})
        lanes[thread.number % WARP] = index

    def add(
        self,
        kind: str,
        place: Place,
        block: Index3 | None,
        thread: Index3 | None,
        array: str | None,
        index: int | None,
        message: str,
        count: int = 1,
        other: Party | None = None,
    ) -> None:
        """Add a finding, or count it to the one of its place and array."""
        key = (kind, place, array)
        if first := self.findings.get(key):
            self.findings[key] = dataclasses.replace(first, count=first.count + count)
            return
        self.findings[key] = Finding(
            kind, "", *place, block, thread, array, index, message, count, other
        )

    def add_unwritten(self, function: Any, array: _Watched) -> None:
        missing = np.flatnonzero(~array.defined)
        if missing.size:
            written = [key[0] for key in self._requests if key[1] == array.name]
            code = function.__code__
            place = written[0] if written else (code.co_filename, code.co_firstlineno)
            self.add(
                "unwritten", place, None, None, array.name, int(missing[0]),
                f"{missing.size} of {array.defined.size} elements of {array.name} are never "
                f"written, the first is {array.name}[{missing[0]}]", int(missing.size),
            )  # fmt: skip

    def accesses(self) -> tuple[Access, ...]:
        return tuple(
            _access(key, self._requests[key]) for key in sorted(self._requests, key=lambda k: k[0])
        )


def _access(key: tuple[Any, ...], requests: dict[tuple[Any, ...], dict[int, int]]) -> Access:
    """Return all executions of one access in the units of the X-ray."""
    (file, line), name, space, operation, itemsize = key
    is_shared = space == "shared"
    sectors = ideal_sectors = waves = ideal_waves = conflicts = 0
    worst, worst_cost, all_elements = None, -1, set()
    for (block, warp, _), lanes in requests.items():
        elements = set(lanes.values())
        all_elements |= elements
        conflicts += len(lanes) - len(elements) if operation == "atomic" else 0
        if is_shared:
            words = [element % BANKS for element in elements]
            cost, least = max(map(words.count, words)), -(-len(elements) // BANKS)
            waves, ideal_waves = waves + cost, ideal_waves + least
        else:
            cost = len({element * itemsize // SECTOR for element in elements})
            sectors, ideal_sectors = (
                sectors + cost,
                ideal_sectors + -(-len(elements) * itemsize // SECTOR),
            )
        if cost > worst_cost:
            worst_cost = cost
            worst = Warp(block, warp, 0, tuple(lanes.get(lane) for lane in range(WARP)))
    active = sum(map(len, requests.values()))
    return Access(
        file=file, line=line, array=name, space=space, operation=operation, width=itemsize,
        itemsize=itemsize, requests=len(requests), lanes=active, bytes=active * itemsize,
        unique_bytes=len(all_elements) * itemsize, sectors=sectors, ideal_sectors=ideal_sectors,
        wavefronts=waves, ideal_wavefronts=ideal_waves, conflicts=conflicts, warp=worst,
    )  # fmt: skip


class _Watched:
    """An array as a kernel sees it: indexed by one number, or one for each dimension."""

    def __init__(
        self, watch: _Watch, name: str, values: np.ndarray, space: str, defined: bool
    ) -> None:
        self.name, self.space = name, space
        self.shape = values.shape if space == "shared" else (values.size,)  # as a GPU gets it
        self.size, self.dtype = values.size, values.dtype
        self.values = values.reshape(-1)
        self.defined = np.full(values.size, defined)
        self._watch = watch
        self._written: dict[int, _Touch] = {}
        self._read: dict[int, list[_Touch]] = {}
        self._seen = {"read": np.zeros(values.size, bool), "write": np.zeros(values.size, bool)}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        at = self._note(index, "read")
        return self.values.dtype.type(np.nan) if at is None else self.values[at]

    def __setitem__(self, index: Any, value: Any) -> None:
        at = self._note(index, "write")
        if at is not None:
            self.values[at] = value

    def summary(self) -> Array:
        """Return which of it was touched."""
        figures = []
        for operation in ("read", "write"):
            touched = np.flatnonzero(self._seen[operation])
            nbytes = touched.size * self.values.itemsize
            figures.append((nbytes, np.unique(touched * self.values.itemsize // SECTOR).size))
        (read, read_sectors), (written, written_sectors) = figures
        return Array(
            self.name, str(self.dtype), self.values.nbytes, read, written, read_sectors,
            written_sectors,
        )  # fmt: skip

    def _note(self, index: Any, operation: str) -> int | None:
        """Note one access; return its place in `values`, or None where there is none."""
        frame = sys._getframe(2)
        is_atomic = frame.f_code.co_filename == kernelapi.__file__  # in cuda.atomic
        if is_atomic and frame.f_back:
            frame = frame.f_back
        place = frame.f_code.co_filename, frame.f_lineno
        thread: Any = threading.current_thread()
        touch = _Touch(place, thread, len(thread.passed), "atomic" if is_atomic else operation)
        numbers = tuple(map(operator.index, index if isinstance(index, tuple) else (index,)))
        if len(numbers) != len(self.shape):
            raise TypeError(
                f"{self.name} has {len(self.shape)} dimensions and is indexed by "
                f"{len(numbers)} numbers (arrays in global memory are flat)"
            )
        flat, is_inside = 0, True
        for number, extent in zip(numbers, self.shape, strict=True):
            flat = flat * extent + number
            is_inside &= 0 <= number < extent
        if not is_inside:
            extents = " x ".join(map(str, self.shape))
            text = f"{operation}s {self._element(numbers)}, outside of its {extents} elements"
            self._add("bounds", touch, flat, text)
            return None
        if not (is_atomic and operation == "read"):  # an atomic addition is one access
            self._watch.request(self, touch, flat)
        self._look_for_race(touch, flat, numbers)
        if operation == "read" and not self.defined[flat]:
            text = f"reads {self._element(numbers)}, which nobody has written"
            self._add("uninitialised", touch, flat, text)
        self._seen[operation][flat] = True
        if operation == "write":
            self.defined[flat] = True
        return flat

    def _element(self, numbers: tuple[int, ...]) -> str:
        return f"{self.name}[{', '.join(map(str, numbers))}]"

    def _look_for_race(self, touch: _Touch, flat: int, numbers: tuple[int, ...]) -> None:
        earlier = [self._written[flat]] if flat in self._written else []
        if touch.operation == "read":
            self._read.setdefault(flat, []).append(touch)
        else:
            earlier += self._read.pop(flat, [])
            self._written[flat] = touch
        other = next((one for one in earlier if touch.collides(one)), None)
        if other:
            one, two = touch.thread, other.thread
            text = (
                f"{touch.operation} of {self._element(numbers)} by thread {one.at} of block "
                f"{one.block}, and {other.operation} by thread {two.at} of block {two.block} at "
                f"line {other.place[1]}, with no barrier between"
            )
            self._add("race", touch, flat, text, other.party())

    def _add(
        self, kind: str, touch: _Touch, flat: int, message: str, other: Party | None = None
    ) -> None:
        block, at = touch.thread.block, touch.thread.at
        self._watch.add(kind, touch.place, block, at, self.name, flat, message, 1, other)


class _Cuda(kernelapi.FakeCUDAModule):
    """The module `cuda` of a watched launch."""

    def __init__(self, grid: Index3, block: Index3, watch: _Watch) -> None:
        super().__init__(grid, block, 0)
        self._watched = _Shared(watch)

    @property
    def shared(self) -> _Shared:
        return self._watched

    def syncthreads(self) -> None:
        thread: Any = threading.current_thread()
        frame = sys._getframe(1)
        thread.wait_at((frame.f_code.co_filename, frame.f_lineno))


class _Shared:
    """Takes the place of cuda.shared: every block gets arrays of its own, which hold nothing."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._arrays: dict[tuple[Any, ...], _Watched] = {}

    def array(self, shape: int | tuple[int, ...], dtype: Any, alignment: Any = None) -> _Watched:
        del dtype, alignment  # exercises are in float32
        frame = sys._getframe(1)
        file, line = frame.f_code.co_filename, frame.f_lineno
        thread: Any = threading.current_thread()
        key = (file, line, thread.block)
        if key not in self._arrays:
            named = re.match(r"\s*(\w+)\s*=", linecache.getline(file, line))
            values = np.full(shape, np.nan, np.float32)
            name = named[1] if named else "shared array"
            self._arrays[key] = _Watched(self._watch, name, values, "shared", defined=False)
        return self._arrays[key]
