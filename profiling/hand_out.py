"""Groups handed out to the ranks of an MPI job, one at a time as each gets free.

The first rank hands out, takes in what the others measured, and measures as well: between two
rounds of samples it answers who asks, without waiting. Who waits sleeps between two looks: MPI's
own waiting would keep a core busy beside those that measure.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from profiling.bench_group import ContextLostError
from profiling.result_file import Row

LOOK_SECONDS = 0.01

Between = Callable[[float], None]
Measure = Callable[[int, Between], list[Row]]


class LostError(RuntimeError):
    """A rank that cannot go on.

    Attributes
    ----------
    rank, number
        Which one, and the group it was at.
    """

    def __init__(self, rank: int, number: int, reason: str) -> None:
        super().__init__(reason)
        self.rank, self.number = rank, number


def work(comm: Any, measure: Measure) -> None:
    """Ask the first rank for groups and measure them, until it has no more.

    Parameters
    ----------
    comm
        The communicator of all ranks.
    measure
        Measures a group by its number, and tells its second argument now and then how far it is.
    """
    said: tuple[int, list[Row] | str] | None = None
    while True:
        sent = comm.isend(said, 0)
        while not (sent.test()[0] and comm.iprobe(0)):
            time.sleep(LOOK_SECONDS)
        number = comm.recv(source=0)
        if number is None:
            return
        said = number, _measured(measure, number, lambda share: None)


class HandingOut:
    """The first rank's part.

    Parameters
    ----------
    comm
        The communicator of all ranks.
    numbers
        Of the groups, in the order in which they are begun.
    begin
        Told the number of a group and the rank that it goes to.
    keep
        Given the number of a group, the rank that measured it, and its rows.
    """

    def __init__(
        self,
        comm: Any,
        numbers: Iterable[int],
        begin: Callable[[int, int], None],
        keep: Callable[[int, int, list[Row]], None],
    ) -> None:
        self._comm, self._todo = comm, list(numbers)
        self._begin, self._keep = begin, keep
        self._working: set[int] = set()
        self._lost: LostError | None = None

    def run(self, measure: Measure, share: Between) -> None:
        """Measure and hand out until all is done.

        Raises
        ------
        LostError
            A rank cannot go on. Nothing was handed out any more, and what the others had at hand is
            kept.
        """
        try:
            # The first groups take longest, for what they compile: let all begin together.
            while self._todo and len(self._working) < self._comm.Get_size() - 1:
                self._serve()
                time.sleep(LOOK_SECONDS)
            while (number := self._next(0)) is not None:
                self._take(0, number, _measured(measure, number, self._between(share)))
            while self._working:
                self._serve()
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            self._serve()  # what has come in is not to be lost
            raise
        for rank in range(1, self._comm.Get_size()):
            self._comm.send(None, rank)
        if self._lost is not None:
            raise self._lost

    def _between(self, share: Between) -> Between:
        def between(spent: float) -> None:
            self._serve()
            share(spent)

        return between

    def _serve(self) -> None:
        """Take in and answer what has come, and wait for nothing."""
        while (rank := self._asking()) is not None:
            said = self._comm.recv(source=rank)
            if said is not None:
                self._take(rank, *said)
            number = self._next(rank)
            if number is not None:  # else it waits until all ranks are done
                self._comm.send(number, rank)

    def _asking(self) -> int | None:
        return next((r for r in range(1, self._comm.Get_size()) if self._comm.iprobe(r)), None)

    def _next(self, rank: int) -> int | None:
        if not self._todo or self._lost is not None:
            return None
        number = self._todo.pop(0)
        self._working.add(rank)
        self._begin(number, rank)
        return number

    def _take(self, rank: int, number: int, found: list[Row] | str) -> None:
        self._working.discard(rank)
        if not isinstance(found, str):
            self._keep(number, rank, found)
        elif self._lost is None:
            self._lost = LostError(rank, number, found)


def _measured(measure: Measure, number: int, between: Between) -> list[Row] | str:
    """Return a group's rows, or why this rank cannot go on."""
    try:
        return measure(number, between)
    except ContextLostError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
