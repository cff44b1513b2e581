"""The command ``exercise``: list, start, check, hint, show, solution."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from kernels.emulator import CompilerNotFound
from kernels.exercises.catalogue import EXERCISES, find
from kernels.exercises.exercise import COMMAND, LANGUAGES, Exercise, ExerciseError
from kernels.exercises.grade import Grade, grade, in_child, problem
from kernels.exercises.progress import Progress, ProgressError, load, updated

DEFAULT_FOLDER = Path("exercises")
WIDTH = 120  # of what is no terminal
_VERDICTS = {True: "passed", False: "FAILED", None: "-"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options; `run` takes what is parsed."""
    parser.description = (
        "Graded exercises, from a first kernel to one that beats `tiled`. No GPU is needed: CUDA C "
        "runs under the X-ray, Numba on its simulator, with arrays that count and check in the "
        "X-ray's stead (not branches, and not what a compiler would merge). Solutions are in the "
        "open, below kernels/exercises/: look after you have tried."
    )
    anywhere = argparse.ArgumentParser(add_help=False)
    anywhere.add_argument(
        "--dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR",
        help="your folder, with your files and your progress (default ./%(default)s)",
    )  # fmt: skip
    one = argparse.ArgumentParser(add_help=False, parents=[anywhere])
    one.add_argument("exercise", metavar="N", help="an exercise's number or name")
    numba = argparse.ArgumentParser(add_help=False)
    numba.add_argument("--numba", action="store_true", help="in Numba CUDA (default: CUDA C)")

    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    parser.set_defaults(act=_list, dir=DEFAULT_FOLDER, json=False)
    listing = actions.add_parser(
        "list", parents=[anywhere], help="the exercises, and how far you are (the default)"
    )
    listing.add_argument("--json", action="store_true", help="for a program to read")
    listing.set_defaults(act=_list)
    starting = actions.add_parser(
        "start", parents=[one, numba], help="copy the starting file and the text to your folder"
    )
    starting.add_argument(
        "--again", action="store_true", help="begin anew; the file with your changes is kept beside"
    )
    starting.set_defaults(act=_start)
    checking = actions.add_parser(
        "check", parents=[one, numba], help="grade your file; exit 1 while it does not pass"
    )
    checking.add_argument("file", nargs="?", type=Path, help="(default: the one in your folder)")
    checking.add_argument("--json", action="store_true", help="for a program to read")
    checking.set_defaults(act=_check)
    for name, act, text, parents in (
        ("show", _show, "the text", [one]),
        ("hint", _hint, "the next hint, below those you have seen", [one]),
        ("solution", _solution, "one file that passes; your progress will say so", [one, numba]),
    ):
        actions.add_parser(name, parents=parents, help=text).set_defaults(act=act)


def run(args: argparse.Namespace) -> int:
    """Do what `args` say; return 0, 1 for a file that does not pass, 2 for bad input."""
    try:
        return int(args.act(args))
    except (ExerciseError, ProgressError, CompilerNotFound) as error:
        print(f"exercise: {error}", file=sys.stderr)
    return 2


