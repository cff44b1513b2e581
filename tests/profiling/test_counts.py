"""The X-ray's counts beside Nsight Compute's, with a stand-in for ncu."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kernels import emulator, place, xray
from profiling import __main__ as cli
from profiling import counts

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

SHAPE = "1,1,8,9,2,3,3"
# As ncu prints it: words of its own, the header, a line of units, a line a launch.
SCRIPT = """#!{python}
import csv, json, sys
metrics = sys.argv[sys.argv.index("--metrics") + 1].split(",")
launches = json.load(open({answers!r}))[sys.argv[sys.argv.index("--pass") + 1]]
print("==PROF== Connected to process 1")
out = csv.writer(sys.stdout, quoting=csv.QUOTE_ALL)
out.writerow(["ID", "Kernel Name", *metrics])
out.writerow(["", "", *["" for _ in metrics]])
for i, (name, values) in enumerate(launches):
    out.writerow([i, name + "(const float *, int)", *[f"{{values[m]:,}}" for m in metrics]])
"""


@pytest.fixture
def ncu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return what makes an ncu that answers with given counts."""
    answers = tmp_path / "answers.json"
    script = tmp_path / "ncu"
    script.write_text(SCRIPT.format(python=sys.executable, answers=str(answers)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(place, "gpu_problem", lambda: None)
    monkeypatch.setattr(counts.machine, "describe", lambda where: {"name": "a GPU"})

    def answer(change=lambda name, value: value, extra: bool = False) -> None:
        from kernels import shape_text, table

        row = table.find("conv2d", "naive")
        found = {}
        for direction in counts.PASSES:
            launches = []
            for one in xray.record_pass(row, direction, shape_text.parse(SHAPE, "conv2d")):
                sums = counts.totals(one)
                values = {m: change(key, sums[key]) for key, m in counts.METRICS.items()}
                launches.append((one.kernel, values))
            if extra:  # a library's kernel between ours
                launches.append(("ampere_sgemm_32x32", launches[0][1]))
            found[direction] = launches
        answers.write_text(json.dumps(found))

    return answer


def run(*args: object) -> int:
    return cli.main(["counts", "--kernel", "naive", "--shape", SHAPE, *map(str, args)])


def test_equal_counts_are_alike_and_kept(ncu, tmp_path: Path, capsys):
    ncu(extra=True)
    assert run("-o", tmp_path / "counts.json") == 0
    assert "APART" not in capsys.readouterr().out
    kept = json.loads((tmp_path / "counts.json").read_text())
    figures = {one["figure"]: one for one in kept["counts"] if one["direction"] == "forward"}
    reads = figures["global read sectors a request"]
    assert reads["xray"] == reads["ncu"] > 0


def test_two_per_cent_more_sectors_are_apart(ncu, capsys):
    ncu(lambda name, value: value * 1.02 if name == "global read sectors" else value)
    assert run() == 1
    assert "APART by 2.0%" in capsys.readouterr().out


def test_launches_that_do_not_correspond_are_told(ncu, tmp_path: Path, capsys):
    ncu()
    answers = json.loads((tmp_path / "answers.json").read_text())
    answers["forward"] *= 2
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    assert run() == 2
    assert "the X-ray saw" in capsys.readouterr().err


def test_without_ncu_or_a_gpu_it_says_so(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run() == 2
    assert "ncu is not on PATH" in capsys.readouterr().err


def test_a_text_without_a_table_is_told():
    with pytest.raises(counts.CountsError, match="ncu printed no table; it said: ==ERROR=="):
        list(counts.read("==ERROR== no kernels\n"))
