"""Every kernel against the judge, and what the check's report and command line say."""

from __future__ import annotations

import json

import pytest

from kernels import __main__ as cli
from kernels import cases, check, table

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


def test_list_names_every_row(capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for row in table.rows():
        assert row.name in out
    assert cli.main(["list", "--json"]) == 0
    listing = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listing] == [row.name for row in table.rows()]
