"""The arrays of the recorded launches: copies with guard zones, which a stray access cannot leave.

A copy is of the whole allocation that an array is a view of, and begins where cudaMalloc would have
it begin, on a multiple of 256 bytes: so sectors are a GPU's, whatever NumPy's allocator did.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import binding

GUARD = 64 << 10  # bytes on either side
ALIGN = 256
# Larger ones have no record of who wrote which word: it takes 4 bytes a byte, read ones 12.
MOST_WITH_CELLS = 128 << 20


class _Copy:
    """An allocation's bytes between two guard zones, and which of them hold a value."""

    def __init__(self, owner: np.ndarray) -> None:
        self.owner = owner  # kept: its address must not become another array's
        self.address = owner.ctypes.data
        self.nbytes = owner.nbytes
        buffer = np.full(self.nbytes + 2 * GUARD + ALIGN, 0xFF, np.uint8)
        skip = -(buffer.ctypes.data + GUARD) % ALIGN
        self._buffer = buffer
        self.bytes = buffer[skip + GUARD : skip + GUARD + self.nbytes]
        self.begin = self.bytes.ctypes.data
        self.bits = np.full(-(-self.nbytes // 64) + 1, -1, np.int64)
        self.has_undefined = False
        self.bytes[:] = self.outside()

    def outside(self) -> np.ndarray:
        """Return the bytes of the allocation itself."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.nbytes).from_address(self.address))

    def flags(self, array: np.ndarray) -> np.ndarray:
        """Return one bool an element: whether all its bytes hold a value."""
        first = array.ctypes.data - self.address
        bits = np.unpackbits(self.bits.view(np.uint8), bitorder="little")
        return np.asarray(
            bits[first : first + array.nbytes].reshape(-1, array.itemsize).all(axis=1)
        )

    def set_defined(self, array: np.ndarray, defined: bool) -> None:
        """Say whether an array's bytes hold a value."""
        first = array.ctypes.data - self.address
        bits = np.unpackbits(self.bits.view(np.uint8), bitorder="little")
        bits[first : first + array.nbytes] = defined
        self.bits[:] = np.packbits(bits, bitorder="little").view(np.int64)
        self.has_undefined |= not defined


class Argument(NamedTuple):
    """One array of a launch: the caller's, its name, and whether the kernel cannot write it."""

    array: np.ndarray
    name: str
    is_const: bool


class Memory:
    """
    All the arrays of some launches.

    Parameters
    ----------
    outputs : iterable of numpy.ndarray
        Those that hold no value before the launches, and have to hold one in every element after.
    inputs : iterable of numpy.ndarray, optional
        Those that do; where given, an array that is of neither (a workspace) holds no value either,
        unless the first kernel that takes it cannot write it: then the host did.
    """

    def __init__(
        self, outputs: Iterable[np.ndarray] = (), inputs: Iterable[np.ndarray] | None = None
    ) -> None:
        self.outputs = [array for array in outputs if array.size]
        self._inputs = None if inputs is None else [array for array in inputs if array.size]
        self._copies: dict[tuple[int, int], _Copy] = {}
        self._seen: set[tuple[int, int]] = set()
        for array in self.outputs:
            self.copy_of(array).set_defined(array, False)

    def copy_of(self, array: np.ndarray) -> _Copy:
        """Return the copy of the allocation that an array lies in."""
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        first, last = owner.ctypes.data, owner.ctypes.data + owner.nbytes
        if not (first <= array.ctypes.data and array.ctypes.data + array.nbytes <= last):
            owner = array
        key = (owner.ctypes.data, owner.nbytes)
        if key not in self._copies:
            self._copies[key] = _Copy(owner)
        return self._copies[key]

    def enter(self, arguments: Sequence[Argument]) -> None:
        """Bring the copies up to date before a launch."""
        for argument in arguments:
            copy, array = self.copy_of(argument.array), argument.array
            if not np.array_equal(copy.bytes, copy.outside()):
                copy.bytes[:] = copy.outside()
                copy.bits[:] = -1  # the host wrote it; what exactly is not known
            key = (array.ctypes.data, array.nbytes)
            if key in self._seen:
                continue
            self._seen.add(key)
            known = self._inputs is None or _among(array, self._inputs)
            if not known and not argument.is_const and not _among(array, self.outputs):
                copy.set_defined(array, False)

    def leave(self, arguments: Sequence[Argument], everything: bool) -> None:
        """Give back what a launch wrote; `everything`: of all that it can have written."""
        for argument in arguments:
            if argument.is_const:
                continue
            copy = self.copy_of(argument.array)
            copy.outside()[:] = copy.bytes
            if everything:
                copy.set_defined(argument.array, True)

    def packed(self, array: np.ndarray) -> np.ndarray:
        """Return the copy of an array, for the kernel."""
        copy = self.copy_of(array)
        first = array.ctypes.data - copy.address
        view = copy.bytes[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
        return view

    def regions(self, arguments: Sequence[Argument]) -> list[tuple[binding.Array, Argument]]:
        """Return each different array of a launch once, with the argument it is called after."""
        found: dict[tuple[int, int], tuple[binding.Array, Argument]] = {}
        for argument in arguments:
            array, copy = argument.array, self.copy_of(argument.array)
            key = (array.ctypes.data, array.nbytes)
            if key in found:
                region, first = found[key]
                region.is_const &= argument.is_const
                region.has_cells |= not argument.is_const and array.nbytes <= MOST_WITH_CELLS
                if first.is_const and not argument.is_const:
                    found[key] = (region, argument)
                continue
            begin = copy.begin + array.ctypes.data - copy.address
            word = (begin - copy.begin) // 64
            bits = copy.bits.ctypes.data + 8 * word if copy.has_undefined else None
            region = binding.Array(
                begin=begin,
                end=begin + array.nbytes,
                guard_begin=copy.begin - GUARD,
                guard_end=copy.begin + copy.nbytes + GUARD,
                initialised=bits,
                is_const=argument.is_const,
                has_cells=not argument.is_const and array.nbytes <= MOST_WITH_CELLS,
            )
            found[key] = (region, argument)
        return list(found.values())

    def unwritten(self, array: np.ndarray) -> np.ndarray:
        """Return the flat indices of an output's elements that no launch wrote."""
        if (array.ctypes.data, array.nbytes) not in self._seen:
            return np.empty(0, np.int64)
        return np.flatnonzero(~self.copy_of(array).flags(array))


def _among(array: np.ndarray, arrays: Sequence[Any]) -> bool:
    first, last = array.ctypes.data, array.ctypes.data + array.nbytes
    return any(
        first >= other.ctypes.data and last <= other.ctypes.data + other.nbytes for other in arrays
    )
