"""The processes that measure one benchmark together: one alone, or the ranks of an MPI job.

Each rank has a device of its own. All make the same plan and agree on it; then the first writes the
one file, and hands the groups out (`profiling.hand_out`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from kernels import source_hash
from lenet import launcher
from profiling import hand_out, machine, peers, sensors
from profiling.bench_plan import BenchError, Plan
from profiling.result_file import Ceilings, Device, Row

INSTALL = "pip install 'conv-kernel-lab[distributed]' (pip install mpich brings an MPI, if need be)"
HOW = "mpiexec -n 4 python -m profiling bench --distributed ..., one process a GPU"
GRACE_SECONDS = 5.0

T = TypeVar("T")
Begin = Callable[[int, int], None]
Keep = Callable[[int, int, list[Row]], None]


def _unheard(*_: Any) -> None:
    """Hear what the first rank alone has to."""


class ElsewhereError(Exception):
    """An error that another rank tells the user about."""


class Alone:
    """One process, which does everything.

    Attributes
    ----------
    rank, first
        Its number, and whether it is the first, which writes and speaks.
    sharing
        How many ranks have this one's cores.
    """

    rank, first, sharing = 0, True, 1

    def together(self, work: Callable[[], T]) -> T:
        """Return what `work` does; a ValueError on one rank is raised on all."""
        return work()

    def from_first(self, work: Callable[[], T], brief: Callable[[T], Any] = lambda x: x) -> Any:
        """Do `work` on the first rank; the others get what `brief` makes of it, or its error."""
        del brief
        return work()

    def agree(self, plan: Plan) -> None:
        """Raise BenchError where ranks would not measure the same."""

    def devices(
        self, where: str, known: Sequence[Device], ceilings: Callable[[], Ceilings]
    ) -> list[Device]:
        """Choose each rank's device; return them by rank, none for one process alone."""
        del where, known, ceilings
        return []

    def measure(
        self, numbers: Sequence[int], measure: hand_out.Measure, begin: Begin = _unheard,
        keep: Keep = _unheard, share: hand_out.Between = _unheard,
    ) -> None:  # fmt: skip
        """Measure groups by their numbers; `begin` and `keep` hear of them, with the rank."""
        for number in numbers:
            begin(number, 0)
            keep(number, 0, measure(number, share))

    @contextlib.contextmanager
    def guard(self, way_on: str) -> Iterator[None]:
        """Return a context that an error of one rank alone leaves with the whole job."""
        del way_on
        yield


