"""The threads of a block on Numba's simulator, in turns: one runs at a time, in CUDA's order.

Each runs until it ends or comes to a barrier; then it is the next one's turn. So a run repeats
exactly, races and all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
from numba.cuda.simulator.kernelapi import Dim3

from kernels.xray.record import Index3

Place = tuple[str, int]


class Thread(threading.Thread):
    """A thread of a block, as Numba's double of the module `cuda` asks for it.

    Parameters
    ----------
    body
        The kernel with its arguments.
    block, at
        blockIdx and threadIdx.
    number
        In the block, by CUDA's linear order.

    Attributes
    ----------
    passed
        Where the barriers stand that it has come to.
    """

    def __init__(self, body: Callable[[], None], block: Index3, at: Index3, number: int) -> None:
        super().__init__(daemon=True)
        self.block, self.at, self.number = block, at, number
        self.blockIdx, self.threadIdx = Dim3(*block), Dim3(*at)
        self.passed: list[Place] = []
        self.ended = False
        self.error: BaseException | None = None
        self._body = body
        # Held, but for the moment in which one hands over to the other.
        self._turn, self._pause = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._pause.acquire()

    def run(self) -> None:
        """Run the kernel to its end."""
        try:
            self._body()
        except BaseException as error:
            self.error = error
        self.ended = True
        self._pause.release()

    def wait_at(self, barrier: Place) -> None:
        """Let the others come to the barrier."""
        self._pause.release()
        self._turn.acquire()
        if self.ended:  # from outside: nobody goes on
            raise SystemExit
        self.passed.append(barrier)

    def advance(self) -> None:
        """Let it run to the next barrier, or to its end."""
        if self.ident is None:
            self.start()
        else:
            self._turn.release()
        self._pause.acquire()

    def drop(self) -> None:
        """End it where it waits."""
        if self.ident is not None and not self.ended:
            self.ended = True
            self.advance()


def run_block(body: Callable[[], None], block: Index3, block_dim: Index3) -> list[Thread]:
    """Run a block, and return its threads; raise what one of them raises."""
    threads = [Thread(body, block, at, number) for number, at in enumerate(indices(block_dim))]
    waiting = threads
    while waiting:
        for thread in waiting:
            thread.advance()
            if thread.error:
                for other in threads:
                    other.drop()
                raise thread.error
        waiting = [thread for thread in waiting if not thread.ended]
    return threads


def indices(extent: Index3) -> Iterator[Index3]:
    """Yield what blockIdx or threadIdx can be, x fastest, as CUDA numbers them."""
    for z, y, x in np.ndindex(*reversed(extent)):
        yield x, y, z
