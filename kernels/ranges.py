"""NVTX ranges: named spans that Nsight Systems and our own timeline show.

Without a profiler attached a range costs well under a microsecond; without the nvtx package it is
nothing at all.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

try:
    import nvtx
except ModuleNotFoundError:  # an offline CUDA machine may lack it; ranges are never needed to run
    nvtx = None


def span(name: str) -> AbstractContextManager[Any]:
    """Return a context manager that marks its body with an NVTX range called `name`."""
    if nvtx is None:
        return contextlib.nullcontext()
    return nvtx.annotate(name, domain="conv-kernel-lab")
