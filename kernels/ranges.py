"""NVTX ranges: named spans that Nsight Systems and our own timeline show.

Without a profiler attached a range costs well under a microsecond; without the nvtx package it is
nothing at all, but for an observer (`observe.py`) that wants it.
"""

from __future__ import annotations

import contextlib
import functools
from contextlib import AbstractContextManager
from typing import Any

from kernels import observe

try:
    import nvtx
except ModuleNotFoundError:  # an offline CUDA machine may lack it; ranges are never needed to run
    nvtx = None


@functools.lru_cache(maxsize=1024)  # a range holds nothing of its own and can be entered again
def span(name: str) -> AbstractContextManager[Any]:
    """Return a context manager that marks its body with an NVTX range called `name`."""
    if observe.current is not None and (mine := observe.current.span(name)) is not None:
        return mine
    if nvtx is None:
        return contextlib.nullcontext()
    return nvtx.annotate(name, domain="conv-kernel-lab")
