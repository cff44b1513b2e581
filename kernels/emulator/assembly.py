"""What a traced build changes in the compiler's assembly."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

SHARED_GAP = 256
_MARK = re.compile(r"\s+call\s+__sanitizer_cov_trace_pc\b")
_LABEL = re.compile(r"(\.L\d+|[A-Za-z_]\w*):")
_INSTRUCTION = re.compile(r"\s+([a-z]\w*)\s*(.*)")
_FILE = re.compile(r'\s+\.file (\d+) "([^"]*)"(?: "([^"]*)")?')
_PLACE = re.compile(r"\s+\.loc ((\d+) \d+ \d+)\b")
_TOLD = re.compile(r"\s+(?:call|bl)\s+(?:__tsan_(?:volatile_)?(?:read|write)|mem)")
_TABLE = re.compile(r"\s+\.(?:long|quad)\s+(\.L\d+)-")


def keep_apart(assembly: str) -> str:
    """Put a gap behind each shared array, so that what runs over its end is seen."""
    lines, is_shared = [], False
    for line in assembly.splitlines():
        lines.append(line)
        if re.match(r"\s*\.(section|text|data|bss)\b", line):
            is_shared = ".tbss" in line
        elif is_shared and re.match(r"\s*\.zero\b", line):
            lines.append(f"\t.zero\t{SHARED_GAP}")
    return "\n".join(lines) + "\n"


def list_copies(assembly: str, user_files: Iterable[Path]) -> str:
    """
    Add a table of the calls that tell of one access of the source, and stand at several places.

    A loop that is unrolled has its accesses as often as it has turns. `traced_copies` holds pairs
    of return addresses as offsets from the table, `traced_copy_count` of them: a copy's, and that
    of the first one of its file, line and column. In files that are not the user's a line is that
    of any access that goes through it (``__ldg``): those have no copies.

    Parameters
    ----------
    assembly : str
        The compiler's.
    user_files : iterable of Path
        The kernel's file and what it includes.
    """
    ours = {os.path.realpath(path) for path in user_files}
    numbers = {
        found[1]
        for line in assembly.splitlines()
        if (found := _FILE.match(line))
        and os.path.realpath(os.path.join(found[2], found[3] or "")) in ours
    }
    lines: list[str] = []
    first: dict[str, int] = {}
    copies: list[tuple[int, int]] = []
    place, count = "", 0
    for line in assembly.splitlines():
        lines.append(line)
        if found := _PLACE.match(line):
            place = found[1] if found[2] in numbers else ""
        elif place and _TOLD.match(line):
            lines.append(f".Ltold{count}:")
            if first.setdefault(place, count) != count:
                copies.append((count, first[place]))
            count += 1
    lines += ["\t.section .rodata", "\t.balign 8", "\t.globl traced_copies, traced_copy_count"]
    lines += ["traced_copy_count:", f"\t.quad {len(copies)}", "traced_copies:"]
    lines += [f"\t.long .Ltold{a}-traced_copies, .Ltold{b}-traced_copies" for a, b in copies]
    return "\n".join(lines) + "\n"


@dataclasses.dataclass
class _Block:
    """What lies behind one call of the tracer's, up to the next."""

    mark: int  # the call's line
    labels: set[str]
    targets: set[str] = dataclasses.field(default_factory=set)
    is_plain: bool = True


def drop_marks(assembly: str) -> str:
    """
    Take out the calls of the tracer's that tell nothing.

    A basic block that tells of no access, computes no floats and only goes on into the next one has
    nothing to count. It needs a mark where a branch has the two of them to choose from: without it
    lanes that go apart there would not be seen.
    """
    lines = assembly.splitlines()
    blocks = _blocks(lines)
    from_table = {match[1] for line in lines if (match := _TABLE.match(line))}
    leads_to: dict[str, list[_Block]] = {}
    for block in blocks:
        for label in block.targets:
            leads_to.setdefault(label, []).append(block)
    dropped = set()
    before: list[_Block] = []  # what may go on into the block, without a jump
    for block, behind in itertools.pairwise(blocks):
        reaching = [*before, *(one for label in block.labels for one in leads_to.get(label, ()))]
        has_choice = any(one.targets & behind.labels for one in reaching)
        if block.is_plain and not has_choice and not from_table & block.labels:
            dropped.add(block.mark)
            behind.labels |= block.labels
        else:
            before = [block]
    return "\n".join(line for at, line in enumerate(lines) if at not in dropped) + "\n"


def _blocks(lines: list[str]) -> list[_Block]:
    """Return the blocks, in their order, of all functions; a function's name is a label too."""
    found: list[_Block] = []
    labels: set[str] = set()
    for at, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels.add(label[1])
        elif _MARK.match(line):
            found.append(_Block(at, labels))
            labels = set()
        elif found and (instruction := _INSTRUCTION.match(line)):
            block, (name, operands) = found[-1], instruction.groups()
            if name.startswith(("j", "call", "ret", "ud")):
                block.is_plain = False
                block.targets.add(operands.strip())
            elif "mm" in operands and not name.startswith(("mov", "vmov")):
                block.is_plain = False
    return found
