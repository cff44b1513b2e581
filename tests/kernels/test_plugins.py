"""Kernels outside the lab: `new` begins them, every command finds them, a bad one is named."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import plugins, source_hash, table
from kernels.__main__ import main
from kernels.source import ROOT


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")  # which puts back what a test changes
    return tmp_path / "mine"


def python(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=ROOT.parent,
    )


def write_rows(folder, row, module=""):
    folder.mkdir(exist_ok=True)
    (folder / "rows.py").write_text(f"from kernels.table import Row\nROWS = [{row}]\n")
    (folder / "mine.py").write_text(module)
    plugins.use(folder)


# The first row of each operation that has a scaffold, in both languages.
@pytest.mark.parametrize("operation", ["conv2d", "max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("numba", [False, True])
def test_a_new_kernel_passes_check_as_it_is(operation, numba, folder, capsys):
    words = ["--numba"] if numba else []
    assert main(["new", operation, "my_idea", *words, "--plugin", str(folder)]) == 0
    told = capsys.readouterr().out
    name = "my_idea_numba" if numba else "my_idea"
    assert f"python -m kernels check {name} --plugin {folder}" in told
    written = sorted(path.name for path in folder.iterdir())
    assert written == sorted({f"{name}.py", "rows.py"} | (set() if numba else {f"{name}.cu"}))
    assert main(["check", name, "--plugin", str(folder), "--shapes", "0", "--fast"]) == 0
    assert f"{operation:16} {name}" in capsys.readouterr().out


def test_each_command_finds_it(folder, capsys):
    main(["new", "conv2d", "my_idea", "--plugin", str(folder)])
    capsys.readouterr()
    assert main(["list", "--json", "--plugin", str(folder)]) == 0
    assert "my_idea" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert main(["xray", "my_idea", "--shape", "1,1,6,6,2,3,3"]) == 0  # it stays in use
    assert "my_idea.cu" in capsys.readouterr().out
    x, w = np.ones((1, 1, 5, 5), np.float32), np.ones((2, 1, 3, 3), np.float32)
    np.testing.assert_array_equal(kernels.conv2d(x, w, kernel="my_idea"), np.full((1, 2, 3, 3), 9))
    done = python("profiling", "ncu", "my_idea", "1,1,6,6,2,3,3", "--plugin", folder)
    assert done.stdout.split()[-6:-4] == ["--plugin", str(folder)]
    done = python("lenet", "train", "--plugin", folder, "--conv", "none")
    assert ", my_idea\n" in done.stderr  # among those there are


def test_kernels_path_names_several_folders(folder, tmp_path):
    other = tmp_path / "other"
    main(["new", "conv2d", "one", "--plugin", str(folder)])
    main(["new", "max_pool2d", "two", "--plugin", str(other)])
    done = python("kernels", "list", "--json", KERNELS_PATH=f"{folder}{os.pathsep}{other}")
    assert {"one", "two"} <= {row["name"] for row in json.loads(done.stdout)}


def test_a_package_is_found_by_its_entry_point(folder, tmp_path):
    main(["new", "conv2d", "packaged", "--plugin", str(tmp_path / "theirs")])
    (tmp_path / "theirs" / "__init__.py").write_text("")
    information = tmp_path / "theirs-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[conv_kernel_lab.rows]\nall = theirs.rows:ROWS\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT.parent}"}
    done = python("kernels", "check", "packaged", "--shapes", "0", "--fast", **environment)
    assert done.returncode == 0, done.stderr
    (tmp_path / "theirs" / "rows.py").write_text("ROWS = 3\n")
    done = python("kernels", "list", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("list: theirs.rows:ROWS is 3; expected a list of kernels.table.Row\n")


def test_what_a_kernel_was_chosen_for_ends_with_its_source(folder):
    main(["new", "conv2d", "my_idea", "--plugin", str(folder)])
    plugins.use(folder)
    row = table.find("conv2d", "my_idea")
    before = source_hash.of_row(row)
    (folder / "tile.cuh").write_text("#pragma once\n")
    assert source_hash.of_row(row) != before


def test_a_pass_that_a_kernel_lacks_is_refused(folder):
    write_rows(
        folder,
        'Row("conv2d", "mine", "numpy", __package__ + ".mine", ("cpu",), ("forward",), "")',
        "def forward(x, w, b, y, shape):\n    y[:] = 1\n",
    )
    x, w = np.ones((1, 1, 5, 5), np.float32), np.ones((2, 1, 3, 3), np.float32)
    assert (kernels.conv2d(x, w, kernel="mine") == 1).all()
    with pytest.raises(ValueError, match="'mine' has no backward_data, only forward; use"):
        kernels.conv2d_backward_data(np.ones((1, 2, 3, 3), "f"), w, (1, 1, 5, 5), kernel="mine")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("7", "row 7 is a int; expected a kernels.table.Row"),
        ('Row("conv3d", "a", "numba", "a", ("cpu",), ("forward",), "")', "operation 'conv3d'"),
        ('Row("conv2d", "auto", "numba", "a", ("cpu",), ("forward",), "")', "no good name"),
        (
            'Row("conv2d", "a", "rust", "a", ("cpu",), ("forward",), "")',
            "language 'rust'; expected",
        ),
        ('Row("conv2d", "a", "cuda_c", "a", ("cpu",), ("forward",), "")', "some of 'emulator'"),
        ('Row("conv2d", "a", "numba", "a", ("cpu",), (), "")', "the passes (); expected"),
        ('Row("conv2d", "tiled", "numba", "a", ("cpu",), ("forward",), "")', "already, in the lab"),
        ("1 / 0", "rows.py:2: ZeroDivisionError: division by zero"),
        ("(", "rows.py:2: SyntaxError: "),
    ],
)
def test_a_bad_row_is_named(row, told, folder, capsys):
    write_rows(folder, row)
    assert main(["list"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert str(folder) in shown.err
    assert told in shown.err
    assert shown.err.count("\n") == 1


def test_every_command_line_names_a_bad_row(folder):
    write_rows(folder, "7")
    for words in (("profiling", "bench", "--shape", "1,1,6,6,2,3,3"), ("lenet", "train")):
        done = python(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "expected a kernels.table.Row" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0\n", "my_idea.py:{line}: ZeroDivisionError: division by zero"),
        ("import helper\n", "my_idea.py:{line}: ModuleNotFoundError: No module named 'helper'"),
        ("def f(:\n", "my_idea.py:{line}: SyntaxError: "),
        ("from . import other\n", "other.py:2: ValueError: two\\nlines"),
    ],
)
def test_a_module_that_raises_is_named(text, told, folder, capsys, monkeypatch):
    main(["new", "conv2d", "my_idea", "--plugin", str(folder)])
    plugins.use(folder)
    file = folder / "my_idea.py"
    line = file.read_text().count("\n") + 1
    file.write_text(file.read_text() + text)
    (folder / "other.py").write_text('# raises\nraise ValueError("two\\nlines")\n')
    monkeypatch.setattr(table, "_ROWS", ())  # so that --resources compiles none of the lab's
    capsys.readouterr()
    for words in (["check", "my_idea"], ["xray", "my_idea"], ["list", "--resources"]):
        assert main(words) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith(f"{words[0]}: {folder}/{told.format(line=line)}")
        assert shown.err.count("\n") == 1


def test_a_row_without_its_module_is_named(folder, capsys):
    write_rows(folder, 'Row("conv2d", "gone", "numpy", "gone", ("cpu",), ("forward",), "")')
    assert main(["check", "gone"]) == 2
    assert capsys.readouterr().err == (
        "check: row 'gone': ModuleNotFoundError: No module named 'gone'\n"
    )


def test_the_trainer_names_a_module_that_raises(folder):
    main(["new", "conv2d", "my_idea", "--plugin", str(folder)])
    (folder / "my_idea.py").write_text("1 / 0\n")
    words = ("lenet", "train", "--conv", "my_idea", "--pool", "max", "--plugin", folder)
    done = python(*words)
    assert (done.returncode, done.stderr) == (
        2, f"lenet: error: {folder}/my_idea.py:1: ZeroDivisionError: division by zero\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["conv3d", "mine"], "no operation 'conv3d'"),
        (["conv2d", "My Idea"], "'My Idea' is no name"),
        (
            ["conv2d", "for"],
            "'for' is no name for a kernel: expected a-z, 0-9 and _, 40 at most, and no Python",
        ),
        (["conv2d", "z" * 41], "40 at most"),
        (["conv2d", "tiled"], "has a kernel 'tiled' already"),
        (["conv2d", "tiled", "--numba"], "has a kernel 'tiled_numba' already"),
    ],
)
def test_new_refuses(words, told, folder, capsys):
    assert main(["new", *words, "--plugin", str(folder)]) == 2
    assert told in capsys.readouterr().err
    assert not folder.exists()


def test_new_overwrites_nothing(folder, capsys):
    folder.mkdir()
    (folder / "mine.cu").write_text("hers")
    assert main(["new", "conv2d", "mine", "--plugin", str(folder)]) == 2
    assert "mine.cu is there already" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["mine.cu"]
    for listed, told in (
        ("ROWS = list()\n", "has no list ROWS = [...]"),
        (
            "ROWS = []\n",
            'ROWS needs a line for each row; put this one in:\n    Row("conv2d", "other"',
        ),
    ):
        (folder / "rows.py").write_text(listed)
        assert main(["new", "conv2d", "other", "--plugin", str(folder)]) == 2
        assert told in capsys.readouterr().err
        assert (folder / "rows.py").read_text() == listed


@pytest.mark.parametrize("words", [["--plugin", "nowhere"], ["--plugin", __file__]])
def test_no_folder(words, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["list", *words])
    assert ended.value.code == 2
    assert "is no folder" in capsys.readouterr().err


def test_an_empty_folder_says_how_to_begin(folder, capsys):
    folder.mkdir()
    assert main(["list", "--plugin", str(folder)]) == 2
    assert f"new conv2d my_idea --plugin {folder} begins one" in capsys.readouterr().err


def test_inside_the_lab_the_row_follows_its_operations_last(folder, tmp_path, monkeypatch, capsys):
    from kernels import new

    lab = tmp_path / "kernels"
    for name in ("table.py", "conv2d/naive.py", "conv2d/naive.cu"):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(new, "ROOT", lab)
    assert main(["new", "conv2d", "my_idea"]) == 0
    assert "python -m kernels check my_idea\n" in capsys.readouterr().out
    rows = next(
        node.value.elts
        for node in ast.parse((lab / "table.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "_ROWS"
    )
    named = [(row.args[0].value, row.args[1].value) for row in rows]
    assert [name for name in named if name != ("conv2d", "my_idea")] == [
        (row.operation, row.name) for row in table._ROWS
    ]
    at = named.index(("conv2d", "my_idea"))
    assert (named[at - 1][0], named[at + 1][0]) == ("conv2d", "conv2d_relu_pool")
    assert ast.unparse(rows[at].args[3]) == "'kernels.conv2d.my_idea'"
    text = (lab / "conv2d" / "my_idea.py").read_text()
    assert 'CudaSource("conv2d/my_idea.cu")' in text
    assert Path(lab / "conv2d" / "my_idea.cu").read_text().startswith("// my_idea: say its idea")


CLANG_FORMAT = Path(sys.executable).with_name("clang-format")
RUFF = Path(sys.executable).with_name("ruff")


@pytest.mark.skipif(not CLANG_FORMAT.exists(), reason="the extra dev is not installed")
@pytest.mark.parametrize("operation", ["conv2d", "max_pool2d", "avg_pool2d"])
def test_a_new_kernel_is_laid_out_as_make_check_wants_it(operation, tmp_path, monkeypatch):
    from kernels import new

    lab = tmp_path / "kernels"
    first = new.FIRST_RUNGS[operation]
    for name in ("table.py", *(f"{first}{ending}" for ending in (".cu", ".py", "_numba.py"))):
        (lab / name).parent.mkdir(parents=True, exist_ok=True)
        (lab / name).write_text((ROOT / name).read_text())
    for name in ("pyproject.toml", ".clang-format"):
        (tmp_path / name).write_text((ROOT.parent / name).read_text())
    monkeypatch.setattr(new, "ROOT", lab)
    taken = set(table.names(operation))
    for length in (1, 2, 4, 5, 6, 7, 12, 18, 23, 29, 34, 40):
        name = "z" * length
        assert name not in taken
        assert main(["new", operation, name]) == 0
        assert main(["new", operation, name, "--numba"]) == 0
    files = list(lab.rglob("z*.cu"))
    assert len(files) == 12
    for command in (
        [CLANG_FORMAT, "--dry-run", "-Werror", *files],
        [RUFF, "format", "--check"],
        [RUFF, "check", "--ignore=I"],  # imports of a lab that is not all there
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_layout_of_a_first_rung_is_its_own():
    from kernels import new

    for first in new.FIRST_RUNGS.values():
        text = (ROOT / f"{first}.cu").read_text()
        assert new._laid_out(text) == text
