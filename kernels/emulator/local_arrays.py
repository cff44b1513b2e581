"""Makes a kernel's own arrays visible to the tracer, which else sees none that no pointer leads to.

The compiler tells of the accesses to a local array only where its address leaves the function. So
behind the declaration of each one, on the same line, its address is given away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_MARKER = re.compile(r'^# \d+ "((?:[^"\\]|\\.)*)"')
_PARTS = re.compile(r'("(?:[^"\\\n]|\\.)*"|[;{}()])')
_NO_BLOCK = re.compile(r"\b(?:struct|class|union|enum|namespace)\b[^;{}()=]*$")
_VALUE = re.compile(r"[=,(\]]\s*$|\breturn\s*$")
# A type, then what is declared: `const float a[2], b[4] = `, the value in braces left out.
_DECLARATION = re.compile(
    r"\s*(?:(?:const|volatile|unsigned|signed|long|short|struct|typename|alignas\s*\([^)]*\))\s+)*"
    r"(?!(?:static|extern|thread_local|constexpr|typedef|using|return|delete|new|throw|goto|case|"
    r"else|do|if|for|while|switch)\b)[A-Za-z_][\w:]*\s*(?:<[^;=]*>)?[\s*&]+(?:const\s+)?"
    r"(?=[A-Za-z_])(?P<names>.*)",
    re.DOTALL,
)
_ARRAY = re.compile(r"\s*[*&]*\s*([A-Za-z_]\w*)\s*\[")


def give_away(text: str, user_files: Iterable[Path]) -> str:
    """
    Return preprocessed text in which the addresses of the user's local arrays escape.

    Parameters
    ----------
    text : str
        From the preprocessor, with its line markers.
    user_files : iterable of Path
        Other files stay as they are.
    """
    ours = {str(path) for path in user_files}
    written: list[str] = []
    holds_statements: list[bool] = []  # each open brace
    statement, is_ours, in_value, in_parentheses = "", False, 0, 0
    for line in text.splitlines(keepends=True):
        if line.startswith("#"):
            if marker := _MARKER.match(line):
                is_ours = marker[1] in ours
            written.append(line)
            continue
        for part in _PARTS.split(line):
            written.append(part)
            if part == "{" and (in_value or _VALUE.search(statement)):
                in_value += 1
            elif part == "}" and in_value:
                in_value -= 1
            elif in_value:
                continue
            elif part in ("{", "}"):
                if part == "{":
                    holds_statements.append(not _NO_BLOCK.search(statement))
                elif holds_statements:
                    holds_statements.pop()
                statement, in_parentheses = "", 0
            elif part == ";" and not in_parentheses:
                if is_ours and holds_statements and holds_statements[-1]:
                    written += [
                        f' asm volatile("" : : "r"({name}) : "memory");'
                        for name in _arrays(statement)
                    ]
                statement = ""
            else:
                in_parentheses += (part == "(") - (part == ")")
                statement += part
    return "".join(written)


def _arrays(statement: str) -> Iterator[str]:
    """Yield the names of the arrays that a statement declares."""
    declaration = _DECLARATION.fullmatch(statement)
    if declaration is None or "emulator_shared" in statement:
        return
    depth, at = 0, 0
    names = declaration["names"] + ","
    for number, character in enumerate(names):
        depth += (character in "([") - (character in ")]")
        if character == "," and not depth:
            if array := _ARRAY.match(names[at:number]):
                yield array[1]
            at = number + 1
