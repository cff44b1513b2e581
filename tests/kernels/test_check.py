"""Every kernel against the judge, and what the check's report and command line say."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from kernels import __main__ as cli
from kernels import cases, check, plugins, table
from kernels.xray.sanitise import sanitise

ROWS = [row for row in table.rows() if row.name != "reference"]
RUNS = [(row, where) for row in ROWS for where in row.places]
IDS = [f"{row.operation}-{row.name}-{where}" for row, where in RUNS]
# In four parts, for the sake of parallel tests; the few shapes for the simulator are one.
PARTS = [
    (row, where, part) for row, where in RUNS for part in range(1 if where == "simulator" else 4)
]


def _runnable(row: table.Row, where: str) -> None:
    if problem := check.places_here(row)[where]:
        pytest.skip(f"{where}: {problem}")


def _marks(row: table.Row, where: str) -> tuple[pytest.MarkDecorator, ...]:
    if where == "gpu":
        return (pytest.mark.gpu,)
    # Threads with barriers are the simulator's slowest.
    slow = where == "simulator" and row.name in ("tiled_numba", "im2col_gemm_numba")
    return (pytest.mark.slow,) * slow


@pytest.mark.parametrize(
    ("row", "where", "part"),
    [pytest.param(*run, marks=_marks(*run[:2])) for run in PARTS],
    ids=lambda value: value.name if isinstance(value, table.Row) else str(value),
)
def test_every_pass_agrees_with_the_judge(row: table.Row, where: str, part: int):
    _runnable(row, where)
    if where == "simulator":
        shapes = cases.fixed(row.operation, where)
    else:
        shapes = cases.chosen(row.operation, where, 12, seed=7)[part::4]
    results = list(check.check_row(row, shapes, where, seed=part))
    assert {result.direction for result in results} == set(row.passes)
    dtypes = {"float32"} if row.roundoff else {"float32", "float64"}
    assert {result.dtype for result in results} == dtypes
    wrong = [result for result in results if not result.ok]
    assert not wrong, "\n".join(f"{r.direction} {r.shape}\n{r.message}" for r in wrong[:3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "where"),
    [
        pytest.param(row, where, marks=pytest.mark.gpu if where == "gpu" else ())
        for row, where in RUNS
    ],
    ids=IDS,
)
def test_random_shapes(row: table.Row, where: str):
    _runnable(row, where)
    shapes = cases.random(row.operation, 10 if where == "simulator" else 200, seed=11)
    wrong = [result for result in check.check_row(row, shapes, where) if not result.ok]
    assert not wrong, "\n".join(f"{r.direction} {r.shape}\n{r.message}" for r in wrong[:3])


def test_random_shapes_are_the_same_for_the_same_seed():
    assert cases.random("conv2d", 5, seed=3) == cases.random("conv2d", 5, seed=3)
    assert cases.random("conv2d", 5, seed=3) != cases.random("conv2d", 5, seed=4)


def test_command_line_reports_success(capsys):
    assert cli.main(["check", "avg", "--shapes", "1"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["avg_pool2d", "avg", "emulator"]


def test_command_line_reports_a_failure_with_its_indices(capsys, monkeypatch):
    row = table.find("avg_pool2d", "cpu")

    def forward(x, y, shape):
        y[...] = 0

    monkeypatch.setattr(row.launchers, "forward", forward)
    monkeypatch.setattr(table, "_ROWS", (row,))
    assert cli.main(["check", "cpu", "--shapes", "0"]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "forward float32 PoolShape(n=2, c=6" in out
    assert "[0, 0, 0, 0] got 0, want" in out


ENDLESS = "    volatile int turns = 1;\n    while (turns) turns = 1;\n"


def spoilt(tmp_path, monkeypatch, old, new):
    """Begin a kernel in a folder, with one edit of its .cu file."""
    monkeypatch.setenv(plugins.VARIABLE, "")
    folder = tmp_path / "mine"
    assert cli.main(["new", "conv2d", "spoilt", "--plugin", str(folder)]) == 0
    plugins.use(folder)
    file = folder / "spoilt.cu"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_file_that_does_not_compile_is_told_once(tmp_path, monkeypatch, capsys):
    spoilt(tmp_path, monkeypatch, "scalar sum = b ?", "scaler sum = b ?")
    capsys.readouterr()
    assert cli.main(["check", "spoilt"]) == 1
    out = capsys.readouterr().out
    assert out.count("CompileError: spoilt.cu:") == 1
    assert "1 of 1 FAILED" in out
    assert "nothing else of it is checked" in out
    assert "sanitised" not in out
    assert cli.main(["check", "spoilt", "--json"]) == 1
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["ok"], record["skips"]) == (False, "row")


def test_the_sanitiser_gives_up_on_it_too(tmp_path, monkeypatch):
    spoilt(tmp_path, monkeypatch, "scalar sum = b ?", "scaler sum = b ?")
    (result,) = sanitise(table.find("conv2d", "spoilt"))
    assert result.skips == "row"


def test_a_pass_that_does_not_end_is_left_and_the_others_are_checked(tmp_path, monkeypatch, capsys):
    begins = "    const int i = grid_index();\n"
    spoilt(tmp_path, monkeypatch, begins, ENDLESS + begins)
    capsys.readouterr()
    began = time.monotonic()
    assert cli.main(["check", "spoilt", "--shapes", "0", "--limit", "0.5", "--json"]) == 1
    assert time.monotonic() - began < 60  # 264 such launches, without an end
    records = json.loads(capsys.readouterr().out)
    ended = [record for record in records if record["pass"] == "forward"]
    assert [record["skips"] for record in ended] == ["pass"]
    assert "KernelTimeout" in ended[0]["message"]
    assert "limit of 0.5 s" in ended[0]["message"]
    others = [record for record in records if record["pass"] != "forward"]
    assert {record["place"] for record in others} == {"emulator", "sanitiser"}
    assert all(record["ok"] for record in others)


def test_what_failed_first_is_told_at_once(monkeypatch, capsys):
    row = table.find("avg_pool2d", "cpu")
    launcher, told = row.launchers.forward, []

    def forward(x, y, shape):
        told.append(capsys.readouterr().out)
        launcher(x, y, shape)
        if len(told) == 2:
            y[...] = 0

    monkeypatch.setattr(row.launchers, "forward", forward)
    monkeypatch.setattr(table, "_ROWS", (row,))
    assert cli.main(["check", "cpu", "--shapes", "0"]) == 1
    assert told[1] == ""
    assert told[2].startswith("avg_pool2d       cpu                 cpu       FAILED, first:\n")
    assert "got 0, want" in told[2]
    end = capsys.readouterr().out
    assert " 1 of " in end
    assert "got 0, want" not in end


@pytest.mark.parametrize("limit", ["0", "-1", "inf", "nan", "soon"])
def test_a_limit_is_seconds(limit, capsys):
    with pytest.raises(SystemExit):
        cli.main(["check", "naive", "--limit", limit])
    assert "expected seconds above 0" in capsys.readouterr().err


def test_json_is_for_programs(capsys):
    assert cli.main(["check", "avg", "--shapes", "0", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {record["pass"] for record in records} == {"forward", "backward"}
    assert all(record["ok"] for record in records)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "tield"], "no kernel named 'tield'; there are reference, cpu, naive"),
        (["check", "reference"], "the judge itself"),
        (["check", "cpu", "--place", "emulator"], "does not run on emulator"),
    ],
)
def test_bad_usage_is_one_clear_line(arguments, message, capsys):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_compiler_is_the_reason_given(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert cli.main(["check", "naive", "--place", "emulator"]) == 2
    assert "CXX names '/nowhere/g++', which is not there" in capsys.readouterr().err


def test_bad_counts_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", "--shapes", "-3"])
    assert stop.value.code == 2
    assert "expected a whole number" in capsys.readouterr().err


def test_list_says_which_passes_a_row_has_if_not_all(capsys, monkeypatch):
    tiled = table.find("conv2d", "tiled")
    monkeypatch.setattr(table, "_ROWS", (dataclasses.replace(tiled, passes=("backward_bias",)),))
    assert cli.main(["list"]) == 0
    assert "in shared memory (passes: bias)" in capsys.readouterr().out


def test_list_names_every_row(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    assert out.count("passes: ") == len(table.PASSES)
    for row in table.rows():
        assert f"  {row.name} " in out
        assert row.summary[:60] in out
    assert cli.main(["list", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listing] == [row.name for row in table.rows()]
