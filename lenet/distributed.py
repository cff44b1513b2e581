"""Data-parallel training: every rank learns from its part of each batch, by MPI and NCCL.

A rank is a process that ``mpiexec`` or ``srun`` started. All have the whole model and all images,
and see the same batches as one process would; each computes the gradient of its own part of a
batch. The parts' gradients add up to the batch's: that sum, one message with the loss and the hits
behind it, is all that is exchanged in a step. It is MPI's between CPUs, NCCL's between GPUs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kernels import emulator, place, plugins
from lenet.device import Device
from lenet.errors import KernelError, LenetError, OptionError
from lenet.interrupt import CtrlC, Stopped
from lenet.launcher import SINGLE, launched, note, say, way_on
from lenet.model import FIGURES, Model
from lenet.ranks import Array, Ranks, T

INSTALL = "pip install 'conv-kernel-lab[distributed]' (pip install mpich brings an MPI, if need be)"
INSTALL_NCCL = "pip install nvidia-nccl-cu12 (or -cu13, as CuPy's)"
SAYS_WHAT = LenetError, plugins.PluginError  # errors whose message is all that the user needs
MOST_NAMED = 4  # differences between two ranks


def ranks_of_this_job() -> MpiRanks:
    """Start MPI and return this process's place in it.

    Raises
    ------
    OptionError
        mpi4py or an MPI that cannot be used.
    """
    try:
        from mpi4py import MPI
    except ModuleNotFoundError:
        raise OptionError(f"--distributed: mpi4py is not installed; {INSTALL}") from None
    except (ImportError, RuntimeError) as error:  # mpi4py is there, but no libmpi
        raise OptionError(f"--distributed: mpi4py finds no MPI: {error}; {INSTALL}") from None
    return MpiRanks(MPI, MPI.COMM_WORLD)


class MpiRanks(Ranks):
    """The ranks of an MPI communicator.

    Parameters
    ----------
    mpi
        The module ``mpi4py.MPI``.
    comm
        Its communicator of all ranks.
    """

    signals = (signal.SIGINT, signal.SIGTERM)  # batch systems send the second one

    def __init__(self, mpi: Any, comm: Any) -> None:
        self.mpi, self.comm = mpi, comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        wanted = (launched() or SINGLE).size
        if self.size == 1 and wanted > 1:
            raise OptionError(
                f"--distributed: {wanted} processes were started, but to mpi4py each is alone: it "
                "belongs to another MPI than mpiexec; start them by its own, or pip install mpich"
            )
        self.node = comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.hosts: list[str] = comm.allgather(socket.gethostname())
        self.nccl: Any = None
        self.held = contextlib.ExitStack()
        self.folder: Path | None = None
        self.ctrl_c: CtrlC | None = None
        self.stopping = False
        self.known_to_all: ValueError | None = None

    # What is done once.

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` on all ranks, and let all hear of an error on one."""
        error: ValueError | None = None
        try:
            result = work()
        except SAYS_WHAT as caught:
            error = caught
        errors = self.comm.allgather(error)
        failed = [rank for rank, one in enumerate(errors) if one is not None]
        if failed:
            error = errors[failed[0]]
            if len(failed) < self.size:
                error = type(error)(f"{self.name(failed[0])}: {error}")
            self._raise_on_all(error)
        return result

    def from_first(self, work: Callable[[], T]) -> T:
        """Do `work` on the first rank, and let all have the result or the error."""
        outcome: tuple[Any, ValueError | None] = None, None
        if self.first:
            try:
                outcome = work(), None
            except SAYS_WHAT as caught:
                outcome = None, caught
        result, error = self.comm.bcast(outcome)
        if error is not None:
            self._raise_on_all(error)
        return result

    def pick_gpu(self, device: str) -> None:
        """Take turns with the ranks on this machine."""
        if device != "cpu" and place.gpu_problem() is None:
            cuda = _cupy().cuda
            cuda.Device(self.node.Get_rank() % cuda.runtime.getDeviceCount()).use()

    def join(self, device: Device, facts: dict[str, Any]) -> None:
        """Compare the facts and the code; share the machine's cores, or connect the GPUs."""
        self._agree({**facts, **_code()})
        if device.name == "gpu":
            self._connect_gpus()
        else:
            self._share_cores()

    def began(self, folder: Path) -> None:
        """Keep the folder for the message if this rank, or its launcher, has to give up."""
        self.folder = folder
        note(str(folder))

    def equalise(self, vector: Array) -> None:
        """Broadcast the first rank's values, through host memory."""
        host = place.array_module(vector).asnumpy(vector) if place.on_gpu(vector) else vector
        self.comm.Bcast(host)
        if host is not vector:
            vector.set(host)

    # What is done in every step and epoch.

    def add_up(self, model: Model, loss: Any, hits: Any) -> tuple[Any, Any]:
        """Sum the model's bucket: the gradient, the loss, the hits, and who was asked to stop."""
        bucket = model.bucket
        figures = bucket[-FIGURES:]
        figures[0], figures[1] = loss, hits
        if self.nccl is None:
            figures[2] = self.ctrl_c is not None and self.ctrl_c.asked > 0
            self.comm.Allreduce(self.mpi.IN_PLACE, bucket)
            self.stopping = bool(figures[2])
        else:
            at, stream = bucket.data.ptr, _cupy().cuda.get_current_stream().ptr
            kind = getattr(_nccl(), f"NCCL_{bucket.dtype.name.upper()}")
            self.nccl.allReduce(at, at, bucket.size, kind, _nccl().NCCL_SUM, stream)
        return figures[0], figures[1]

    def check(self, ctrl_c: CtrlC) -> None:
        """Stop if the last sum said so; between GPUs, whose sums nobody reads, ask the hosts."""
        self.ctrl_c = ctrl_c
        if self.nccl is not None:
            self.stopping = self.comm.allreduce(ctrl_c.asked > 0, self.mpi.LOR)
        if self.stopping:
            self._stop(ctrl_c)

    def totals(self, loss: float, hits: int, ctrl_c: CtrlC) -> tuple[float, int]:
        """Sum the figures in double precision."""
        sums = np.array([loss, hits, ctrl_c.asked > 0])
        self.comm.Allreduce(self.mpi.IN_PLACE, sums)
        if sums[2]:
            self._stop(ctrl_c)
        return float(sums[0]), int(sums[1])

    def check_drift(self, weights: Array) -> None:
        """Compare the weights' checksums."""
        host = place.array_module(weights).asnumpy(weights) if place.on_gpu(weights) else weights
        sums = self.comm.allgather(zlib.crc32(host))
        other = next((rank for rank, crc in enumerate(sums) if crc != sums[0]), None)
        if other is not None:
            self._raise_on_all(
                KernelError(
                    f"{self.name(other)} no longer has the weights of {self.name(0)}: the same sum "
                    "of gradients moved them elsewhere; train on machines of one kind"
                )
            )

    # The end, when it is not a good one.

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Return a context that an error of this rank alone leaves with the whole job."""
        try:
            with self.held:
                yield
        except BaseException as error:
            if error is self.known_to_all:
                raise
            if isinstance(error, KeyboardInterrupt):
                # Everybody has been interrupted; the first rank says so.
                time.sleep(0 if self.first else 1)
                message, status = "interrupted", 130
            else:
                status = 2 if isinstance(error, SAYS_WHAT) else 1
                if status == 1:
                    traceback.print_exc()
                message = f"error: {self.name(self.rank)}: {error or type(error).__name__}"
            say(f"lenet: {message}; {way_on(self.folder, self.size)}")
            self.comm.Abort(status)
            os._exit(status)  # MPI may take its time

    def name(self, rank: int) -> str:
        """Return what to call a rank in a message."""
        return f"rank {rank} on {self.hosts[rank]}"

    def _raise_on_all(self, error: ValueError) -> NoReturn:
        self.known_to_all = error
        raise error

    def _stop(self, ctrl_c: CtrlC) -> NoReturn:
        asked = self.comm.allgather(ctrl_c.asked)
        terminated = [rank for rank, number in enumerate(asked) if number == signal.SIGTERM]
        raise Stopped(f"{self.name(terminated[0])} got SIGTERM: stopped" if terminated else "")

    # Parts of `join`.

    def _agree(self, facts: dict[str, Any]) -> None:
        everybody = self.comm.allgather(facts)
        for rank, theirs in enumerate(everybody):
            named = [
                f"{key} ({theirs.get(key, 'none')}, not {everybody[0].get(key, 'none')})"
                for key in sorted({**everybody[0], **theirs})
                if theirs.get(key) != everybody[0].get(key)
            ]
            if named:
                more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
                self._raise_on_all(
                    OptionError(
                        f"--distributed: {self.name(rank)} differs from {self.name(0)} in "
                        f"{', '.join(named[:MOST_NAMED])}{more}; start all ranks with the same "
                        "options, data and code"
                    )
                )

    def _share_cores(self) -> None:
        """Leave every rank on this machine its share of the cores it may run on."""
        mine = os.sched_getaffinity(0)  # before OpenMP is loaded, which may bind this thread to one

        from kernels import cpu_threads  # Numba takes a while to import

        sharing = sum(not mine.isdisjoint(theirs) for theirs in self.node.allgather(mine))
        given = os.environ.get("NUMBA_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS")
        threads = int(given) if given and given.isdecimal() else max(len(mine) // sharing, 1)
        cpu_threads.limit(threads)
        self.held.enter_context(emulator.settings(workers=threads))

    def _connect_gpus(self) -> None:
        runtime = _cupy().cuda.runtime
        gpus = self.node.allgather(runtime.deviceGetPCIBusId(runtime.getDevice()))
        self.together(lambda: self._check_gpus(gpus))
        key = self.from_first(lambda: _nccl().get_unique_id())
        self.nccl = self.together(lambda: _nccl().NcclCommunicator(self.size, key, self.rank))

    def _check_gpus(self, gpus: list[str]) -> None:
        if len(set(gpus)) < len(gpus):
            raise OptionError(
                f"--distributed: {len(gpus)} ranks on {self.hosts[self.rank]} have "
                f"{len(set(gpus))} GPU to share; start one rank a GPU, or give --device cpu"
            )
        if not _nccl().available:
            raise OptionError(f"--distributed: CuPy finds no NCCL; {INSTALL_NCCL}")


def _cupy() -> Any:
    import cupy

    return cupy


def _nccl() -> Any:
    from cupy.cuda import nccl

    return nccl


def _code() -> dict[str, str]:
    """Return a checksum of each file of the lab that a training's numbers depend on."""
    root = Path(__file__).parents[1]
    return {
        f"{folder.name}/{path.relative_to(folder)}": f"{zlib.crc32(path.read_bytes()):08x}"
        for folder in (root / "kernels", root / "lenet", *map(Path, plugins.folders()))
        for path in folder.rglob("*")
        if path.suffix in (".py", ".cu", ".cuh", ".hpp", ".cpp")
    }
