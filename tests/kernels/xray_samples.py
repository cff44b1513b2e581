"""Made-up recordings and accesses: what the views are tried on without a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kernels.xray import Access, Array, Branch, Finding, Line, Recording, Warp

SOURCE = """\
__device__ int never(int i) { return i; }

__global__ void scale(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        y[i] = 2 * x[32 * i];
    }
}
"""
BRANCH, ACCESS = 5, 6  # lines


def access(
    elements: Any,
    *,
    space: str = "global",
    operation: str = "read",
    width: int = 4,
    base: int = 0,
    array: str = "x",
    file: str = "scale.cu",
    line: int = ACCESS,
    **counts: int,
) -> Access:
    """One request by 32 lanes, whose elements are given; counts not named are 0."""
    lanes = tuple(elements) + (None,) * (32 - len(tuple(elements)))
    active = sum(element is not None for element in lanes)
    unknown = dict.fromkeys(
        ("unique_bytes", "sectors", "ideal_sectors", "wavefronts", "ideal_wavefronts", "conflicts"),
        0,
    )
    return Access(
        file=file, line=line, array=array, space=space, operation=operation, width=width,
        itemsize=4, requests=1, lanes=active, bytes=active * width,
        warp=Warp((0, 0, 0), 0, base, lanes), **{**unknown, **counts},
    )  # fmt: skip


def recording(path: Path, text: str = SOURCE, **changes: Any) -> Recording:
    """The launch of `scale` from a file that is written to `path`: strided reads, plain writes."""
    path.write_text(text)
    file = str(path)
    made: dict[str, Any] = {
        "kernel": "scale", "file": file, "defines": {}, "grid": (1, 1, 1), "block": (32, 1, 1),
        "static_shared_bytes": 0, "dynamic_shared_bytes": 0,
        "accesses": (
            access(range(0, 1024, 32), file=file, unique_bytes=128, sectors=32, ideal_sectors=4),
            access(
                range(32), file=file, array="y", operation="write", unique_bytes=128, sectors=4,
                ideal_sectors=4,
            ),
        ),
        "branches": (Branch(file, BRANCH, 1, 32, 0),),
        "lines": (Line(file, ACCESS, 32),),
        "findings": (),
        "flops": 32,
        "arrays": (
            Array("x", "float32", 4096, 128, 0, 32, 0), Array("y", "float32", 128, 0, 128, 0, 4),
        ),
        "blocks": 1, "warps": 1, "blocks_traced": 1, "cut": 0, "seconds": 0.1,
    }  # fmt: skip
    return Recording(**{**made, **changes})


def finding(path: Path, **changes: Any) -> Finding:
    """A write past the end of y."""
    made: dict[str, Any] = {
        "kind": "bounds", "kernel": "scale", "file": str(path), "line": ACCESS, "block": (0, 0, 0),
        "thread": (7, 0, 0), "array": "y", "index": 32, "message": "writes y[32] of 32 elements",
        "count": 3,
    }  # fmt: skip
    return Finding(**{**made, **changes})