def _list(args: argparse.Namespace) -> int:
    progress = load(args.dir)
    if args.json:
        print(json.dumps([_row(exercise, progress, args.dir) for exercise in EXERCISES], indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    view = Table(box=None)
    view.add_column(justify="right")
    for column in ("exercise", "idea", *LANGUAGES.values()):
        view.add_column(column)
    for exercise in EXERCISES:
        states = _row(exercise, progress, args.dir)["languages"]
        told = [
            _told(states[language], progress.entry(exercise.name).solution_seen)
            if language in states
            else ""
            for language in LANGUAGES
        ]
        view.add_row(str(exercise.number), exercise.name, exercise.idea, *told)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(view)
    passed = [exercise for exercise in EXERCISES if progress.entry(exercise.name).passed]
    waiting = [exercise for exercise in EXERCISES if exercise not in passed]
    step = f"; next: {COMMAND} start {waiting[0].number}" if waiting else ""
    print(f"{len(passed)} of {len(EXERCISES)} passed{step}")
    return 0


def _row(exercise: Exercise, progress: Progress, folder: Path) -> dict[str, Any]:
    entry = progress.entry(exercise.name)
    languages = {}
    for language in exercise.languages:
        tries = entry.tries(language)
        started = (folder / exercise.file_name(language)).exists()
        state = "tried" if tries.attempts else "started" if started else "new"
        languages[language] = {
            "state": "passed" if tries.passed else state,
            "attempts": tries.attempts,
        }
    return {
        "number": exercise.number,
        "name": exercise.name,
        "title": exercise.title,
        "idea": exercise.idea,
        "hints_seen": entry.hints,
        "solution_seen": entry.solution_seen,
        "languages": languages,
    }


def _told(state: dict[str, Any], solution_seen: bool) -> str:
    times = "once" if state["attempts"] == 1 else f"{state['attempts']} times"
    if state["state"] == "tried":
        return f"tried {times}"
    seen = " (solution seen)" if solution_seen and state["state"] == "passed" else ""
    return state["state"] + seen


def _start(args: argparse.Namespace) -> int:
    exercise = find(args.exercise)
    language = _language(exercise, args.numba)
    load(args.dir)  # a folder with somebody else's progress.json is not ours to write to
    path = args.dir / exercise.file_name(language)
    fresh = exercise.start(language).read_bytes()
    args.dir.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes() != fresh:
        if not args.again:
            raise ExerciseError(
                f"{path} has changes of yours, and stays as it is; to grade it: "
                f"{_command('check', exercise, language, args.dir)}; to begin anew, with your file "
                f"kept beside: {_command('start', exercise, language, args.dir)} --again"
            )
        kept = _unused(path)
        path.rename(kept)
        print(f"{kept}  your file as it was")
    path.write_bytes(fresh)
    text = args.dir / exercise.text_name
    if not text.exists():
        text.write_text(exercise.text(), encoding="utf-8")
    print(f"{path}  to change\n{text}  what to do, and why\n")
    print(f"Then: {_command('check', exercise, language, args.dir)}")
    return 0


def _unused(path: Path) -> Path:
    """Return a name beside a file that nothing has yet."""
    number = 1
    while (kept := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return kept


def _check(args: argparse.Namespace) -> int:
    exercise = find(args.exercise)
    by_name = args.file is not None and args.file.suffix == ".py"
    language = _language(exercise, args.numba or by_name)
    load(args.dir)
    path = args.file or args.dir / exercise.file_name(language)
    if not path.is_file():
        start = _command("start", exercise, language, args.dir)
        raise ExerciseError(f"{path}: there is no such file; to begin: {start}")
    if why := problem(language):
        raise ExerciseError(f"no CUDA C can be run here: {why}")
    graded = _busy(exercise, path, language)
    # What was found is told, even where it cannot be kept.
    if args.json:
        print(json.dumps(_as_json(exercise, path, language, graded), indent=2))
    else:
        _tell(exercise, path, language, graded, args.dir)
    with updated(args.dir) as progress:
        tries = progress.entry(exercise.name).tries(language)
        tries.attempts += not tries.passed
        tries.passed = tries.passed or graded.passed
    return 0 if graded.passed else 1


def _busy(exercise: Exercise, path: Path, language: str) -> Grade:
    from rich.console import Console

    with Console(stderr=True).status(f"grading {path}"):
        grader = in_child if language == "numba" else grade
        return grader(exercise, path.resolve(), language)


def _as_json(exercise: Exercise, path: Path, language: str, graded: Grade) -> dict[str, Any]:
    return {
        "number": exercise.number,
        "name": exercise.name,
        "language": language,
        "file": str(path),
        "passed": graded.passed,
        "criteria": [dataclasses.asdict(criterion) for criterion in graded.criteria],
    }


def _tell(exercise: Exercise, path: Path, language: str, graded: Grade, folder: Path) -> None:
    print(f"{exercise.number}. {exercise.title}, {LANGUAGES[language]}: {path}\n")
    width = max(len(criterion.name) for criterion in graded.criteria)
    columns = shutil.get_terminal_size((WIDTH, 24)).columns
    for criterion in graded.criteria:
        head = f"  {_VERDICTS[criterion.passed]:6}  {criterion.name:{width}}  "
        for line in criterion.message.splitlines() or [""]:
            print(textwrap.fill(head + line, columns, subsequent_indent=" " * (len(head) + 2)))
            head = " " * len(head)
    if not graded.passed:
        if exercise.limits and {"right", "sanitiser"} & set(graded.failed):
            print("\nWhat it costs is counted when it is right and has no fault.")
        print(f"\nNot yet passed. A hint: {_command('hint', exercise, 'cuda_c', folder)}")
        return
    following = next((one for one in EXERCISES if one.number == exercise.number + 1), None)
    step = f" Next: {_command('start', following, 'cuda_c', folder)}" if following else ""
    print(f"\nPassed.{step}")


def _show(args: argparse.Namespace) -> int:
    print(find(args.exercise).text().rstrip())
    return 0


def _hint(args: argparse.Namespace) -> int:
    exercise = find(args.exercise)
    hints = exercise.hints()
    with updated(args.dir) as progress:
        entry = progress.entry(exercise.name)
        had, entry.hints = entry.hints, min(entry.hints + 1, len(hints))
        seen = entry.hints
    for number, hint in enumerate(hints[:seen], 1):
        print(f"Hint {number} of {len(hints)}\n{hint}\n")
    if had >= len(hints):
        print(f"There are no more. {_command('solution', exercise, 'cuda_c', args.dir)}")
    return 0


def _solution(args: argparse.Namespace) -> int:
    exercise = find(args.exercise)
    language = _language(exercise, args.numba)
    with updated(args.dir) as progress:
        entry = progress.entry(exercise.name)
        entry.solution_seen = entry.solution_seen or not entry.passed
    print(exercise.solution(language).read_text(encoding="utf-8").rstrip())
    return 0


def _language(exercise: Exercise, numba: bool) -> str:
    language = "numba" if numba else "cuda_c"
    if language not in exercise.languages:
        there = [str(one.number) for one in EXERCISES if language in one.languages]
        raise ExerciseError(
            f"exercise {exercise.number} {exercise.name} is in CUDA C only; in Numba there are "
            f"{', '.join(there)}"
        )
    return language


def _command(action: str, exercise: Exercise, language: str, folder: Path) -> str:
    words = [COMMAND, action, str(exercise.number)]
    words += ["--numba"] if language == "numba" else []
    words += ["--dir", shlex.quote(str(folder))] if folder != DEFAULT_FOLDER else []
    return " ".join(words)
