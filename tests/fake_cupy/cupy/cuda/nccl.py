"""cupy.cuda.nccl of the double: sums over the processes of an MPI job, by MPI.

As in CuPy it is a module to import, not an attribute of cupy.cuda, and takes plain integers.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from cupy import cuda

available = True

NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8
_TYPES = {NCCL_FLOAT32: np.float32, NCCL_FLOAT64: np.float64}
UNIQUE_ID = bytes(range(128))


class NcclError(RuntimeError):
    """What NCCL refuses."""


def get_unique_id() -> bytes:
    """Return what all ranks need to find each other."""
    return UNIQUE_ID


class NcclCommunicator:
    """One rank's part of a communicator; all ranks make theirs at the same time."""

    def __init__(self, ndev: int, commId: bytes, rank: int) -> None:
        from mpi4py import MPI

        self._comm, self._mpi = MPI.COMM_WORLD, MPI
        if commId != UNIQUE_ID or (ndev, rank) != (self._comm.size, self._comm.rank):
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: invalid argument")
        devices = self._comm.allgather(cuda.runtime.getDevice())
        if len(set(devices)) < ndev:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: duplicate GPU detected")

    def allReduce(  # noqa: N802
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        """Sum in the order of the current stream."""
        given: tuple[Any, ...] = (sendbuf, recvbuf, count, datatype, op, stream)
        if not all(type(value) is int for value in given):
            raise TypeError("an integer is required")
        if op != NCCL_SUM or stream != cuda.get_current_stream().ptr:
            raise NcclError("the double only sums, and on the current stream")
        cuda.refuse_capture("NCCL of the double")
        bytes_ = count * np.dtype(_TYPES[datatype]).itemsize
        send, receive = (
            np.frombuffer((ctypes.c_char * bytes_).from_address(at), _TYPES[datatype])
            for at in (sendbuf, recvbuf)
        )
        self._comm.Allreduce(send.copy(), receive, self._mpi.SUM)
