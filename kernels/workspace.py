"""How much scratch memory a kernel may ask for."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

DEFAULT_LIMIT = 256 << 20

_limit = contextvars.ContextVar("workspace_limit", default=DEFAULT_LIMIT)


@contextlib.contextmanager
def workspace_limit(nbytes: int) -> Iterator[None]:
    """Bound the scratch memory of every kernel called inside a ``with`` block.

    Parameters
    ----------
    nbytes
        Bytes a call may allocate beside its output; 256 MiB outside any such block. A technique
        that unfolds its input cuts the batch so that it fits.

    Raises
    ------
    TypeError, ValueError
        Unless `nbytes` is an int >= 0.

    Examples
    --------
    >>> with workspace_limit(16 << 20):
    ...     pass
    """
    if not isinstance(nbytes, int) or isinstance(nbytes, bool):
        raise TypeError(f"workspace_limit: got {nbytes!r}; expected a number of bytes (int)")
    if nbytes < 0:
        raise ValueError(f"workspace_limit: got {nbytes}; expected a number of bytes >= 0")
    token = _limit.set(nbytes)
    try:
        yield
    finally:
        _limit.reset(token)


def limit() -> int:
    """Return the limit in force, bytes."""
    return _limit.get()


def refuse(operation: str, kernel: str, needed: int, what: str) -> ValueError:
    """Return the error of a workspace that does not fit."""
    return ValueError(
        f"{operation}: kernel {kernel!r} needs {needed:,} bytes of workspace for {what} but the "
        f"limit is {limit():,}; raise it with kernels.workspace_limit(...) or use kernel='tiled'"
    )
