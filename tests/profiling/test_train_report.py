"""`profiling train-report`, on small real runs and on times that were made up to be checked."""

import dataclasses
import json
import math
import os
import signal

import numpy as np
import pytest

import lenet
from lenet.data import Dataset
from lenet.settings import Settings
from lenet.steps import HostSteps
from lenet.train import resume, train
from profiling import train_report
from profiling.__main__ import main
from profiling.train_table import PIPE_COLUMNS


@pytest.fixture
def settings(monkeypatch):
    """Forty images of noise: enough to take steps on."""
    images = np.random.default_rng(0).standard_normal((40, 1, 28, 28), dtype=np.float32)
    labels = np.arange(40) % 10
    dataset = Dataset("noise", images, labels, images[:10], labels[:10], 10, 0.0, 1.0, "f")
    monkeypatch.setattr("lenet.settings.load_data", lambda *_, **__: dataset)
    return Settings(epochs=2, batch_size=8, conv="reference", pool="reference", device="cpu")


@pytest.fixture
def made_up(settings, tmp_path):
    """A run whose times are replaced: a step takes 10 ms, of which conv1 forward takes 6."""
    folder = tmp_path / "runs" / "made-up"
    train(settings, folder)

    def change(conv="reference", sessions=None, **config):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"conv": conv} | config))
        default = [session(steps=10), session(steps=30, warm_up=0.5)]
        lenet.Run(folder).save_timing(default if sessions is None else sessions)
        return folder

    return change


def session(steps, every=1, warm_up=1.5, name="Made-up CPU"):
    sampled = steps // every
    each = {
        ("conv1", "convolution", "forward"): 0.006, ("pool1", "pooling", "forward"): 0.001,
        ("pool1", "pooling", "backward"): 0.001, ("conv1", "convolution", "backward"): 0.002,
    }  # fmt: skip
    phases = [
        {"name": n, "kind": k, "direction": d, "in_steps": True, "seconds": s * sampled}
        for (n, k, d), s in each.items()
    ]
    warm = {"name": "warm-up", "kind": "warm-up", "direction": "", "in_steps": False}
    return {
        "machine": {"processor": name, "cores": 2},
        "steps": steps, "sampled": sampled, "phases": [*phases, {**warm, "seconds": warm_up}],
    }  # fmt: skip


