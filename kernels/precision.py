"""Which rounding of factors the choice by ``kernel="auto"`` may accept."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

# Unit round-off to which each factor of a product may be rounded: half a unit in the last of 11
# and of 8 significant bits.
ROUNDOFF = {"float32": 0.0, "tf32": 2.0**-11, "bf16": 2.0**-8}

_allowed = contextvars.ContextVar("reduced_precision", default="float32")


@contextlib.contextmanager
def reduced_precision(name: str) -> Iterator[None]:
    """Let ``kernel="auto"`` choose kernels that round the factors of their products.

    Outside any such block it never does. A kernel asked for by its name is not affected.

    Parameters
    ----------
    name
        ``"tf32"`` (11 significant bits), ``"bf16"`` (8, and TF32 as well), or ``"float32"`` to
        forbid it again inside another block.

    Raises
    ------
    ValueError
        Another name.

    Notes
    -----
    Arrays and sums stay float32. With each factor rounded to a unit round-off f (2**-11 for TF32,
    2**-8 for bfloat16) and n terms in a sum, an element of a convolution is off by at most

        (2 f + f**2 + (n + 1) 2**-24) conv(|x|, |w|)

    where float32 alone has the last term only: for TF32 about 1e-3 of the sum of magnitudes, for
    bfloat16 8e-3. float64 arrays are never rounded.

    Examples
    --------
    >>> with reduced_precision("tf32"):
    ...     pass
    """
    if name not in ROUNDOFF:
        known = ", ".join(map(repr, ROUNDOFF))
        raise ValueError(f"reduced_precision: got {name!r}; expected one of {known}")
    token = _allowed.set(name)
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed() -> str:
    """Return the name in force: a key of `ROUNDOFF`."""
    return _allowed.get()
