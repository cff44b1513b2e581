import json

import pytest

from kernels import cases, table
from profiling import machine, verified, verify
from profiling.__main__ import main


def record(where="gpu", **changes):
    kernels = [
        {
            "operation": row.operation,
            "name": row.name,
            "passes": {p: {"passed": 9, "failed": 0, "worst": 0.1, "reasons": []}
                       for p in row.passes},
        }
        for row in verify.rows(where)
    ]  # fmt: skip
    lenet = [{**names, "ok": True} for names in verify._lenet_kernels(where)]
    return {
        "schema": verify.SCHEMA, "place": where, "machine": {"name": "NVIDIA X9"},
        "date": "2031-02-03", "commit": "0123456789abcdef", "dirty": False,
        "tests": None, "kernels": kernels, "lenet": lenet, **changes,
    }  # fmt: skip


def line(text, kernel):
    return next(line for line in text.splitlines() if f"`{kernel}`" in line)


def test_the_readme_says_what_the_records_say(capsys):
    status = main(["verified", "--check", str(machine.ROOT / "README.md")])
    assert status == 0, capsys.readouterr().err


def test_without_records_nothing_is_claimed():
    text = verified.render([])
    rows = [row for row in table.rows() if "gpu" in row.places]
    assert text.count(verified.NOT_ON_GPU) == len(rows)
    assert "passed" not in text


def test_a_record_names_machine_date_and_commit():
    text = verified.render([record()])
    assert "NVIDIA X9, passed 2031-02-03, `01234567`" in line(text, "tiled")
    assert verified.NOT_ON_HOST in line(text, "tiled")


def test_a_dirty_tree_and_a_missing_commit_are_said():
    assert "with changes" in verified.render([record(dirty=True)])
    assert "commit unknown" in verified.render([record(commit=None)])


@pytest.mark.parametrize(
    "outcome",
    [
        {"passed": 8, "failed": 1, "worst": 2.0, "reasons": ["wrong"]},
        {"passed": 0, "failed": 0, "worst": 0.0, "reasons": []},
    ],
)
def test_a_failed_pass_and_one_never_run_are_said(outcome):
    bad = record()
    kernel = next(k for k in bad["kernels"] if k["name"] == "tiled")
    kernel["passes"]["backward_data"] = outcome
    text = verified.render([bad])
    assert "**failed**: backward_data;" in line(text, "tiled")
    assert "failed" not in line(text, "naive")


def test_a_failed_lenet_run_counts_against_its_kernels_alone():
    bad = record()
    next(run for run in bad["lenet"] if run["pool"] == "avg:avg")["ok"] = False
    text = verified.render([bad])
    assert "**failed**: LeNet;" in line(text, "avg")
    assert "failed" not in line(text, "max")


def test_write_then_check(tmp_path, capsys):
    document = tmp_path / "README.md"
    document.write_text(f"before\n{verified.BEGIN}\nold\n{verified.END}\nafter\n")
    (tmp_path / "x9.json").write_text(json.dumps(record()))
    options = ["--results", str(tmp_path)]
    assert main(["verified", "--check", str(document), *options]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["verified", "--write", str(document), *options]) == 0
    assert main(["verified", "--check", str(document), *options]) == 0
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "NVIDIA X9" in text
    assert "old" not in text


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 99}'])
def test_a_foreign_file_is_an_error_that_names_it(content, tmp_path, capsys):
    (tmp_path / "odd.json").write_text(content)
    assert main(["verified", "--results", str(tmp_path)]) == 2
    assert "odd.json" in capsys.readouterr().err


def test_a_document_without_markers_is_an_error(tmp_path, capsys):
    (tmp_path / "a.md").write_text("nothing")
    assert main(["verified", "--write", str(tmp_path / "a.md")]) == 2
    assert "expected the lines" in capsys.readouterr().err


def test_every_kernel_is_in_a_lenet_run():
    runs = verify._lenet_kernels("gpu")
    used = {name.rpartition(":")[2] for kernels in runs for name in kernels.values()}
    refusing = {row.name for row in table.rows("conv2d") if cases.refuses_lenet(row)}
    assert refusing == {"winograd"}
    assert used == {row.name for row in verify.rows("gpu")} - refusing


def test_verify_without_a_gpu_is_one_line_and_exit_2(monkeypatch, capsys):
    monkeypatch.setattr(verify.place, "gpu_problem", lambda: "CuPy is not installed")
    assert main(["verify", "--place", "gpu"]) == 2
    assert capsys.readouterr().err == "verify --place gpu: CuPy is not installed\n"


@pytest.mark.parametrize(
    ("outcome", "problem"),
    [
        ({"deviation": 1e-6, "accuracy": 0.97}, ""),
        ({"deviation": float("nan"), "accuracy": 0.97}, "losses leave"),
        ({"deviation": 0.1, "accuracy": 0.97}, "losses leave"),
        ({"deviation": 1e-6, "accuracy": 0.5}, "accuracy 50.0% below 93.0%"),
    ],
)
def test_a_lenet_run_is_judged(outcome, problem):
    said = verify._lenet_problem(outcome, 0.93, 1e-3)
    assert said.startswith(problem)
    assert bool(said) == bool(problem)


def _crash():
    import os

    os._exit(3)


def test_a_crash_is_recorded_not_suffered():
    assert verify._alone(_crash) == (None, "the process died")


def test_slug():
    assert verify.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
