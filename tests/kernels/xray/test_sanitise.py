"""``python -m kernels check`` runs the sanitiser: what right answers hide is found."""

from __future__ import annotations

import json

import pytest

from kernels import __main__ as cli
from kernels import emulator, table
from kernels.source import ROOT, CudaSource

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))


@pytest.fixture
def racy(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """avg's forward kernel, launched with twice the threads, two for each element."""
    row = table.find("avg_pool2d", "avg")
    text = (ROOT / "pool2d/avg.cu").read_text()
    for header in ("index.cuh", "shape.cuh"):
        (tmp_path / header).write_text((ROOT / header).read_text())
    forward, backward = text.split("void avg_pool2d_backward")
    changed = forward.replace("grid_index()", "grid_index() / 2")
    assert changed != forward
    (tmp_path / "avg.cu").write_text(f"{changed}void avg_pool2d_backward{backward}")
    source = CudaSource(tmp_path / "avg.cu", **row.launchers.source.defines)
    real = source.kernel

    def doubled(name: str, like, **defines):
        launch = real(name, like, **defines)
        if name != "avg_pool2d_forward":
            return launch
        return lambda grid, block, args, shared_mem=0: launch(
            (2 * grid[0], *grid[1:]), block, args, shared_mem=shared_mem
        )

    monkeypatch.setattr(source, "kernel", doubled)
    monkeypatch.setattr(row.launchers, "source", source)


def test_a_race_of_equal_values_passes_the_judge_and_not_the_sanitiser(
    racy: None, capsys: pytest.CaptureFixture[str]
):
    given = ["check", "avg", "--place", "emulator", "--shapes", "0"]
    assert cli.main([*given, "--fast"]) == 0
    assert cli.main(given) == 1
    out = capsys.readouterr().out
    assert "sanitised" in out
    assert "avg.cu:" in out
    assert "race" in out


def test_json_has_the_sanitisers_results(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["check", "max", "--place", "emulator", "--shapes", "0", "--json"]) == 0
    places = {record["place"] for record in json.loads(capsys.readouterr().out)}
    assert places == {"emulator", "sanitiser"}
