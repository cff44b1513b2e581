"""The grader: what a participant's file has to meet, criterion by criterion.

It compiles; its launches end; the judge finds the results right; the sanitiser finds no fault; a
GPU's compiler takes it, where one is installed; and the counts of the first launch keep the
exercise's limits. A kernel that is wrong is not counted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernels import compare, emulator
from kernels.exercises import catalogue
from kernels.exercises.exercise import Case, Exercise, ExerciseError
from kernels.exercises.for_gpu import NotForGpu, NotHere
from kernels.exercises.launching import (
    CudaKernel,
    Kernel,
    Launched,
    NotAccepted,
    NotEnded,
    NumbaKernel,
)
from kernels.exercises.limits import Limit
from kernels.source import ROOT
from kernels.xray.record import Finding
from kernels.xray.sanitise import describe
from kernels.xray.wording import counted

SHOWN = 3  # of the wrong elements, of the findings
CHILD_LIMIT = 60.0  # seconds for all launches of a file of Numba's
# What to think of, by the kind of a finding.
LESSONS = {
    "bounds": "a thread whose index is outside must touch nothing: guard it by a condition",
    "race": "between one thread's write and another's access there must be a barrier, or they must "
    "have elements of their own",
    "uninitialised": "what is read has to be stored before, by somebody, for every index",
    "unwritten": "no thread takes these elements: look at how a thread finds its index",
    "barrier": "a barrier waits for all threads of the block: it cannot stand under a condition",
}


@dataclasses.dataclass(frozen=True)
class Criterion:
    """One of the things that a file has to meet.

    Attributes
    ----------
    name
        ``"right"``, for instance.
    passed
        None where it was not looked at.
    message
        Why not, or what was counted.
    """

    name: str
    passed: bool | None
    message: str


@dataclasses.dataclass(frozen=True)
class Grade:
    """All criteria of one file."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """Whether none failed; a limit that this machine cannot look at does not count."""
        return all(criterion.passed is not False for criterion in self.criteria)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of those that failed."""
        return tuple(one.name for one in self.criteria if one.passed is False)


def grade(exercise: Exercise, path: Path, language: str) -> Grade:
    """Grade a file in this process; see `in_child` for Numba.

    Parameters
    ----------
    exercise
        Of the catalogue.
    path
        The participant's file.
    language
        ``"cuda_c"`` or ``"numba"``.

    Raises
    ------
    CompilerNotFound
        No CUDA C can be emulated here.
    """
    try:
        cases = exercise.cases(path.read_text(encoding="utf-8", errors="replace"))
        make = CudaKernel if language == "cuda_c" else NumbaKernel
        kernel: Kernel = make(path, exercise, list(cases[0].args))
    except (ExerciseError, NotAccepted) as error:
        return Grade((Criterion("compiles", False, str(error)),))
    done = [Criterion("compiles", True, "")]
    launched = []
    for case in cases:
        try:
            launched.append(kernel.launch(case))
        except NotEnded as error:
            return Grade((*done, Criterion("ends", False, f"on {case.label}: {error}")))
    done += [Criterion("ends", True, ""), _right(cases, launched), _sanitiser(cases, launched)]
    if not all(criterion.passed for criterion in done):
        return Grade(tuple(done))
    limits = (_limit(one, cases[0], launched[0]) for one in exercise.limits)
    return Grade((*done, _for_gpu(kernel), *limits))


def in_child(exercise: Exercise, path: Path, language: str, limit: float = CHILD_LIMIT) -> Grade:
    """Grade a file in a process of its own, which is ended where it takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "grade.json"
        command = [sys.executable, "-m", __name__, exercise.name, str(path), language, str(answer)]
        paths = [str(ROOT.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}  # this lab, wherever we are
        try:
            done = subprocess.run(command, env=env, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            text = f"the simulator was stopped after {limit:g} s: a loop that does not end?"
            return Grade((Criterion("ends", False, text),))
        if not answer.exists():
            text = f"{path.name} ended its process (exit code {done.returncode})"
            return Grade((Criterion("ends", False, text),))
        return Grade(tuple(Criterion(**one) for one in json.loads(answer.read_text())))


def _right(cases: Sequence[Case], launched: Sequence[Launched]) -> Criterion:
    for case, launch in zip(cases, launched, strict=True):
        if any(finding.kind == "barrier" for finding in launch.recording.findings):
            return Criterion(
                "right", None, "not judged: a barrier failed, and CUDA promises nothing"
            )
        for name, want in case.want.items():
            verdict = compare.judge(launch.args[name], want, np.asarray(case.bound[name]))
            if not verdict.ok:
                return Criterion("right", False, _wrong(case, name, verdict))
    return Criterion("right", True, f"{counted(len(cases), 'shape')}, all elements")


def _wrong(case: Case, name: str, verdict: compare.Verdict) -> str:
    lines = [
        f"on {case.label}: {verdict.wrong:,} of {verdict.total:,} elements of {name} are wrong"
    ]
    for index, got, want, allowed in verdict.first[:SHOWN]:
        nothing = " (not a number: never written, or made of what was not)" if got != got else ""
        lines.append(
            f"  {name}[{', '.join(map(str, index))}] is {got:.7g}{nothing}; "
            f"NumPy has {want:.7g}" + (f" within {allowed:.2g}" if allowed else "")
        )
    return "\n".join(lines)


def _sanitiser(cases: Sequence[Case], launched: Sequence[Launched]) -> Criterion:
    found: dict[tuple[Any, ...], str] = {}
    for case, launch in zip(cases, launched, strict=True):
        for finding in launch.recording.findings:
            key = (finding.kind, finding.file, finding.line, finding.array)
            found.setdefault(key, f"on {case.label}: {describe(finding)}{_whose(finding)}")
    if not found:
        return Criterion("sanitiser", True, "no finding")
    lines = list(found.values())
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    kinds = dict.fromkeys(key[0] for key in found)
    lessons = [f"({kind}) {LESSONS[kind]}" for kind in kinds if kind in LESSONS]
    return Criterion("sanitiser", False, "\n".join(lines[:SHOWN] + more + lessons))


def _whose(finding: Finding) -> str:
    if finding.thread is None or f"thread {finding.thread}" in finding.message:
        return ""
    return f", first by thread {finding.thread} of block {finding.block}"


def _for_gpu(kernel: Kernel) -> Criterion:
    try:
        return Criterion("for a GPU", True, kernel.for_gpu())
    except NotForGpu as error:
        return Criterion("for a GPU", False, str(error))
    except NotHere as error:
        return Criterion("for a GPU", None, f"not looked at: {error}")


def _limit(limit: Limit, case: Case, launch: Launched) -> Criterion:
    if launch.recording.cut:
        return Criterion(limit.name, False, f"on {case.label}: too much is done to be counted")
    try:
        passed, message = limit.look(launch.recording)
    except (NotHere, NotForGpu) as error:
        return Criterion(limit.name, None, f"not looked at: {error}")
    return Criterion(limit.name, passed, message if passed else f"on {case.label}: {message}")


def problem(language: str) -> str | None:
    """Return why nothing of a language can be graded here, or None."""
    return emulator.problem() if language == "cuda_c" else None


def main(argv: Sequence[str]) -> int:
    """Grade for `in_child`: NAME FILE LANGUAGE ANSWER."""
    name, path, language, answer = argv
    graded = grade(catalogue.find(name), Path(path), language)
    criteria = [dataclasses.asdict(criterion) for criterion in graded.criteria]
    Path(answer).write_text(json.dumps(criteria))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
