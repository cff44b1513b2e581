"""Basic blocks and loops of a function's machine code.

A loop is what a back edge closes: a jump to a block that every way into the jump leads through (its
header). It consists of the blocks that reach the jump without the header. Blocks that cannot be
reached from the entry, such as the endless jump that pads a function, belong to none. The targets
of an indirect jump (a ``switch``) are not in the code: they are taken to be the blocks that nothing
else leads to.
"""

from __future__ import annotations

import dataclasses
import re

from kernels.xray.disassembly import Instruction

JUMPS = {"BRA", "JMP", "CALL"}  # with a target inside the function, a CALL is a jump as well
ENDS = {"EXIT", "RET"}
INDIRECT = {"BRX", "BRXU", "JMX", "JMXU"}


@dataclasses.dataclass(frozen=True)
class Block:
    """Instructions that are always executed together, and the blocks that can come next."""

    instructions: list[Instruction]
    successors: list[int]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop.

    Attributes
    ----------
    header
        The block that it is entered by.
    blocks
        All of it, loops inside it included.
    own
        Those of no loop inside it.
    depth
        1 for an outermost loop.
    """

    header: int
    blocks: frozenset[int]
    own: frozenset[int]
    depth: int


def blocks(instructions: list[Instruction]) -> list[Block]:
    """Divide a function into its basic blocks, in the order of their addresses."""
    places = {one.address: number for number, one in enumerate(instructions)}
    starts = {0} if instructions else set()
    for number, one in enumerate(instructions):
        if one.base in JUMPS | ENDS | INDIRECT:
            starts |= {number + 1, *_targets(one, places)}
    bounds = sorted(start for start in starts if start < len(instructions))
    numbers = {start: block for block, start in enumerate(bounds)}
    spans = list(zip(bounds, [*bounds[1:], len(instructions)], strict=True))
    following = []
    for _, end in spans:
        last = instructions[end - 1]
        following.append({numbers[target] for target in _targets(last, places)})
        if not _leaves(last) and end < len(instructions):
            following[-1].add(numbers[end])
    led_to = {0}.union(*following)
    for (_, end), after in zip(spans, following, strict=True):
        if instructions[end - 1].base in INDIRECT:
            after.update(set(range(len(spans))) - led_to)
    return [
        Block(instructions[start:end], sorted(after))
        for (start, end), after in zip(spans, following, strict=True)
    ]


def _targets(one: Instruction, places: dict[int, int]) -> list[int]:
    if one.base not in JUMPS:
        return []
    addresses = [int(found, 16) for found in re.findall(r"(?:^|,)(0x[0-9a-f]+)", one.operands)]
    return [places[address] for address in addresses if address in places]


def _leaves(one: Instruction) -> bool:
    """Return whether the instruction after this one is never the next."""
    if one.predicate or (one.base == "BRA" and "," in one.operands):  # BRA.U !UP0,0x80
        return False
    return one.base in JUMPS - {"CALL"} | ENDS | INDIRECT


def reachable(graph: list[Block]) -> set[int]:
    """Return the blocks that the entry leads to."""
    seen, waiting = set(), [0] if graph else []
    while waiting:
        if (number := waiting.pop()) not in seen:
            seen.add(number)
            waiting += graph[number].successors
    return seen


def loops(graph: list[Block]) -> list[Loop]:
    """Return the loops of a function, by the address of their headers."""
    bodies: dict[int, set[int]] = {}
    dominators = _dominators(graph)
    before = _predecessors(graph)
    for number, block in enumerate(graph):
        for header in block.successors:
            if dominators[number] >> header & 1:
                bodies.setdefault(header, {header}).update(_reaching(number, header, before))
    return [
        Loop(
            header,
            frozenset(body),
            frozenset(
                body.difference(*(b for h, b in bodies.items() if h != header and h in body))
            ),
            depth=sum(header in other for other in bodies.values()),
        )
        for header, body in sorted(bodies.items())
    ]


def _dominators(graph: list[Block]) -> list[int]:
    """Return, for each block, the set of blocks on every way to it, as bits; 0: unreachable."""
    everything = (1 << len(graph)) - 1
    found = [1, *([everything] * (len(graph) - 1))] if graph else []
    before = _predecessors(graph)
    reached = reachable(graph)
    changed = True
    while changed:
        changed = False
        for number in range(1, len(graph)):
            common = everything
            for previous in before[number]:
                if previous in reached:
                    common &= found[previous]
            if (common := common | 1 << number) != found[number]:
                found[number], changed = common, True
    return [bits if number in reached else 0 for number, bits in enumerate(found)]


def _predecessors(graph: list[Block]) -> list[list[int]]:
    before: list[list[int]] = [[] for _ in graph]
    for number, block in enumerate(graph):
        for following in block.successors:
            before[following].append(number)
    return before


def _reaching(end: int, header: int, before: list[list[int]]) -> set[int]:
    """Return the blocks that reach `end` without passing `header`."""
    seen, waiting = {header}, [end]
    while waiting:
        if (number := waiting.pop()) not in seen:
            seen.add(number)
            waiting += before[number]
    return seen
