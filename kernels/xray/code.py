"""A traced library's machine code: which source line each place is, and its arithmetic."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kernels.emulator import CompilerNotFound

# What a basic block begins behind.
_BLOCK_CALLS = ("__sanitizer_cov_trace_pc", "traced_barrier", "traced_warp")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
# x86 and Arm; a fused multiply-add is two operations. Comparisons, minima and conversions are none.
_FUSED = re.compile(r"vfn?m(?:add|sub)\d{3}(ss|sd|ps|pd)$|fn?m(?:add|sub)$")
_PLAIN = re.compile(r"v?(?:add|sub|mul|div|sqrt)(ss|sd|ps|pd)$|f(?:add|n?mul|sub|div|sqrt)$")
_DECISION = re.compile(r"j(?!mp)\w+$|b\.\w+$|[ct]bn?z$|br$")
_REGISTER_BYTES = {"x": 16, "y": 32, "z": 64}


class Arithmetic(NamedTuple):
    """One floating-point instruction: where it is, in which block, its operations a thread."""

    pc: int
    block: int
    flops: int


class Code(NamedTuple):
    """A library's arithmetic, and where each basic block decides how to go on."""

    arithmetic: tuple[Arithmetic, ...]
    decisions: dict[int, int]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CompilerNotFound(f"{name} was not found: it comes with g++ (Debian: binutils)")
    return found


@functools.lru_cache(maxsize=64)
def read_code(library: Path) -> Code:
    """
    Read a traced library's floating-point instructions and its branches.

    What a kernel computes by a function of the C library (``expf``) is not among them.

    Raises
    ------
    CompilerNotFound
        If there is no ``objdump``.
    """
    command = [_tool("objdump"), "-d", "--no-show-raw-insn", "-M", "att", str(library)]
    if os.uname().machine != "x86_64":
        command[3:5] = []
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: list[Arithmetic] = []
    decisions: dict[int, int] = {}
    block, begins = 0, False
    for line in text.splitlines():
        instruction = _INSTRUCTION.match(line)
        if not instruction:
            continue
        pc, name, operands = int(instruction[1], 16), instruction[2], instruction[3]
        if begins:
            block, begins = pc, False
        if name.startswith(("call", "bl")):
            begins = any(f"<{called}" in operands for called in _BLOCK_CALLS)
        elif flops := _flops(name, operands):
            found.append(Arithmetic(pc, block, flops))
        elif _DECISION.match(name) or ("jmp" in name and operands.startswith("*")):
            decisions.setdefault(block, pc)
    return Code(tuple(found), decisions)


def _flops(name: str, operands: str) -> int:
    fused, plain = _FUSED.match(name), _PLAIN.match(name)
    match = fused or plain
    if not match:
        return 0
    suffix = match[1] or "ss"
    lanes = 1
    if suffix[0] == "p":
        widest = max((_REGISTER_BYTES[r] for r in re.findall(r"%([xyz])mm", operands)), default=16)
        lanes = widest // (4 if suffix == "ps" else 8)
    return lanes * (2 if fused else 1)


@functools.lru_cache(maxsize=64)
def lines_of(library: Path, files: tuple[Path, ...]) -> Lines:
    """Return the lines of a library, which remembers those it has looked up."""
    return Lines(library, files)


class Lines:
    """
    The source lines of a library's code.

    Parameters
    ----------
    library : Path
        With debug information.
    files : sequence of Path
        The user's: the kernel's file first, then what it includes.
    """

    def __init__(self, library: Path, files: Sequence[Path]) -> None:
        self._library = library
        self._files = {os.path.realpath(file): str(file) for file in files}
        self._main = os.path.realpath(files[0])
        self._frames: dict[int, list[tuple[str, int]]] = {}

    def look_up(self, pcs: Iterable[int]) -> None:
        """Read the lines of many places at once, which is what is quick."""
        wanted = sorted(set(pcs) - self._frames.keys())
        if not wanted:
            return
        done = subprocess.run(
            [_tool("addr2line"), "-a", "-i", "-f", "-e", str(self._library)],
            # A return address is one behind the call.
            input="\n".join(hex(pc - 1) for pc in wanted),
            capture_output=True,
            text=True,
            check=True,
        )
        pc = 0
        for line in done.stdout.splitlines():
            if line.startswith("0x"):
                pc = int(line, 16) + 1
                self._frames[pc] = []
                continue
            file, colon, number = line.rpartition(":")
            digits = number.split(" ")[0]
            if not colon or not digits.isdigit():
                continue  # a function's name
            real = os.path.realpath(file)
            if real in self._files:
                self._frames[pc].append((real, int(digits)))

    def access(self, pc: int) -> tuple[str, int]:
        """Return file and line: the innermost of the user's, be it in a header."""
        frames = self._frames.get(pc)
        file, line = frames[0] if frames else (self._main, 0)
        return self._files[file], line

    def flow(self, pc: int) -> tuple[str, int]:
        """Return the line of the kernel's own file from which the place was come to, if any."""
        for file, line in self._frames.get(pc, ()):
            if file == self._main:
                return self._files[file], line
        return self.access(pc)
