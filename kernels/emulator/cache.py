"""Where built files lie, so that nothing is compiled twice."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """Return a directory that can be written to: the cache, or else one of this process's own."""
    named = os.environ.get("CONV_KERNEL_LAB_CACHE")
    if not named:
        base = os.environ.get("XDG_CACHE_HOME")
        home = Path(base) if base else Path(os.path.expanduser("~")) / ".cache"
        named = str(home / "conv-kernel-lab")
    return _writable(named)


@functools.cache
def _writable(named: str) -> Path:
    directory = Path(named).absolute()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it is run
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        return Path(_process_directory().name)


@functools.cache
def _process_directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="conv-kernel-lab-")
