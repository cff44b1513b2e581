import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from profiling import scaling
from profiling.__main__ import main


@pytest.fixture
def mpi(monkeypatch):
    pytest.importorskip("mpi4py", reason="mpi4py is not installed (make test installs it)")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if shutil.which("mpiexec", path=path) is None:
        pytest.skip("no mpiexec (make test installs MPICH's)")
    # Started elsewhere, Python would find an installed lab, not this one.
    monkeypatch.chdir(Path(__file__).parents[2])


@pytest.mark.slow
def test_two_ranks_beside_one(mpi, capsys):
    options = [
        "--ranks",
        "2",
        "--images",
        "32",
        "--steps",
        "40",
        "--rounds",
        "1",
        "--device",
        "cpu",
    ]
    assert main(["scaling", *options, "--threads", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    one, two = record["rows"]
    assert [row["ranks"] for row in (one, two)] == [1, 2]
    assert [row["images_a_step"] for row in (one, two)] == [32, 64]
    assert (one["efficiency"], one["communication"]) == (1, 0)
    assert two["efficiency"] == pytest.approx(
        two["images_per_second"] / 2 / one["images_per_second"]
    )
    assert 0 < two["communication"] < 1
    assert two["oversubscribed"] == (len(os.sched_getaffinity(0)) < 2)


def test_the_table_says_where_ranks_share_cores(monkeypatch, capsys):
    row = {"images_a_step": 64, "images_per_second": 1000.0, "interval": [0.4, 0.6]}
    record = {
        "machine": {"name": "a processor", "cores": 2}, "device": "cpu", "threads_a_rank": 1,
        "rounds": 3,
        "rows": [
            {**row, "ranks": 1, "efficiency": 1.0, "communication": 0.0, "oversubscribed": False},
            {**row, "ranks": 4, "efficiency": 0.5, "communication": 0.3, "oversubscribed": True},
        ],
    }  # fmt: skip
    monkeypatch.setattr(scaling, "measure", lambda args: record)
    assert main(["scaling"]) == 0
    said = capsys.readouterr().out
    assert "2 cores, --device cpu: 1 thread a rank, 3 rounds" in said
    assert "50% (40% to 60%)" in said
    assert "30% of a step" in said
    assert "4 *" in said
    assert "* more threads than cores" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--images", "0"], "--images is 0; expected at least 1"),
        (["--ranks", "1,two"], "--ranks is '1,two'; expected numbers from 1 on, such as 1,2,4"),
        (["--images", "800", "--ranks", "2"], "2 ranks with --images 800 want 1600 images a step"),
        (["--mpiexec", "no-such-launcher"], "there is no no-such-launcher: pip install"),
        (["--data-dir", "no/such"], "no/such: no such folder"),
    ],
)
def test_bad_options_are_one_line(mpi, capsys, options, said):
    assert main(["scaling", *options]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"scaling: {said}")
    assert errors.count("\n") == 1


def test_a_job_that_fails_is_named(mpi, capsys):
    assert main(["scaling", "--mpiexec", "false"]) == 2
    assert "ended with 1: it said nothing" in capsys.readouterr().err
