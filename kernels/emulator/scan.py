"""Reads CUDA C as far as a build needs it: its includes, its kernels, its dynamic arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CompileError

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)
_DYNAMIC = re.compile(
    r"(?:extern\s+__attribute__\(\(emulator_shared\)\)\s*thread_local"
    r"|__attribute__\(\(emulator_shared\)\)\s*thread_local\s+extern)"
    r"\b[^;={}]*?(\w+)\s*\[\s*\]"
)
_KERNEL = "__attribute__((emulator_kernel))"
_BOUNDS = "emulator_bounds"
_MARKER = re.compile(r'^# (\d+) "((?:[^"\\]|\\.)*)"')
_ASSEMBLY = re.compile(r"\b(?:asm|__asm__|__asm)\b")


def followed(path: Path, include_dirs: Sequence[Path]) -> list[Path]:
    """Return `path` and the files it includes that lie beside it or in `include_dirs`."""
    found: list[Path] = []
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.append(current)
        for name in _INCLUDE.findall(current.read_text(errors="replace")):
            for directory in (current.parent, *include_dirs):
                if (directory / name).is_file():
                    waiting.append((directory / name).resolve())
                    break
    return found


@dataclass(frozen=True)
class Found:
    """What a preprocessed file holds: kernels (name, launch bounds) and shared arrays."""

    kernels: tuple[tuple[str, str], ...]
    dynamic_arrays: tuple[str, ...]
    has_shared: bool


def scan(text: str) -> Found:
    """
    Find kernels and dynamic shared arrays in preprocessed text.

    Templates and kernels in a namespace are left out: as in CuPy they are asked for by name
    expressions.
    """
    code = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    code = _without_strings(code)
    kernels: dict[str, str] = {}
    for at in _occurrences(code, _KERNEL):
        before = code[max(code.rfind(mark, 0, at) for mark in ";}{") + 1 : at]
        if "template" in before or _in_namespace(code, at):
            continue
        name, bounds = _declared(code, at + len(_KERNEL))
        if name and not kernels.get(name):
            kernels[name] = bounds
    arrays = dict.fromkeys(_DYNAMIC.findall(code))
    return Found(tuple(kernels.items()), tuple(arrays), "emulator_shared" in code)


def refuse_assembly(text: str, user_files: Iterable[Path]) -> None:
    """Raise CompileError at the first inline assembly in a user's file: it would be PTX."""
    ours = {str(path) for path in user_files}
    path, number = "", 0
    for line in text.splitlines():
        marker = _MARKER.match(line)
        if marker:
            number, path = int(marker[1]), marker[2]
            continue
        if path in ours and _ASSEMBLY.search(line):
            raise CompileError(
                f"{Path(path).name}:{number}: the emulator does not support inline PTX"
            )
        number += 1


def _occurrences(code: str, what: str) -> Iterator[int]:
    at = code.find(what)
    while at >= 0:
        yield at
        at = code.find(what, at + 1)


def _in_namespace(code: str, at: int) -> bool:
    depth = 0
    for brace in reversed(list(re.finditer(r"[{}]", code[:at]))):
        depth += 1 if brace[0] == "}" else -1
        if depth < 0:
            depth = 0
            if re.search(r"\bnamespace\b[^;{}()]*$", code[: brace.start()][-200:]):
                return True
    return False


def _without_strings(code: str) -> str:
    return re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', code)


def _closing(code: str, opening: int) -> int:
    depth = 0
    for at in range(opening, len(code)):
        if code[at] == "(":
            depth += 1
        elif code[at] == ")":
            depth -= 1
            if not depth:
                return at
    return len(code)


def _declared(code: str, at: int) -> tuple[str, str]:
    """Return the function's name and the arguments of its __launch_bounds__, from `at` on."""
    bounds = ""
    while match := re.compile(r"\s*(?:(\w+)|[*&:])").match(code, at):
        word, at = match[1], match.end()
        opening = re.compile(r"\s*\(").match(code, at)
        if not opening:
            continue
        if word not in ("__attribute__", "alignas"):
            return word or "", bounds
        end = _closing(code, opening.end() - 1)
        inside = code[opening.end() : end]
        if _BOUNDS in inside:
            first = inside.index("(", inside.index(_BOUNDS))
            bounds = inside[first + 1 : _closing(inside, first)]
        at = end + 1
    return "", bounds
