"""How this process was started among others, and the watch over it that survives its death.

A process that is killed says nothing, and mpiexec ends the others at once, so that none of them
can. So what mpiexec starts only starts the rank proper and waits: it lives on to say which rank
died, where, and how to go on. It also hands signals on, to whom mpiexec or a batch system sends
them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Rank and size in the environment: MPICH and its kin (and srun --mpi=pmi2), Open MPI, srun.
VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
NOTES = "CONV_KERNEL_LAB_RANK_NOTES"  # descriptor of the file that says what a rank is at
LONGEST_NOTE = 4096
# Seconds for mpiexec to pass a message on (those on their way when it ends a job may be lost), and
# to end this process.
PASSING_ON, ENDING = 0.5, 5
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Launched(NamedTuple):
    """What the environment says before MPI starts.

    Attributes
    ----------
    rank, size
        Of this process, and how many were started.
    """

    rank: int
    size: int


SINGLE = Launched(0, 1)


def launched() -> Launched | None:
    """Return this process's place among those started together; None where no launcher says so."""
    for names in VARIABLES:
        values = [os.environ.get(name, "") for name in names]
        if all(value.isdecimal() for value in values):
            return Launched(*map(int, values))
    return None


def resume_command(folder: Path | str, size: int) -> str:
    """Return the command line that goes on with a run, by so many ranks."""
    if size == 1:
        return f"python -m lenet train --resume {folder}"
    return f"mpiexec -n {size} python -m lenet train --distributed --resume {folder}"


def way_on(folder: Path | str | None, size: int) -> str:
    """Return how to go on with a run whose job has ended, for a message."""
    if not folder:
        return "the job ends before its first checkpoint"
    return f"the job ends; go on from its last checkpoint with: {resume_command(folder, size)}"


def say(message: str) -> None:
    """Print a job's last words, and give them time to arrive."""
    print(message, file=sys.stderr, flush=True)
    time.sleep(PASSING_ON)


def note(text: str) -> None:
    """Tell the watching process what this rank is at, for the message if it dies there."""
    if NOTES in os.environ:
        data = text.encode()[:LONGEST_NOTE]
        os.ftruncate(int(os.environ[NOTES]), 0)
        os.pwrite(int(os.environ[NOTES]), data, 0)


def is_watched() -> bool:
    """Tell whether this process is a rank proper; if so, it ends when the watching process does."""
    if NOTES not in os.environ:
        return False
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return True


def watch(message: Callable[[str, str], str]) -> int:
    """Run this very command again, as the rank proper, and return its exit status.

    A rank that a signal ended gets a message, and the status 1.

    Parameters
    ----------
    message
        Makes it from "rank ... was ended by ..." and the rank's last note, which may be empty.
    """
    with tempfile.TemporaryFile() as notes:
        os.set_inheritable(notes.fileno(), True)
        # MPI's own descriptors go on to the rank. Signals come here and are handed on, once: in a
        # session of its own it does not get those that a terminal sends to all.
        child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            close_fds=False,
            start_new_session=True,
            env={**os.environ, NOTES: str(notes.fileno())},
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: child.send_signal(number))
        status = child.wait()
        if status >= 0:
            return status
        last = os.pread(notes.fileno(), LONGEST_NOTE, 0).decode(errors="replace")
    rank, _ = launched() or SINGLE
    name = signal.Signals(-status).name
    say(message(f"rank {rank} on {socket.gethostname()} was ended by {name}", last))
    if "PMI_FD" in os.environ and "PMI_JOBID" not in os.environ:  # Slurm has both
        # What MPI_Abort would have told MPICH's mpiexec: end the others, and with this status.
        # Else it reports the status of those that it killed.
        os.write(int(os.environ["PMI_FD"]), b"cmd=abort exitcode=1\n")
        time.sleep(ENDING)
    return 1
