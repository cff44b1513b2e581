"""A probe looks at one thing on this machine, in a process of its own with a time limit.

What a probe loads may crash, hang or print: a broken driver does all three. The others go on, and
its line says what happened.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import signal
import subprocess
import sys
from typing import Literal, NamedTuple

Status = Literal["OK", "missing", "broken", "note"]


class Finding(NamedTuple):
    """One line of the doctor's table.

    Attributes
    ----------
    name
        What was looked at.
    status
        ``"OK"``; ``"missing"``, not there; ``"broken"``, there but not working; ``"note"``,
        working, but a reason to doubt figures or to expect trouble.
    found
        Version, value, or what went wrong.
    mend
        The line that mends it; empty where OK.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


class Probe(NamedTuple):
    """A function that looks, and what is said when it does not come back.

    Attributes
    ----------
    group
        The part of the table its findings belong to.
    name
        Of the finding, where the process dies.
    function
        ``"module:function"``; it takes nothing and returns a list of `Finding`.
    mend
        The line that mends what made it die.
    limit_s
        Seconds it may take.
    """

    group: str
    name: str
    function: str
    mend: str
    limit_s: float = 60.0


def ask(probes: list[Probe]) -> list[list[Finding]]:
    """Run probes side by side, one a core, and return the findings of each, in order."""
    running: set[subprocess.Popen[str]] = set()
    workers = min(len(probes), len(os.sched_getaffinity(0)), 8)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(lambda probe: _alone(probe, running), probes))
        except BaseException:  # an interrupt does not reach processes that lead a session
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                _kill(process)
            raise


def _alone(probe: Probe, running: set[subprocess.Popen[str]]) -> list[Finding]:
    late = ""
    command = [sys.executable, "-m", "profiling.doctor_probe", probe.function]
    # A session of its own, so that a compiler that hangs is ended with the probe that started it.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        running.add(process)
        try:
            said, complaint = process.communicate(timeout=probe.limit_s)
        except subprocess.TimeoutExpired:
            said, complaint, late = "", "", f"no answer within {probe.limit_s:g} s"
        finally:
            _kill(process)
            running.discard(process)
    try:
        return [Finding(**finding) for finding in json.loads(said)]
    except (ValueError, TypeError):
        pass
    reason = late or _last_line(complaint) or f"the process ended with status {process.returncode}"
    if process.returncode < 0 and not late:
        reason = f"the process died of {signal.Signals(-process.returncode).name}"
    absent = reason.startswith("ModuleNotFoundError")
    return [Finding(probe.name, "missing" if absent else "broken", reason, probe.mend)]


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # it has ended, and so has all that it started


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def main(function: str) -> None:
    """Run one probe and write its findings to standard output, as JSON and alone."""
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints
    module, _, name = function.partition(":")
    findings = getattr(importlib.import_module(module), name)()
    with os.fdopen(answer, "w") as file:
        json.dump([finding._asdict() for finding in findings], file)


if __name__ == "__main__":
    main(sys.argv[1])
