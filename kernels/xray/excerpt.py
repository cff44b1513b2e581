"""Which lines of a source file a view shows: the functions in which something was recorded."""

from __future__ import annotations

import re
from collections.abc import Iterable

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"', re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)


def code_alone(text: str) -> str:
    """Return a file with comments, strings and preprocessor lines blanked; the lines stay."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    return _DIRECTIVE.sub(blank, _COMMENT_OR_STRING.sub(blank, text))


def definitions(text: str) -> list[tuple[int, int]]:
    """Return first and last line of each outermost definition with a body, in their order.

    A namespace or ``extern "C"`` block counts as one. Where braces do not pair, the rest of the
    file is one definition.
    """
    code = code_alone(text)
    found, depth, begun = [], 0, None
    line = 1
    for character in code:
        if character == "\n":
            line += 1
        elif not character.isspace():
            begun = begun or line
            if character == "{":
                depth += 1
            elif character == "}":
                depth -= 1
                if depth == 0:
                    found.append((begun, line))
                    begun = None
            elif character == ";" and depth == 0:
                begun = None
    if depth > 0 and begun:
        found.append((begun, line))
    return found


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
