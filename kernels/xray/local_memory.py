"""What a launch moves to and from local memory: where a GPU keeps what it has no registers for.

Two things must come together. The machine code says on which source lines there are loads and
stores of local memory (``LDL``, ``STL``); a recording with `local_arrays` says what the warps did
with their own arrays on those lines. Arrays that the compiler keeps in registers have no such
instructions, and count for nothing. A spill goes to a constant place on the stack (``[R1+0x8]``):
where the compiler says that there are spills, such instructions are taken for those. They are
listed, but how often they are executed is not known.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

from kernels.resources import Usage
from kernels.xray.record import Recording
from kernels.xray.sass import Function

INSTRUCTIONS = {"LDL": "read", "STL": "write"}
_CONSTANT_PLACE = re.compile(r"\[R1[+\]]")


@dataclasses.dataclass(frozen=True)
class Line:
    """The traffic of one source line with local memory.

    Attributes
    ----------
    file, line
        Where.
    operation
        ``"read"`` or ``"write"``.
    requests
        Executions by a warp.
    bytes
        Asked for by all lanes.
    sectors, ideal_sectors
        Of 32 bytes, summed over the requests, and the least that would do. The words of 32 lanes
        at one index lie side by side: it is different indices that cost more.
    """

    file: str
    line: int
    operation: str
    requests: int
    bytes: int
    sectors: int
    ideal_sectors: int


@dataclasses.dataclass(frozen=True)
class Uncounted:
    """Instructions of a source line that access local memory, and are spills as far as is known.

    Attributes
    ----------
    file, line
        Where; empty and 0 where the machine code does not say.
    loads, stores
        How many there are. How often they are executed is not known.
    """

    file: str
    line: int
    loads: int
    stores: int


@dataclasses.dataclass(frozen=True)
class LocalMemory:
    """All of a launch's traffic with local memory.

    Attributes
    ----------
    lines
        By place in the source.
    uncounted
        Likewise.
    """

    lines: tuple[Line, ...]
    uncounted: tuple[Uncounted, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, with the sums over the lines."""
        return {**self.totals, **dataclasses.asdict(self)}

    @property
    def totals(self) -> dict[str, int]:
        """Requests, bytes, sectors and the least sectors of all lines."""
        return {
            what: sum(getattr(line, what) for line in self.lines)
            for what in ("requests", "bytes", "sectors", "ideal_sectors")
        }


def local_memory(recording: Recording, code: Function, usage: Usage) -> LocalMemory:
    """Return what a launch moves to and from local memory.

    Parameters
    ----------
    recording
        With `local_arrays`; without it, arrays whose address is never taken are not in it.
    code, usage
        Of the same kernel.
    """
    spills = usage.spill_stores + usage.spill_loads > 0
    instructions = Counter(
        (one.file, one.line, INSTRUCTIONS[one.base])
        for one in code.instructions
        if one.base in INSTRUCTIONS
    )
    of_arrays = {
        (one.file, one.line, INSTRUCTIONS[one.base])
        for one in code.instructions
        if one.base in INSTRUCTIONS and not (spills and _CONSTANT_PLACE.search(one.operands))
    }
    sums: dict[tuple[str, int, str], Line] = {}
    for access in recording.accesses:
        place = access.file, access.line, access.operation
        if access.space == "local" and place in of_arrays:
            known = sums.get(place, Line(*place, 0, 0, 0, 0))
            sums[place] = Line(
                *place,
                known.requests + access.requests,
                known.bytes + access.bytes,
                known.sectors + access.sectors,
                known.ideal_sectors + access.ideal_sectors,
            )
    left = {(file, line) for file, line, what in instructions if (file, line, what) not in sums}
    return LocalMemory(
        tuple(sums[place] for place in sorted(sums)),
        tuple(
            Uncounted(*place, *(
                0 if (*place, what) in sums else instructions[*place, what]
                for what in INSTRUCTIONS.values()
            ))
            for place in sorted(left)
        ),
    )  # fmt: skip
