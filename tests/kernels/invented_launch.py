"""Recordings made by hand, for tests of what is worked out from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kernels.xray.record import Access, Array, Recording


def access(space: str = "global", operation: str = "read", **counts: int) -> Access:
    """Return an access that counted what is given, and nothing else."""
    fields = (field.name for field in dataclasses.fields(Access) if field.type == "int")
    known = {**dict.fromkeys(fields, 0), "line": 1, "width": 4, "itemsize": 4, **counts}
    return Access(file="mine.cu", array="x", space=space, operation=operation, warp=None, **known)


def array(read: int = 0, written: int = 0, dtype: str = "float32") -> Array:
    """Return an array of which so many sectors were read and written."""
    nbytes = 32 * max(read, written)
    return Array("x", dtype, nbytes, 32 * read, 32 * written, read, written)


def launch(
    *accesses: Access,
    blocks: int = 1000,
    traced: int | None = None,
    flops: int = 0,
    arrays: tuple[Array, ...] = (),
    threads: int = 256,
    shared_bytes: int = 0,
    file: Path | str = "mine.cu",
    kernel: str = "mine",
    cut: int = 0,
) -> Recording:
    """Return a launch of so many blocks, all of them traced unless said otherwise."""
    return Recording(
        kernel=kernel,
        file=str(file),
        defines={},
        grid=(blocks, 1, 1),
        block=(threads, 1, 1),
        static_shared_bytes=0,
        dynamic_shared_bytes=shared_bytes,
        accesses=accesses,
        branches=(),
        lines=(),
        findings=(),
        flops=flops,
        arrays=arrays,
        blocks=blocks,
        warps=blocks * -(-threads // 32),
        blocks_traced=blocks if traced is None else traced,
        cut=cut,
        seconds=0.1,
    )
