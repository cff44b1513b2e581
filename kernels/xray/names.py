"""Names that the machine code does not have: parameters, and the line a kernel begins on."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from kernels.emulator.elf import thread_local_symbols

DYNAMIC = "emulator_dynamic_shared"
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def declaration(kernel: str, files: Sequence[Path]) -> tuple[Path, int, list[str]]:
    """
    Find where a kernel is declared.

    Parameters
    ----------
    kernel : str
        Its name, or a template's instance: ``"scale<float, 3>"``.
    files : sequence of Path
        Where to look, in this order.

    Returns
    -------
    file : Path
        The first of `files` where it is not found.
    line : int
        From 1; 0 where it is not found.
    parameters : list of str
        Their names; empty where it is not found.
    """
    name = kernel.split("<")[0].split("::")[-1].strip()
    for file in files:
        code = _without_comments(file.read_text(errors="replace"))
        for found in re.finditer(rf"\b{re.escape(name)}\s*\(", code):
            begins = max(code.rfind(mark, 0, found.start()) for mark in ";}{") + 1
            parameters, end = _parameters(code, found.end())
            # A macro may stand for __global__: then it is the body that tells it from a call.
            is_kernel = "__global__" in code[begins : found.start()]
            if is_kernel or code[end:].lstrip().startswith("{"):
                return file, code.count("\n", 0, found.start()) + 1, parameters
    return files[0], 0, []


@functools.lru_cache(maxsize=64)
def _without_comments(text: str) -> str:
    """Return code with white space in place of comments, which keeps the lines."""
    return _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _parameters(code: str, at: int) -> tuple[list[str], int]:
    """Return the names in the parentheses that are open at `at`, and where they end."""
    depth, part, parts = 1, "", []
    while depth and at < len(code):
        character = code[at]
        at += 1
        depth += character in "(<[{"
        depth -= character in ")>]}"
        if not depth:
            break
        if character == "," and depth == 1:
            parts.append(part)
            part = ""
        else:
            part += character
    parts.append(part)
    names = [re.findall(r"[A-Za-z_]\w*", part.split("=")[0]) for part in parts if part.strip()]
    return [found[-1] if found else "?" for found in names], at


@functools.lru_cache(maxsize=64)  # a library's name tells what is in it
def shared_arrays(library: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, offset and bytes of every shared array of a traced library."""
    by_offset: dict[int, tuple[list[str], int]] = {}
    for symbol, offset, size in thread_local_symbols(library):
        names, largest = by_offset.get(offset, ([], 0))
        plain = re.search(r"E(\d+)([A-Za-z_]\w*?)(?:_\d+)?$", symbol)
        name = plain[2][: int(plain[1])] if plain and symbol.startswith("_Z") else symbol
        by_offset[offset] = ([*names, name], max(largest, size))
    result = []
    for offset, (names, size) in sorted(by_offset.items()):
        known = sorted({name for name in names if name != DYNAMIC})
        result.append(("/".join(known) or "dynamic shared memory", offset, size))
    return tuple(result)
