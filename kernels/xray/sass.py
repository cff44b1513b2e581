"""What a kernel's machine code is made of: the instruction mix, of all of it and of its hot loop.

The hot loop is a guess that needs no run: the loop with most arithmetic in its own blocks (those of
no loop inside it), where each level of nesting counts ten times. Where no loop has arithmetic, its
loads count instead.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from kernels.xray import loops as flow
from kernels.xray import ways
from kernels.xray.disassembly import Instruction
from kernels.xray.gpus import WARP

NESTING = 10  # how often a loop is taken to run each time it is reached

FMA = {"FFMA", "FFMA2", "DFMA", "HFMA2"}
TENSOR = re.compile(r"[A-Z]*MMA$")
# Of an HMMA's m x n x k (16 x 8 x 4, 8, 16): 2 m n k operations by 32 threads.
TENSOR_OPS = {"1684": 32, "1688": 64, "16816": 128}
GLOBAL_LOADS = {"LDG", "LD", "LDGSTS"}
SHARED_LOADS = {"LDS", "LDSM"}
GLOBAL_STORES = {"STG", "ST"}
ATOMICS = {"ATOM", "ATOMG", "ATOMS", "RED", "REDG"}
# What is not float arithmetic, though its name begins like it.
NOT_ARITHMETIC = re.compile(r"F2|FSEL|FSWZ|FLO|FENCE|DEPBAR")


@dataclasses.dataclass(frozen=True)
class Mix:
    """How often each instruction stands in a piece of code.

    Attributes
    ----------
    opcodes
        Count by opcode with its suffixes, the most frequent first. Padding (``NOP``) is left out.
    """

    opcodes: dict[str, int]

    @property
    def instructions(self) -> int:
        """All of them."""
        return sum(self.opcodes.values())

    @property
    def fma(self) -> int:
        """Fused multiply-adds: ``FFMA`` in float32, ``DFMA`` in float64."""
        return self.count(FMA)

    @property
    def fma_share(self) -> float:
        """Fused multiply-adds by all instructions, 0 to 1."""
        return self.fma / self.instructions if self.instructions else 0.0

    @property
    def global_loads(self) -> int:
        """Loads from global memory."""
        return self.count(GLOBAL_LOADS)

    @property
    def shared_loads(self) -> int:
        """Loads from shared memory."""
        return self.count(SHARED_LOADS)

    @property
    def loads_per_fma(self) -> float | None:
        """Global and shared loads by fused multiply-adds; None without such."""
        return (self.global_loads + self.shared_loads) / self.fma if self.fma else None

    @property
    def wide_loads(self) -> int:
        """Of these loads, those of 16 bytes a thread: ``LDG.E.128``, ``LDS.128``."""
        return sum(
            count
            for opcode, count in self.opcodes.items()
            if "128" in opcode.split(".") and _base(opcode) in GLOBAL_LOADS | SHARED_LOADS
        )

    @property
    def tensor(self) -> int:
        """Matrix instructions of the tensor cores."""
        return sum(n for opcode, n in self.opcodes.items() if TENSOR.match(_base(opcode)))

    @property
    def local(self) -> int:
        """Loads and stores of local memory: spills, and arrays with computed indices."""
        return self.count({"LDL", "STL"})

    def count(self, bases: set[str]) -> int:
        """Return how many instructions have one of these opcodes, whatever their suffixes."""
        return sum(count for opcode, count in self.opcodes.items() if _base(opcode) in bases)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and what follows from them, as JSON has them."""
        return {
            "instructions": self.instructions,
            "fma": self.fma,
            "fma_share": self.fma_share,
            "global_loads": self.global_loads,
            "shared_loads": self.shared_loads,
            "loads_per_fma": self.loads_per_fma,
            "wide_loads": self.wide_loads,
            "global_stores": self.count(GLOBAL_STORES),
            "shared_stores": self.count({"STS"}),
            "atomics": self.count(ATOMICS),
            "barriers": self.count({"BAR"}),
            "tensor": self.tensor,
            "local": self.local,
            "opcodes": self.opcodes,
        }


@dataclasses.dataclass(frozen=True)
class LineMix:
    """The machine code of one source line."""

    file: str
    line: int
    mix: Mix


@dataclasses.dataclass(frozen=True)
class LoopMix:
    """The machine code of a loop, without the loops inside it.

    Attributes
    ----------
    start
        Address of its header.
    depth
        1 for an outermost loop.
    file, first_line, last_line
        Where in the source it comes from, in the file that most of it comes from; empty and 0
        where none is known.
    mix
        Of one turn, were every branch in it taken.
    """

    start: int
    depth: int
    file: str
    first_line: int
    last_line: int
    mix: Mix


