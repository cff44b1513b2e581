"""Which lines of the source a view shows: the functions in which something was recorded."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from kernels.xray.line_totals import Place, line_totals
from kernels.xray.record import Recording

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)


def shown(recording: Recording) -> list[Place]:
    """Return the lines to show: all of each function that did something or has a finding."""
    lines: dict[str, set[int]] = {recording.file: set()}
    findings = ((found.file, found.line) for found in recording.findings)
    for file, line in (*line_totals(recording), *findings):
        if line:
            lines.setdefault(file, set()).add(line)
    return [
        (file, line)
        for file, touched in lines.items()
        for first, last in ranges(source_text(file), touched)
        for line in range(first, last + 1)
    ]


def source_text(file: str) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return _read(file, Path(file).stat().st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(maxsize=64)
def _read(file: str, changed: int) -> str:
    del changed
    return Path(file).read_text(errors="replace")


def source_line(file: str, number: int) -> str:
    """Return one line of a file, from 1; empty where there is none."""
    lines = source_text(file).splitlines()
    return lines[number - 1].expandtabs(4) if 0 < number <= len(lines) else ""


def code_alone(text: str) -> str:
    """Return a file with comments, strings and preprocessor lines blanked; the lines stay."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    return _DIRECTIVE.sub(blank, _COMMENT_OR_STRING.sub(blank, text))


def outermost(code: str) -> Iterator[tuple[int, int, bool]]:
    """Yield the outermost declarations and definitions of code: begin, end, whether with a body.

    Parameters
    ----------
    code
        From `code_alone`. Begin and end count its characters. Where braces do not pair, the rest
        of the file is one definition.
    """
    depth, begun = 0, -1
    for at, character in enumerate(code):
        if character.isspace():
            continue
        begun = at if begun < 0 else begun
        depth += (character == "{") - (character == "}")
        if depth == 0 and character in ";}":
            yield begun, at + 1, character == "}"
            begun = -1
    if depth > 0:
        yield begun, len(code.rstrip()), True


def definitions(text: str) -> list[tuple[int, int]]:
    """Return first and last line of each outermost definition with a body, in their order.

    A namespace or ``extern "C"`` block counts as one.
    """
    code = code_alone(text)
    return [
        (code.count("\n", 0, begin) + 1, code.count("\n", 0, end) + 1)
        for begin, end, has_body in outermost(code)
        if has_body
    ]


def ranges(text: str, lines: Iterable[int]) -> list[tuple[int, int]]:
    """Return the ranges of lines to show: each definition that holds one of `lines`.

    A line outside of every definition is shown alone.
    """
    known = definitions(text)
    chosen = {
        next(((first, last) for first, last in known if first <= line <= last), (line, line))
        for line in lines
    }
    return sorted(chosen)
