"""Ranks that are threads of one process: what mpi4py's communicator does, as far as ours asks it.

Strict: objects are pickled, buffers must be contiguous, and all ranks must call the same thing.
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np

MPI = SimpleNamespace(COMM_TYPE_SHARED=object(), IN_PLACE=object(), LOR=object())


class ThreadComm:
    def __init__(self, rank, shared):
        self.rank, self.shared = rank, shared

    def Get_rank(self):  # noqa: N802
        return self.rank

    def Get_size(self):  # noqa: N802
        return len(self.shared.slots)

    def Split_type(self, kind):  # noqa: N802
        assert kind is MPI.COMM_TYPE_SHARED
        return self

    def _exchange(self, call, value):
        slots, barrier = self.shared.slots, self.shared.barrier
        slots[self.rank] = call, value
        barrier.wait(60)
        assert len({call for call, _ in slots}) == 1, slots
        values = [value for _, value in slots]
        barrier.wait(60)
        return values

    def allgather(self, value):
        return [pickle.loads(v) for v in self._exchange("allgather", pickle.dumps(value))]

    def bcast(self, value):
        return pickle.loads(self._exchange("bcast", pickle.dumps(value))[0])

    def allreduce(self, value, op):
        assert op is MPI.LOR
        return any(self._exchange("allreduce", value))

    def Allreduce(self, in_place, buffer):  # noqa: N802
        assert in_place is MPI.IN_PLACE
        assert buffer.flags.c_contiguous
        parts = self._exchange(f"Allreduce {buffer.shape} {buffer.dtype}", buffer.copy())
        np.copyto(buffer, np.sum(parts, axis=0, dtype=buffer.dtype))

    def Bcast(self, buffer):  # noqa: N802
        assert buffer.flags.c_contiguous
        np.copyto(buffer, self._exchange(f"Bcast {buffer.shape}", buffer.copy())[0])


def run_ranks(size, work):
    """Call work(ranks) in as many threads, and return what each returned or raised."""
    from lenet.distributed import MpiRanks

    shared = SimpleNamespace(slots=[None] * size, barrier=threading.Barrier(size))

    def one(rank):
        try:
            with_ranks = MpiRanks(MPI, ThreadComm(rank, shared))
            with with_ranks.held:
                return work(with_ranks)
        except threading.BrokenBarrierError:
            raise
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