class Ranks(Alone):
    """The ranks of an MPI job.

    Parameters
    ----------
    mpi
        The module ``mpi4py.MPI``.
    """

    def __init__(self, mpi: Any) -> None:
        self.comm = mpi.COMM_WORLD
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        self.first = self.rank == 0
        cores = os.sched_getaffinity(0)
        everybody = self.comm.allgather((socket.gethostname(), cores))
        self.hosts = [host for host, _ in everybody]
        here = [theirs for host, theirs in everybody if host == self.hosts[self.rank]]
        self._known_to_all: Exception | None = None
        self.sharing = sum(not cores.isdisjoint(theirs) for theirs in here)

    def together(self, work: Callable[[], T]) -> T:
        """Return what `work` does; a ValueError on one rank is raised on all."""
        error = ""
        try:
            result = work()
        except ValueError as caught:
            error = str(caught)
        errors = self.comm.allgather(error)
        failed = [rank for rank, text in enumerate(errors) if text]
        if failed:
            text = errors[failed[0]]
            self._fail(text if len(failed) == self.size else f"{self._name(failed[0])}: {text}")
        return result

    def from_first(self, work: Callable[[], T], brief: Callable[[T], Any] = lambda x: x) -> Any:
        """Do `work` on the first rank; the others get what `brief` makes of it, or its error."""
        result, error = None, None
        if self.first:
            try:
                result = work()
            except ValueError as caught:
                error = caught
        outcome = brief(result) if self.first and error is None else None  # type: ignore[arg-type]
        failed, outcome = self.comm.bcast((error is not None, outcome))
        if failed:
            self._raise(error or ElsewhereError())
        return result if self.first else outcome

    def agree(self, plan: Plan) -> None:
        """Raise BenchError where ranks would not measure the same."""
        rows = {(row.operation, row.name): row for group in plan.groups for row in group.rows}
        sources = repr({key: source_hash.of_row(row) for key, row in rows.items()})
        about = machine.describe(plan.where)
        versions = {name: about.get(name) for name in ("python", "numpy", "numba", "cupy")}
        facts = {
            "place": plan.where, "kernels, peers and options": plan.fingerprint,
            "kernels' sources": hashlib.sha256(sources.encode()).hexdigest()[:16],
            **versions, **{name: peers.version(name) for name in plan.against},
        }  # fmt: skip
        everybody = self.comm.allgather(facts)
        for rank, theirs in enumerate(everybody):
            unlike = [name for name in facts if theirs.get(name) != everybody[0].get(name)]
            if unlike:
                said = (f"{name} ({theirs.get(name)}, not {everybody[0].get(name)})"
                        for name in unlike)  # fmt: skip
                self._fail(
                    f"{self._name(rank)} differs from {self._name(0)} in {', '.join(said)}; one "
                    "file wants one code and one set of packages on all hosts"
                )
        crowd = next((host for host in self.hosts if self.hosts.count(host) > 1), None)
        if plan.where == "cpu" and crowd is not None:
            self._fail(
                f"{self.hosts.count(crowd)} ranks would time the CPU of {crowd} at once, and share "
                "its memory and caches: no time would be a kernel's own; start one a host "
                "(mpiexec -ppn 1)"
            )

    def devices(
        self, where: str, known: Sequence[Device], ceilings: Callable[[], Ceilings]
    ) -> list[Device]:
        """Choose each rank's device and measure its ceilings, unless the file has them."""
        index, identity = (None, None) if where == "cpu" else self._gpu()
        host = self.hosts[self.rank]
        same = (d for d in known if (d.host, d.index, d.identity) == (host, index, identity))
        device = next(same, None)
        if device is None:
            device = Device(host, index, identity, machine.describe(where), ceilings())
        return list(self.comm.allgather(device))

    def measure(
        self, numbers: Sequence[int], measure: hand_out.Measure, begin: Begin = _unheard,
        keep: Keep = _unheard, share: hand_out.Between = _unheard,
    ) -> None:  # fmt: skip
        """Hand groups out, or take them; the first rank's `begin` and `keep` hear of all."""
        if self.first:
            hand_out.HandingOut(self.comm, numbers, begin, keep).run(measure, share)
        else:
            hand_out.work(self.comm, measure)

    @contextlib.contextmanager
    def guard(self, way_on: str) -> Iterator[None]:
        """Return a context that an error of one rank alone leaves with the whole job."""
        try:
            yield
        except hand_out.LostError:
            raise  # the others have been sent home
        except KeyboardInterrupt:
            if self.first:
                print(f"bench: interrupted; {way_on}", file=sys.stderr, flush=True)
            else:  # everybody was interrupted, as a rule: the first rank ends the job
                time.sleep(GRACE_SECONDS)
            self._end(130)
        except Exception as error:
            if error is self._known_to_all:
                raise
            traceback.print_exc()
            text = f"bench: {self._name(self.rank)}: {type(error).__name__}: {error}; {way_on}"
            print(text, file=sys.stderr, flush=True)
            self._end(1)

    def _gpu(self) -> tuple[int, str]:
        """Make a GPU of this rank's own the current one; return its number and identity."""
        import cupy

        runtime = cupy.cuda.runtime
        host = self.hosts[self.rank]
        count = runtime.getDeviceCount()
        # Where a batch system shows each rank a GPU of its own alone, that is its number 0.
        cupy.cuda.Device(self.hosts[: self.rank].count(host) % count).use()
        index, identity = sensors.gpu_identity()
        mine = (host, identity)
        taken = self.comm.allgather(mine)
        crowd = next((one for one in taken if taken.count(one) > 1), None)
        if crowd is not None:
            ranks = [self._name(rank) for rank, one in enumerate(taken) if one == crowd]
            self._fail(
                f"{' and '.join(ranks)} have one GPU between them ({crowd[1]}), and would disturb "
                f"each other; {crowd[0]} shows {len({i for h, i in taken if h == crowd[0]})} to "
                f"{self.hosts.count(crowd[0])} ranks: start one rank a GPU (mpiexec -n or -ppn)"
            )
        return index, identity

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts[rank]}"

    def _fail(self, text: str) -> NoReturn:
        """Raise an error that all ranks know of; the first one says it."""
        self._raise(BenchError(text) if self.first else ElsewhereError())

    def _raise(self, error: Exception) -> NoReturn:
        self._known_to_all = error
        raise error

    def _end(self, status: int) -> NoReturn:
        self.comm.Abort(status)
        os._exit(status)  # MPI may take its time


def join() -> Ranks:
    """Start MPI and return this process's place in the job.

    Raises
    ------
    BenchError
        mpi4py or an MPI that cannot be used, or no job.
    """
    try:
        from mpi4py import MPI
    except ModuleNotFoundError:
        raise BenchError(f"--distributed: mpi4py is not installed; {INSTALL}") from None
    except (ImportError, RuntimeError) as error:  # mpi4py is there, but no libmpi
        raise BenchError(f"--distributed: mpi4py finds no MPI: {error}; {INSTALL}") from None
    size = MPI.COMM_WORLD.Get_size()
    started = launcher.launched()
    if size == 1 and started is None:
        raise BenchError(f"--distributed wants the processes of an MPI job: {HOW}")
    if size == 1 and started is not None and started.size > 1:
        raise BenchError(
            f"--distributed: {started.size} processes were started, but to mpi4py each is alone: "
            "it belongs to another MPI than mpiexec; start them by its own, or pip install mpich"
        )
    return Ranks(MPI)
