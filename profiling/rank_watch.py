"""How this process was started among others, and a watch that tells which of them died, and where.

A process that is killed says nothing, and its launcher ends the others at once. So what mpiexec
starts only starts the rank proper, the same command again, and waits for it: it lives on to say
what the rank was measuring.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

# Rank and size in the environment: MPICH and its kin (and srun --mpi=pmi2), Open MPI, srun.
VARIABLES = (
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
NOTES = "CONV_KERNEL_LAB_RANK_NOTES"  # descriptor of the file that says what a rank is at
LONGEST_NOTE = 4096
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def launched() -> tuple[int, int] | None:
    """Return this process's rank and how many were started; None where no launcher says so."""
    for names in VARIABLES:
        values = [os.environ.get(name, "") for name in names]
        if all(value.isdecimal() for value in values):
            return int(values[0]), int(values[1])
    return None


def is_watched() -> bool:
    """Tell whether this process is a rank proper; if so, it ends with the one that watches it."""
    if NOTES not in os.environ:
        return False
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return True


def note(text: str) -> None:
    """Say what this rank is at, for the message if it dies there."""
    if NOTES in os.environ:
        data = text.encode()[:LONGEST_NOTE]
        os.ftruncate(int(os.environ[NOTES]), 0)
        os.pwrite(int(os.environ[NOTES]), data, 0)


def watch(way_on: str) -> int:
    """Run this very command as the rank proper, and return its exit code; 1 if a signal ended it.

    Parameters
    ----------
    way_on
        What to do then, for the message.
    """
    with tempfile.TemporaryFile() as notes:
        os.set_inheritable(notes.fileno(), True)
        # MPI's own descriptors go on to the rank. In a session of its own it does not get a
        # terminal's signals: they come here, and are handed on once.
        child = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            close_fds=False, start_new_session=True,
            env={**os.environ, NOTES: str(notes.fileno())},
        )  # fmt: skip

        def hand_on(number: int, _: Any) -> None:
            child.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, hand_on)
        status = child.wait()
        if status >= 0:
            return status
        at = os.pread(notes.fileno(), LONGEST_NOTE, 0).decode(errors="replace")
    rank, _ = launched() or (0, 1)
    print(
        f"bench: rank {rank} on {socket.gethostname()} was ended by "
        f"{signal.Signals(-status).name} {at or 'before its first group'}; {way_on}",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    return 1
