"""
The X-ray: what a CUDA kernel does, line by line, with no GPU.

The unchanged ``.cu`` file is compiled so that the compiler itself calls a function at every access
to memory and every basic block; the emulator runs it, and puts the accesses of a warp's 32 threads
together as a GPU executes them. What comes out is counted and judged: sectors, wavefronts,
branches, arithmetic; accesses out of bounds, races, reads of what nobody wrote, elements never
written, barriers that not all threads reach.

What the counts are of: the code as g++ -O1 leaves it, its ``#pragma unroll`` loops unrolled. Loads
that repeat are one, as nvcc makes them; what nvcc moves, predicates or vectorises beyond that is
not seen. Local arrays are seen where they are asked for only; `ptxas` is the judge of them. What
stands once in the source is one access, however often it is unrolled or inlined. Arithmetic is
additions, products, quotients and square roots (a fused multiply-add is two), an atomicAdd's sum
among them; comparisons, minima, conversions and the C library's functions are none. Memory of
`__device__` and `__constant__` variables is left out.

What the sanitiser goes by: threads of a block are ordered by ``__syncthreads``, those of a warp
also by ``__syncwarp`` and the other warp primitives they go through together, those of two blocks
by nothing; two atomic operations never collide.
"""

from .launch import MOST_BLOCKS
from .passes import record_pass
from .record import (
    KINDS,
    Access,
    Array,
    Branch,
    Finding,
    Line,
    Party,
    Recording,
    Warp,
)
from .session import record, recording

__all__ = [
    "KINDS",
    "MOST_BLOCKS",
    "Access",
    "Array",
    "Branch",
    "Finding",
    "Line",
    "Party",
    "Recording",
    "Warp",
    "record",
    "record_pass",
    "recording",
]
