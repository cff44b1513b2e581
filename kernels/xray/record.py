"""What an emulated launch did: the plain data that the X-ray's reports, pages and bounds are of.

Everything is counted in the units of a GPU's own counters: a *request* is one execution of one
access by one warp; a *sector* is an aligned 32 bytes of global memory; a *wavefront* is one pass
over the 32 banks, 4 bytes wide each, of shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

Index3 = tuple[int, int, int]

KINDS = ("bounds", "foreign", "misaligned", "race", "uninitialised", "unwritten", "barrier")


@dataclass(frozen=True)
class Party:
    """The earlier of a race's two accesses.

    Attributes
    ----------
    file, line
        Where it stands in the source.
    block, thread
        Whose it was: blockIdx and threadIdx.
    operation
        ``"read"``, ``"write"`` or ``"atomic"``.
    """

    file: str
    line: int
    block: Index3
    thread: Index3
    operation: str


@dataclass(frozen=True)
class Finding:
    """One fault, at one place in the source, in one array: its first occurrence and how many.

    Attributes
    ----------
    kind
        One of `KINDS`.
    kernel
        The ``__global__`` function's name.
    file, line
        The source file's path, and the line from 1; 0 where no line is known.
    block, thread
        blockIdx and threadIdx of the first occurrence; None for ``"unwritten"``.
    array
        The parameter's or the shared array's name; None where there is none.
    index
        Of the first element concerned, counted flat from the array's start: -1 is the element
        before it. For shared arrays in units of the access's width. None where there is no array.
    message
        One sentence for a person.
    count
        Occurrences: accesses by threads, or elements never written.
    other
        For ``"race"``, the access that this one collided with; else None.
    """

    kind: str
    kernel: str
    file: str
    line: int
    block: Index3 | None
    thread: Index3 | None
    array: str | None
    index: int | None
    message: str
    count: int = 1
    other: Party | None = None


@dataclass(frozen=True)
class Warp:
    """One warp's addresses in one request, for drawing.

    Attributes
    ----------
    block
        blockIdx.
    warp
        Number in its block: threads 32 * warp to 32 * warp + 31 in CUDA's linear order.
    base
        Byte address of the array's element 0, modulo 128: where it lies in sectors and banks.
    elements
        32 flat element indices, None for a lane that was not active.
    """

    block: Index3
    warp: int
    base: int
    elements: tuple[int | None, ...]


@dataclass(frozen=True)
class Access:
    """One access in the source: all its executions. A line has one for each array and operation.

    Attributes
    ----------
    file, line
        Where.
    array
        Parameter's or shared array's name.
    space
        ``"global"``, ``"shared"`` or ``"local"``.
    operation
        ``"read"``, ``"write"`` or ``"atomic"``.
    width
        Bytes a lane and access: 4 for a float, 16 for a float4.
    itemsize
        Bytes of an array's element; that of the access in shared and local memory.
    requests
        Executions by a warp.
    lanes
        Active lanes, summed over the requests.
    bytes
        Asked for by all lanes: lanes * width.
    unique_bytes
        Different bytes of the array among them; of shared memory, the sum over the blocks.
        0 in local memory.
    sectors, ideal_sectors
        Global and local memory: 32-byte sectors touched, summed over the requests, and the least
        that each request's different bytes fit in. A word of local memory lies beside those that
        the other lanes have at that place. 0 in shared memory.
    wavefronts, ideal_wavefronts
        Shared memory: passes over the banks, summed over the requests, and the least that each
        request's different bytes need (128 a pass). 0 elsewhere.
    conflicts
        Atomics: lanes that met an address another lane of their request has too.
    warp
        The request with the most sectors or wavefronts; the first of several. None in local memory.
    """

    file: str
    line: int
    array: str
    space: str
    operation: str
    width: int
    itemsize: int
    requests: int
    lanes: int
    bytes: int
    unique_bytes: int
    sectors: int
    ideal_sectors: int
    wavefronts: int
    ideal_wavefronts: int
    conflicts: int
    warp: Warp | None


@dataclass(frozen=True)
class Branch:
    """The places of one source line from which a thread can go on in more than one way.

    Attributes
    ----------
    file, line
        Where.
    executions
        By a warp.
    lanes
        Active lanes, summed over the executions: 32 an execution where nothing diverged before.
    divergent
        Executions after which lanes that came together went different ways.
    """

    file: str
    line: int
    executions: int
    lanes: int
    divergent: int


@dataclass(frozen=True)
class Line:
    """What one source line executed.

    Attributes
    ----------
    file, line
        Where.
    flops
        Floating-point operations of all lanes; a fused multiply-add is two.
    """

    file: str
    line: int
    flops: int


@dataclass(frozen=True)
class Array:
    """One array that a launch was given.

    Attributes
    ----------
    name
        The parameter's.
    dtype
        NumPy's name of its elements.
    nbytes
        Its size.
    read_bytes, written_bytes
        Different bytes that the launch read, and wrote (atomics are in both).
    read_sectors, written_sectors
        Different 32-byte sectors of it: times 32, the least that DRAM has to move.
    """

    name: str
    dtype: str
    nbytes: int
    read_bytes: int
    written_bytes: int
    read_sectors: int
    written_sectors: int


@dataclass(frozen=True)
class Recording:
    """One launch: what was launched, what it did, what was wrong.

    Attributes
    ----------
    kernel, file
        The ``__global__`` function, and the ``.cu`` file's path.
    defines
        The macros that it was compiled with.
    grid, block
        Blocks, and threads a block.
    static_shared_bytes, dynamic_shared_bytes
        A block's shared memory.
    accesses, branches, lines
        By place in the source, in its order.
    findings
        In the order they were met.
    flops
        Of all traced blocks.
    arrays
        Those it was given.
    blocks, warps
        Of the launch.
    blocks_traced
        How many of its blocks all the above is about.
    cut
        Segments of warps (from barrier to barrier) too long to keep, of which the end is missing.
    seconds
        The recording took; says nothing of a GPU.
    races_unseen
        Names of arrays too large to remember who touched which word: no race in them is found.
    local_arrays
        Whether accesses to the kernel's own arrays are in it. What of them is memory on a GPU,
        `local_memory` says.
    tensor_flops
        Those of `flops` that tensor cores did, by the type of their factors: ``"tf32"``,
        ``"bf16"``.
    """

    kernel: str
    file: str
    defines: dict[str, str]
    grid: Index3
    block: Index3
    static_shared_bytes: int
    dynamic_shared_bytes: int
    accesses: tuple[Access, ...]
    branches: tuple[Branch, ...]
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    flops: int
    arrays: tuple[Array, ...]
    blocks: int
    warps: int
    blocks_traced: int
    cut: int
    seconds: float
    races_unseen: tuple[str, ...] = ()
    local_arrays: bool = False
    tensor_flops: dict[str, int] = field(default_factory=dict)

    @property
    def sampled(self) -> float:
        """The share of the launch's blocks that was traced, 0 to 1."""
        return self.blocks_traced / self.blocks

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain dicts, lists and numbers, as JSON has them."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recording:
        """
        Return what `to_dict` was made from.

        Raises
        ------
        msgspec.ValidationError
            For anything else; the text names the field.
        """
        return msgspec.convert(data, cls)
