"""`python -m kernels exercise`: what a participant sees, and what is kept."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kernels import __main__, emulator
from kernels.exercises import catalogue, cli, grade
from kernels.exercises.progress import FILE

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

GUARD = catalogue.find("guard_the_edge")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in a folder of the test's own; return exit code, output and error."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        try:
            code = __main__.main(["exercise", *words])
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def states(run) -> dict[str, dict[str, dict]]:
    code, out, _ = run("list", "--json")
    assert code == 0
    return {row["name"]: row["languages"] for row in json.loads(out)}


def solve(tmp_path: Path, number: str = "2", language: str = "cuda_c") -> Path:
    exercise = catalogue.find(number)
    path = tmp_path / "exercises" / exercise.file_name(language)
    path.write_bytes(exercise.solution(language).read_bytes())
    return path


def test_from_start_to_passed(run, tmp_path):
    code, out, _ = run()
    assert (code, out.splitlines()[-1]) == (
        0, "0 of 17 passed; next: python -m kernels exercise start 1",
    )  # fmt: skip
    assert states(run)["guard_the_edge"]["cuda_c"] == {"state": "new", "attempts": 0}

    code, out, _ = run("start", "2")
    assert code == 0
    assert "Then: python -m kernels exercise check 2\n" in out
    path = tmp_path / "exercises" / "02_guard_the_edge.cu"
    assert path.read_bytes() == GUARD.start("cuda_c").read_bytes()
    assert path.with_suffix(".md").read_text() == GUARD.text()
    assert states(run)["guard_the_edge"]["cuda_c"]["state"] == "started"

    for _ in range(2):
        code, out, _ = run("check", "2")
        assert code == 1
        assert re.search(
            r"passed +right .*\n +FAILED +sanitiser +on 1,000 outputs, 5 taps: 02_", out
        )
        assert "\n  passed  compiles\n  passed  ends\n" in out
        assert "A hint: python -m kernels exercise hint 2\n" in out
    assert states(run)["guard_the_edge"]["cuda_c"] == {"state": "tried", "attempts": 2}
    assert "tried 2 times" in run("list")[1]

    solve(tmp_path)
    code, out, _ = run("check", "guard_the_edge")
    assert code == 0
    assert "FAILED" not in out
    assert out.endswith("Passed. Next: python -m kernels exercise start 3\n")
    # Passed stays passed, whatever becomes of the file.
    path.write_bytes(GUARD.start("cuda_c").read_bytes())
    assert run("check", "2")[0] == 1
    assert states(run)["guard_the_edge"]["cuda_c"] == {"state": "passed", "attempts": 3}
    assert states(run)["guard_the_edge"]["numba"]["state"] == "new"
    assert "1 of 17 passed; next: python -m kernels exercise start 1\n" in run("list")[1]


def test_numba_in_a_folder_of_ones_own(run, tmp_path):
    assert run("start", "4", "--numba", "--dir", "my work")[0] == 0
    code, out, _ = run("check", "4", "--numba", "--dir", "my work", "--json")
    assert code == 1
    graded = json.loads(out)
    assert graded["passed"] is False
    assert graded["language"] == "numba"
    last = graded["criteria"][-1]
    assert (last["name"], last["passed"]) == ("sectors", False)
    assert "04_coalesce_this_load_numba.py:" in last["message"]
    assert "check 4 --numba --dir 'my work'" in run("start", "4", "--numba", "--dir", "my work")[1]
    assert not (tmp_path / "exercises").exists()


def test_a_file_with_changes_is_not_overwritten(run, tmp_path):
    run("start", "2")
    path = tmp_path / "exercises" / "02_guard_the_edge.cu"
    assert run("start", "2")[0] == 0  # nothing was changed: nothing is lost
    path.write_text("// mine")
    code, _, err = run("start", "2")
    assert code == 2
    assert "has changes of yours, and stays as it is" in err
    assert "start 2 --again" in err
    assert path.read_text() == "// mine"

    for number, text in enumerate(("// mine", "// mine, too"), 1):
        path.write_text(text)
        assert run("start", "2", "--again")[0] == 0
        assert path.with_name(f"{path.name}.{number}").read_text() == text
        assert path.read_bytes() == GUARD.start("cuda_c").read_bytes()
    assert path.with_name(f"{path.name}.1").read_text() == "// mine"


def test_hints_come_one_at_a_time_and_a_solution_seen_is_noted(run, tmp_path):
    first, second, third = GUARD.hints()
    for shown, hidden in (((first,), second), ((first, second), third), ((third,), "no more")):
        code, out, _ = run("hint", "2")
        assert code == 0
        assert all(hint in out for hint in shown)
        assert hidden not in out
    assert "There are no more. python -m kernels exercise solution 2" in run("hint", "2")[1]

    assert run("solution", "2")[1].strip() == GUARD.solution("cuda_c").read_text().strip()
    run("start", "2")
    run("check", str(solve(tmp_path)), "--json")  # a usage error: no exercise of that name
    assert run("check", "2")[0] == 0
    assert "passed (solution seen)" in run("list")[1]
    assert run("show", "2")[1].startswith("# 2. Guard the edge")


def test_a_file_anywhere_and_its_language_by_its_name(run, tmp_path):
    mine = tmp_path / "mine.cu"
    mine.write_bytes(GUARD.solution("cuda_c").read_bytes())
    assert run("check", "2", "mine.cu")[0] == 0
    (tmp_path / "mine.py").write_text("from numba import cuda\n")
    code, out, _ = run("check", "2", "mine.py")
    assert code == 1
    assert "mine.py: there is no kernel 'filter_1d'" in out


@pytest.mark.parametrize(
    ("name", "text"), [("mine.cu", ""), ("mine.cu", "int a = 0;"), ("mine.py", "")]
)
def test_a_file_without_a_kernel_says_what_is_expected(name, text, run, tmp_path):
    (tmp_path / name).write_text(text)
    code, out, _ = run("check", "4", name, "--json")
    assert code == 1
    (criterion,) = json.loads(out)["criteria"]
    language = " --numba" if name == "mine.py" else ""
    assert criterion["message"] == (
        f"{name}: there is no kernel 'add_bias'; it has none: the grader launches "
        "add_bias(x, b, y, rows, cols); to begin again: "
        f"python -m kernels exercise start 4{language}"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "2"), r"exercises/02_\w+\.cu: there is no such file; to begin: .* start 2"),
        (("check", "2", "nowhere.cu"), r"nowhere\.cu: there is no such file"),
        (("start", "18"), r"no exercise '18'; there are 1 hello_index, 2 guard_the_edge"),
        (("hint", "tiled"), r"no exercise 'tiled'"),
        (("start", "5", "--numba"), r"vector_load is in CUDA C only; in Numba there are 1, 2, 3,"),
        (("start", "2", "--dir", "a_file"), r"a_file: .*exists"),
        (("hint", "2", "--dir", "a_file"), r"a_file/progress\.json: progress cannot be kept"),
        (("dance",), r"invalid choice: 'dance'"),
    ],
)  # fmt: skip
def test_bad_usage_is_told_in_a_line(run, tmp_path, words, message):
    (tmp_path / "a_file").write_text("")
    code, out, err = run(*words)
    assert code == 2
    assert not out
    assert re.search(message, err), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b'{"kind": "conv-kernel-lab exercises 1", "exercises": {"guard',
        b'{"kind": "conv-kernel-lab exercises 2", "exercises": {}}',
        b'{"kind": "conv-kernel-lab exercises 1", "exercises": {"a": {"hints": "many"}}}',
        b'{"name": "somebody else\'s", "progress": 7}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_progress_that_cannot_be_read_is_left_as_it_is(run, tmp_path, kept):
    folder = tmp_path / "exercises"
    folder.mkdir()
    (folder / FILE).write_bytes(kept)
    solve(tmp_path)
    for words in (("list",), ("check", "2"), ("hint", "2"), ("solution", "2"), ("start", "1")):
        code, out, err = run(*words)
        assert code == 2
        assert "exercises/progress.json: this is no progress of exercises" in err
        assert "move it away" in err
        assert not out
    assert (folder / FILE).read_bytes() == kept
    assert sorted(path.name for path in folder.iterdir()) == ["02_guard_the_edge.cu", FILE]


def test_nothing_is_left_beside_the_progress(run, tmp_path):
    run("hint", "1")
    assert [path.name for path in (tmp_path / "exercises").iterdir()] == [FILE]


def test_interrupted(run, tmp_path, monkeypatch):
    run("start", "2")

    def interrupt(*args: object) -> grade.Grade:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "grade", interrupt)
    assert run("check", "2")[0] == 130
    assert states(run)["guard_the_edge"]["cuda_c"]["attempts"] == 0


def test_without_a_compiler_that_can_trace_it_says_so(run, monkeypatch):
    def load(*args: object, **options: object) -> None:
        raise emulator.CompilerNotFound("CXX is clang++; tracing needs g++: unset CXX")

    run("start", "2")
    monkeypatch.setattr(emulator, "load", load)
    code, out, err = run("check", "2")
    assert (code, out) == (2, "")
    assert err == "exercise: CXX is clang++; tracing needs g++: unset CXX\n"


def test_without_a_compiler_it_says_so_and_counts_no_try(run, monkeypatch):
    run("start", "2")
    monkeypatch.setattr(emulator, "problem", lambda: "no C++ compiler")
    code, _, err = run("check", "2")
    assert code == 2
    assert "no CUDA C can be run here: no C++ compiler" in err
    assert states(run)["guard_the_edge"]["cuda_c"]["attempts"] == 0
