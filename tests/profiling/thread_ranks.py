"""Ranks as threads: what the lab calls of an MPI communicator, with mpi4py's meaning."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class ThreadComm:
    """A rank's end of a communicator between threads."""

    def __init__(self, rank: int, boxes: list[list[queue.Queue]], everybody: Any) -> None:
        self._rank, self._boxes, self._everybody = rank, boxes, everybody

    def Get_rank(self) -> int:  # noqa: N802
        return self._rank

    def Get_size(self) -> int:  # noqa: N802
        return len(self._boxes)

    def send(self, what: Any, dest: int) -> None:
        self._boxes[dest][self._rank].put(what)

    def isend(self, what: Any, dest: int) -> Any:
        self.send(what, dest)
        return SimpleNamespace(test=lambda: (True, None))

    def iprobe(self, source: int) -> bool:
        return not self._boxes[self._rank][source].empty()

    def recv(self, source: int) -> Any:
        return self._boxes[self._rank][source].get(timeout=20)

    def allgather(self, what: Any) -> list[Any]:
        self._everybody.values[self._rank] = what
        self._everybody.barrier.wait(20)
        found = list(self._everybody.values)
        self._everybody.barrier.wait(20)
        return found

    def bcast(self, what: Any) -> Any:
        return self.allgather(what)[0]


def run_ranks(size: int, work: Callable[[ThreadComm], Any]) -> list[Any]:
    """Run `work` on each rank, and return what each returned or raised."""
    boxes: list[list[queue.Queue]] = [[queue.Queue() for _ in range(size)] for _ in range(size)]
    everybody = SimpleNamespace(values=[None] * size, barrier=threading.Barrier(size))
    found: list[Any] = [None] * size

    def one(rank: int) -> None:
        try:
            found[rank] = work(ThreadComm(rank, boxes, everybody))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return found
