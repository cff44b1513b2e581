"""What becomes of a command's output that nobody reads, or that cannot be written as it is."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

NOBODY_READS = 128 + signal.SIGPIPE  # as a shell has it of a command that the signal ended


def run(main: Callable[[], int]) -> Any:
    """Run a command line and return its exit status, `NOBODY_READS` for a pipe that was closed.

    Characters that standard output cannot encode become ``?``.

    Parameters
    ----------
    main
        Returns the exit status; lets BrokenPipeError through.
    """
    if sys.stdout is None:  # it was closed before
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the process
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    status: Any
    try:
        status = main()
    except BrokenPipeError:
        status = NOBODY_READS
    except SystemExit as ended:  # argparse's; Rich makes one of a closed pipe
        status = NOBODY_READS if isinstance(ended.__context__, BrokenPipeError) else ended.code
    try:
        print(end="", flush=True)  # here: at its own end Python would complain
    except BrokenPipeError:
        _forget()
        return NOBODY_READS
    except OSError as error:  # a full disk
        if not status:
            print(f"output: {error.strerror}", file=sys.stderr)
        _forget()
        return status or 2
    return status


def _forget() -> None:
    """Let what is still buffered go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