@dataclasses.dataclass(frozen=True)
class Function:
    """One function's machine code.

    Attributes
    ----------
    name
        As in the cubin.
    instructions
        All of it.
    """

    name: str
    instructions: list[Instruction]

    @functools.cached_property
    def blocks(self) -> list[flow.Block]:
        """Its basic blocks."""
        return flow.blocks(self.instructions)

    @functools.cached_property
    def mix(self) -> Mix:
        """Of all of it."""
        return mix(self.instructions)

    @functools.cached_property
    def loops(self) -> list[LoopMix]:
        """Its loops, by address."""
        return [self._loop_mix(loop) for loop in flow.loops(self.blocks)]

    @property
    def hot_loop(self) -> LoopMix | None:
        """The loop that most of the time is probably spent in; None without loops."""
        return max(self.loops, key=_weight, default=None)

    @property
    def lines(self) -> list[LineMix]:
        """The mix of each source line, by file and line; code of no known line is left out."""
        by_line: dict[tuple[str, int], list[Instruction]] = {}
        for one in self.instructions:
            if one.line:
                by_line.setdefault((one.file, one.line), []).append(one)
        return [LineMix(*place, mix(found)) for place, found in sorted(by_line.items())]

    def least_instructions(self, flops: float) -> float | None:
        """Return the fewest instructions that warps issue whose lanes do so many float operations.

        A warp issues each block at least as often as any of its lanes passes it, so as often as
        they do on average; and each lane takes a way from the entry to the end of the code. What
        ways of so many operations come to on average is therefore the least for a warp on average,
        however its lanes part and meet (`ways`). Instructions whose predicate is false are issued.

        Parameters
        ----------
        flops
            Of a lane, on average over all warps, 32 lanes each.

        Returns
        -------
        float or None
            On average a warp. None where tensor cores do arithmetic by instructions whose size is
            not known here, or where control goes to places that are not.
        """
        if any(TENSOR.match(_base(name)) and not _tensor_ops(name) for name in self.mix.opcodes):
            return None
        if (after := ways.successors(self.blocks)) is None:
            return None
        costs = [len(block.instructions) for block in self.blocks]
        gains = [sum(map(_operations, block.instructions)) for block in self.blocks]
        return ways.least_cost(after, [*costs, 0], [*gains, 0], flops)

    def _loop_mix(self, loop: flow.Loop) -> LoopMix:
        header = self.blocks[loop.header].instructions[0]
        own = [one for number in sorted(loop.own) for one in self.blocks[number].instructions]
        files = Counter(one.file for one in own if one.line)
        file = files.most_common(1)[0][0] if files else ""
        places = [one.line for one in own if one.line and one.file == file]
        first, last = (min(places), max(places)) if places else (0, 0)
        return LoopMix(header.address, loop.depth, file, first, last, mix(own))

    def to_dict(self) -> dict[str, Any]:
        """Return the mixes, not the instructions, as JSON has them."""
        return {
            "name": self.name,
            "mix": self.mix.to_dict(),
            "hot_loop": loop_dict(self.hot_loop) if self.hot_loop else None,
            "loops": [loop_dict(loop) for loop in self.loops],
            "lines": [
                {"file": one.file, "line": one.line, "mix": one.mix.to_dict()} for one in self.lines
            ],
        }


def mix(instructions: Iterable[Instruction]) -> Mix:
    """Return the mix of some instructions."""
    counted = Counter(_opcode(one) for one in instructions if one.base != "NOP")
    return Mix(dict(counted.most_common()))


def _opcode(one: Instruction) -> str:
    # 0 * 0 + a constant: so ptxas sets a register where the integer units are busy.
    if one.base == "HFMA2" and ",-RZ,RZ," in one.operands:
        return f"MOV ({one.opcode})"
    return one.opcode


def loop_dict(loop: LoopMix) -> dict[str, Any]:
    """Return a loop as JSON has it."""
    fields = {field.name: getattr(loop, field.name) for field in dataclasses.fields(loop)}
    return fields | {"mix": loop.mix.to_dict()}


def _base(opcode: str) -> str:
    return opcode.partition(".")[0]


def _weight(loop: LoopMix) -> tuple[int, int, int]:
    often = NESTING**loop.depth
    arithmetic = sum(
        count * (_tensor_ops(opcode) or _per_instruction(_base(opcode)))
        for opcode, count in loop.mix.opcodes.items()
    )
    loads = loop.mix.global_loads + loop.mix.shared_loads
    return arithmetic * often, loads * often, loop.mix.instructions * often


def _operations(one: Instruction) -> int:
    if one.base in ATOMICS:  # the emulator adds where memory does
        return int(".F" in one.opcode)
    return _tensor_ops(one.opcode) or _per_instruction(_base(_opcode(one)))


def _tensor_ops(opcode: str) -> int:
    """Return a thread's share of a matrix product, 0 where its size is not known."""
    base, _, rest = opcode.partition(".")
    size = rest.partition(".")[0]
    if base == "HGMMA":  # of a warpgroup, and with its extents in the name
        return 2 * math.prod(map(int, size.split("x"))) // (4 * WARP)
    return TENSOR_OPS.get(size, 0) if base == "HMMA" else 0


def _per_instruction(base: str) -> int:
    """Return how many operations an instruction does in a thread, counted rather too high."""
    if TENSOR.match(base):
        return 1
    if not re.match(r"[FDH]|MUFU", base) or NOT_ARITHMETIC.match(base):
        return 0
    return (2 if base in FMA else 1) * (2 if base.endswith("2") else 1)