def report(capsys, *arguments):
    assert main(["train-report", *map(str, arguments)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out) if "--json" in arguments else said.out


def test_a_real_run_with_a_stop_in_the_middle(settings, tmp_path, capsys, monkeypatch):
    real, made = HostSteps.step, 0

    def counted(self, *arguments):
        nonlocal made
        made += 1
        if made == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(HostSteps, "step", counted)
        first = train(settings, folder)
    second = resume(folder, {})
    said = report(capsys, folder, "--json")
    assert (said["steps"], said["sampled"], said["sessions"]) == (10, 10, 2)
    in_steps = sum(
        seconds
        for result in (first, second)
        for phase, seconds in result.seconds.items()
        if phase.name not in ("warm-up", "evaluation", "checkpoint")
    )
    assert said["step_s"] == pytest.approx(in_steps / 10)
    assert sum(part["share"] for part in said["parts"]) == pytest.approx(1)
    names = [(part["layer"], part["direction"]) for part in said["parts"]]
    assert names[:4] == [("data", ""), ("conv1", "forward"), ("conv1", "backward"),
                         ("act1", "forward")]  # fmt: skip
    assert names[-2:] == [("loss", ""), ("update", "")]
    assert [line["epoch"] for line in said["history"]] == [1, 2]
    assert said["notes"] == []


def test_what_a_faster_part_buys(made_up, capsys):
    said = report(capsys, made_up(), "--json")
    assert said["step_s"] == pytest.approx(0.010)
    conv1 = next(p for p in said["parts"] if (p["layer"], p["direction"]) == ("conv1", "forward"))
    assert conv1["kernel"] == "conv reference"
    assert conv1["share"] == pytest.approx(0.6)
    assert conv1["twice_as_fast"] == pytest.approx(
        {"saves_s": 0.003, "step_s": 0.007, "speed_up": 10 / 7}
    )
    assert conv1["infinitely_fast"] == pytest.approx(
        {"saves_s": 0.006, "step_s": 0.004, "speed_up": 2.5}
    )
    assert said["outside_s"] == {"warm-up": pytest.approx(2.0)}


def test_the_whole_infinitely_fast_has_no_limit():
    assert train_report.amdahl(1.0, math.inf) == math.inf
    assert train_report.amdahl(1.0, 3) == pytest.approx(3)
    assert train_report.amdahl(0.0, math.inf) == 1


def test_the_table(made_up, capsys):
    said = report(capsys, made_up())
    (line,) = [line for line in said.splitlines() if line.startswith("conv1") and "forward" in line]
    assert line.split()[-6:] == ["6.000", "60.0%", "3.000", "ms", "1.43x", "2.50x"]
    (line,) = [line for line in said.splitlines() if line.startswith("all") and "conv" in line]
    assert line.split()[-6:] == ["8.000", "80.0%", "4.000", "ms", "1.67x", "5.00x"]
    assert "40 steps in 2 sessions.\n" in said
    assert "Outside the steps: warm-up 2.00 s.\n" in said
    headline = next(line for line in said.splitlines() if "made-up: conv" in line)
    assert all(len(line) <= PIPE_COLUMNS for line in said.splitlines() if line != headline)
    first = report(capsys, made_up(), "--sort", "time").split("infinitely")[1].splitlines()[2]
    assert first.startswith("conv1")


def test_emulated_times_are_said_to_be(made_up, capsys):
    first = report(capsys, made_up(conv="naive", pool="max:max")).replace("\n", " ")
    assert first.startswith("These times are the emulator's, on the CPU")
    assert "nothing about a GPU" in first
    first = report(capsys, made_up(conv="naive_numba"))
    assert first.startswith("These times are the emulator's and the simulator's")
    first = report(capsys, made_up(conv="naive_numba", pool="max:cpu"))
    assert first.startswith("These times are the simulator's")


def test_sampled_times_are_scaled_and_said_to_be(made_up, capsys):
    folder = made_up(sessions=[session(320, every=32)], device="gpu")
    said = report(capsys, folder, "--json")
    assert said["step_s"] == pytest.approx(0.010)
    assert said["notes"][0].startswith("One step in about 32 was timed, with a wait for the GPU")
    assert "320 steps, 10 of them timed." in report(capsys, folder)


def test_two_machines_are_said(made_up, capsys):
    said = report(capsys, made_up(sessions=[session(5), session(5, name="Other")]), "--json")
    assert said["machines"] == ["Made-up CPU, 2 cores", "Other, 2 cores"]
    assert said["notes"] == ["The run went on on another machine: its times are a mixture."]


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        ([], "no times were kept: the run is older than timing.json"),
        ([{"steps": 1}], r"timing.json: damaged: Object missing required field"),
        ([session(0, every=1)], "no times were kept"),
    ],
)
def test_a_run_without_times_is_one_line(sessions, reason, made_up, capsys):
    assert main(["train-report", str(made_up(sessions=sessions))]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert reason in said


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    assert main(["train-report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is not a run: config.json: No such file or directory; expected a folder that" in said


def test_a_page_that_cannot_be_written_is_one_line(made_up, tmp_path, capsys):
    other = tmp_path / "mine.html"
    other.write_text("something of mine")
    for page, reason in (
        (other, "is no page of this lab"),
        (tmp_path / "no" / "p.html", "No such"),
    ):
        assert main(["train-report", str(made_up()), "-o", str(page)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert reason in said
    assert other.read_text() == "something of mine"


def test_the_page(made_up, tmp_path, capsys, open_page):
    path = tmp_path / "page.html"
    folder = made_up(conv="naive")
    for _ in range(2):  # its own page may be replaced
        assert f"The page is {path}" in report(capsys, folder, "-o", path).replace("\n", "")
    page = open_page(path)
    page.wait_for_selector("#amdahl .scatterlayer .trace")
    assert page.locator("p.warning").first.inner_text().startswith("These times are the emulator's")
    bars = page.evaluate("document.getElementById('layers').data.map(t => [t.name, t.x, t.y])")
    assert bars[0] == ["forward", ["conv1", "pool1"], pytest.approx([6, 1])]
    assert bars[1] == ["backward", ["conv1", "pool1"], pytest.approx([2, 1])]
    curves = page.evaluate("document.getElementById('amdahl').data.map(t => [t.name, t.y])")
    names, ends = zip(*((name, list(y)[-1]) for name, y in curves), strict=True)
    assert names == ("conv1 (80%)", "pool1 (20%)")
    assert ends == pytest.approx((1 / (0.2 + 0.008), 1 / (0.8 + 0.002)))
    losses = page.evaluate("document.getElementById('loss').data.map(t => [t.name, t.y.length])")
    assert losses == [["training", 2], ["test", 2]]
    cells = page.locator("tbody tr", has_text="conv1").first.locator("td").all_inner_texts()
    assert cells == ["conv1", "conv naive", "forward", "6.000", "60.0%", "3.000 ms", "7.000 ms",
                     "1.43x", "4.000 ms", "2.50x"]  # fmt: skip


def test_a_step_of_few_launches_is_told_as_it_runs(settings, tmp_path):
    folder = tmp_path / "runs" / "few"
    train(dataclasses.replace(settings, conv="auto", pool="auto", block="fused", epochs=1), folder)
    parts = train_report.load(folder).parts
    told = {(part.layer, part.direction): part.kernel for part in parts}
    assert told["linear1+linear2+linear3", ""] == told["update", ""] == "CUDA C"
    assert told["conv1+conv2", "backward"] == "block fused"


@pytest.mark.parametrize(
    ("kind", "block", "kernel"),
    [
        ("linear", "none", "cuBLAS"), ("linear", "fused", "CUDA C"), ("activation", "none", "CuPy"),
        ("loss", "none", "CUDA C"), ("update", "none", "CUDA C"), ("data", "none", "CUDA C"),
    ],
)  # fmt: skip
def test_what_a_gpu_runs_beside_the_rows(kind, block, kernel):
    assert train_report._kernel(kind, {"device": "gpu", "block": block}) == kernel


@pytest.mark.parametrize(
    ("options", "kernel"),
    [({}, "Numba"), ({"augment": 2}, "NumPy"), ({"augment": 0, "distort": 0.1}, "NumPy")],
)
def test_what_gathers_the_batches_on_a_cpu(options, kernel):
    assert train_report._kernel("data", {"device": "cpu", **options}) == kernel
