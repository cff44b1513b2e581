"""Device memory of the double: pools that hand a freed block to the next who asks, as CuPy's do.

A block comes back to its pool when the last array on it is gone, and is then anyone's. A graph
holds addresses: whoever replays one after its memory went to somebody else overwrites them, here as
on a GPU. A pool that is gone has given its memory back, and a graph that still uses it fails.
"""

from __future__ import annotations

import contextlib
import contextvars
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

UNIT = 512  # bytes; CuPy rounds sizes up to it, and addresses are its multiples


class _Chunk:
    """Memory as the driver gave it."""

    def __init__(self, size: int) -> None:
        whole = np.empty(size + UNIT, np.uint8)
        begin = -whole.ctypes.data % UNIT
        self.bytes = whole[begin : begin + size]
        self.released = False


class Memory:
    """A chunk in somebody's hands; NumPy arrays made from it keep it alive."""

    def __init__(self, chunk: _Chunk, pool: weakref.ref[MemoryPool], stream: int) -> None:
        self.chunk, self._pool, self._stream = chunk, pool, stream

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.chunk.bytes.__array_interface__

    def __del__(self) -> None:
        pool = self._pool()
        if pool is not None:
            pool._free.setdefault(self._stream, []).append(self.chunk)
        else:
            self.chunk.released = True


class MemoryPool:
    """Keeps what was freed, apart for every stream, and gives the smallest that fits."""

    def __init__(self) -> None:
        self._free: dict[int, list[_Chunk]] = {}

    def malloc(self, size: int) -> Memory:
        """Return memory that holds `size` bytes."""
        from cupy.cuda import get_current_stream

        size = -(-max(size, 1) // UNIT) * UNIT
        stream = get_current_stream().ptr
        free = self._free.get(stream, [])
        fitting = [chunk for chunk in free if size <= chunk.bytes.size <= 2 * size]
        chunk = min(fitting, key=lambda chunk: chunk.bytes.size) if fitting else _Chunk(size)
        if fitting:
            free.remove(chunk)
        return Memory(chunk, weakref.ref(self), stream)

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give back what nobody holds."""
        for chunks in self._free.values():
            for chunk in chunks:
                chunk.released = True
        self._free.clear()

    def used_bytes(self) -> int:
        """Return 0: the double does not count."""
        return 0

    def __del__(self) -> None:
        self.free_all_blocks()


default_pool = MemoryPool()
_allocator: contextvars.ContextVar[Callable[[int], Memory]] = contextvars.ContextVar(
    "allocator", default=default_pool.malloc
)


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Memory]) -> Iterator[None]:
    """Take memory from `allocator` inside a ``with`` block."""
    token = _allocator.set(allocator)
    try:
        yield
    finally:
        _allocator.reset(token)


def allocate(shape: Any, dtype: Any) -> np.ndarray:
    """Return an array on the device, poisoned: every byte 0xff is NaN as a float, -1 as an int."""
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.asarray(_allocator.get()(nbytes))
    memory[:nbytes] = 0xFF
    return memory[:nbytes].view(dtype).reshape(shape)


def chunk_of(array: np.ndarray) -> _Chunk:
    """Return the chunk that an array lies on."""
    owner: Any = array
    while not isinstance(owner, Memory):
        owner = getattr(owner, "base", None)
        if owner is None:
            raise TypeError("an array of the double that lies outside its memory")
    return owner.chunk


def address_of(array: np.ndarray) -> np.ndarray:
    """Return a view of the same bytes that does not keep them: all that a graph has."""
    chunk = chunk_of(array)
    offset = array.ctypes.data - chunk.bytes.ctypes.data if array.size else 0
    return np.ndarray(array.shape, array.dtype, chunk.bytes, offset, array.strides)
