"""The file that a traced command's processes append to: one JSON object a line, one write() each.

The Python half of `nvtx_listener.c`, which appends to the same file by the same rules. It runs
inside the traced command, so it needs nothing but the standard library.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from types import TracebackType
from typing import Any

PATH = "CONV_KERNEL_LAB_TRACE"
LIMIT = "CONV_KERNEL_LAB_TRACE_LIMIT"


class Spool:
    """Appends events.

    Parameters
    ----------
    path
        The file, which is there already.
    limit
        Bytes; once the file is larger, nothing is begun any more and what is left out is counted.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.limit = limit
        self.dropped = 0
        atexit.register(self._tell_dropped)

    def has_room(self) -> bool:
        """Tell whether another event may be begun; if not, count it as dropped."""
        if os.lseek(self.file, 0, os.SEEK_END) < self.limit:
            return True
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # a killed process told of half at least
            self._tell_dropped()
        return False

    def put(self, kind: str, **fields: Any) -> None:
        """Append one event of this thread, now."""
        event = {
            "ph": kind,
            "ns": time.monotonic_ns(),
            "pid": os.getpid(),
            "tid": threading.get_native_id(),
            **fields,
        }
        os.write(self.file, json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def _tell_dropped(self) -> None:
        if self.dropped:
            self.put("dropped", cat="launches", id=self.dropped)


class _Written(threading.local):
    """Whether the spans that this thread has entered are in the spool."""

    def __init__(self) -> None:
        self.flags: list[bool] = []


class Span:
    """A context that is begun and ended in the spool; it can be entered again, by any thread."""

    def __init__(self, spool: Spool, category: str, name: str) -> None:
        self.spool, self.category, self.name = spool, category, name
        self.written = _Written()

    def __enter__(self) -> None:
        self.written.flags.append(self.spool.has_room())
        if self.written.flags[-1]:
            self.spool.put("B", cat=self.category, name=self.name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.written.flags.pop():
            self.spool.put("E", cat=self.category)
