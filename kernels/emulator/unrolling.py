"""Has g++ unroll the loops that nvcc would: those behind a plain ``#pragma unroll``."""

from __future__ import annotations

import re

# Behind the pragma, but for the preprocessor's line markers, the loop.
_ASKED = re.compile(
    r"^[ \t]*#[ \t]*pragma[ \t]+unroll[ \t]*$(?=(?:\s|#[ \t]*\d.*$)*\b(?:for|while|do)\b)",
    re.MULTILINE,
)
_MOST = 1024  # turns: a loop of more stays one, for what is compiled has its end


def unrolled(text: str) -> str:
    """
    Return preprocessed text in which ``#pragma unroll`` is g++'s pragma.

    One with a factor is left as it is, and so ignored: a loop that is unrolled in part stays one.
    """
    return _ASKED.sub(f"#pragma GCC unroll {_MOST}", text)
