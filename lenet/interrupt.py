"""Ctrl-C during training: the step in hand is finished, the run saved, then it stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopped(Exception):  # noqa: N818 - not an error
    """The training was asked to stop; the message says by what, if it was not by Ctrl-C."""


class CtrlC:
    """A context in which the first Ctrl-C only makes `check` raise; the second one interrupts.

    Parameters
    ----------
    signals
        Those that count as Ctrl-C.

    Attributes
    ----------
    asked
        The signal that came; 0 before.
    """

    def __init__(self, signals: tuple[int, ...] = (signal.SIGINT,)) -> None:
        self.signals, self.asked = signals, 0

    def check(self) -> None:
        """Raise `Stopped` once Ctrl-C was pressed; call it where stopping is safe."""
        if self.asked:
            raise Stopped

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number

    def __enter__(self) -> CtrlC:
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:  # elsewhere Python allows no handler, and Ctrl-C goes to the main thread
            self._before = {number: signal.signal(number, self._ask) for number in self.signals}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._mine:
            for number, handler in self._before.items():
                signal.signal(number, handler)
