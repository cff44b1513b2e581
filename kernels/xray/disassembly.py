"""A cubin's machine code (SASS), instruction by instruction, by NVIDIA's disassembler: no GPU.

``nvdisasm`` is a program of the CUDA toolkit and of the wheel nvidia-cuda-nvdisasm. It writes JSON;
an instruction that comes from the same source line as the one before leaves the line out.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = 16  # of an instruction, from Volta on
INSTALL = "pip install 'nvidia-cuda-nvdisasm>=13,<14', or make test"


class DisassemblerMissingError(RuntimeError):
    """``nvdisasm`` is not installed; the message says how to install it."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One machine instruction.

    Attributes
    ----------
    address
        Its byte offset in the function.
    opcode
        With its suffixes, ``"LDG.E.128"``.
    operands
        As the disassembler prints them, without blanks.
    predicate
        The condition it is executed under, ``"@!P0"``; empty where there is none.
    file, line
        The source it was compiled from, the innermost where functions were inlined; empty and 0
        where none is known.
    """

    address: int
    opcode: str
    operands: str
    predicate: str
    file: str
    line: int

    @property
    def base(self) -> str:
        """The opcode without its suffixes."""
        return self.opcode.partition(".")[0]


def disassemble(
    cubin: bytes, files: Mapping[str, Path] | None = None
) -> dict[str, list[Instruction]]:
    """Return the instructions of every function of a cubin.

    Parameters
    ----------
    cubin
        As `resources.compile_cubin` makes it.
    files
        The files that the compiler knew by another name (``#line``): that name to the path.

    Raises
    ------
    DisassemblerMissingError
        There is no ``nvdisasm``.
    RuntimeError
        It refused the cubin, as one of an older CUDA does with a newer GPU's.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [program(), "--emit-json", "--print-line-info", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} refused the machine code: {done.stderr.strip()}")
    _, functions, *rest = json.loads(done.stdout)
    table = rest[0] if rest else {"directories": [], "files": []}
    sources = [_path(table, entry, files or {}) for entry in table["files"]]
    return {function["function-name"]: _instructions(function, sources) for function in functions}


@functools.cache
def program() -> str:
    """Return the path of ``nvdisasm``: the wheel's, or else what PATH has.

    Raises
    ------
    DisassemblerMissingError
        There is none.
    """
    try:
        files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((str(file.locate()) for file in files if file.name == "nvdisasm"), None)
    if (found := found or shutil.which("nvdisasm")) is None:
        raise DisassemblerMissingError(f"nvdisasm is not installed ({INSTALL})")
    return found


def _path(table: dict[str, Any], entry: dict[str, Any], files: Mapping[str, Path]) -> str:
    # NVRTC takes the name in a #line directive to be relative to the working directory.
    path = f"{table['directories'][entry['dir-idx']]}/{entry['file']}"
    return next(
        (str(real) for name, real in files.items() if f"/{path}".endswith(f"/{name}")), path
    )


def _instructions(function: dict[str, Any], sources: list[str]) -> list[Instruction]:
    found, file, line = [], "", 0
    for number, read in enumerate(function["sass-instructions"]):
        if "source-line" in read:
            file, line = sources[read["source-file-id"]], read["source-line"]
        found.append(
            Instruction(
                function["start"] + number * BYTES,
                read["opcode"],
                read.get("operands", ""),
                read.get("predicate", ""),
                file,
                line,
            )
        )
    return found
