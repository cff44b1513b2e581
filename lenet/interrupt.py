"""Ctrl-C during training: the step in hand is finished, the run saved, then it stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopped(Exception):  # noqa: N818 - not an error
    """The training was asked to stop."""


class CtrlC:
    """A context in which the first Ctrl-C only makes `check` raise; the second one interrupts."""

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise `Stopped` once Ctrl-C was pressed; call it where stopping is safe."""
        if self.asked:
            raise Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> CtrlC:
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:  # elsewhere Python allows no handler, and Ctrl-C goes to the main thread
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, self._before)
