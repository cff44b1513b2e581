"""The speedrun: its arithmetic, its lines, and its exit status."""

import json
import os
import signal

import numpy as np
import pytest
from lenet_idx_files import write_folder

from lenet import speedrun, speedrun_command
from lenet.__main__ import main
from lenet.choice import Choice
from lenet.data import load_data
from lenet.device import CPU
from lenet.errors import DivergedError
from lenet.speedrun import Outcome, Recipe
from profiling import training_records

HOST = ["--conv", "cpu", "--pool", "cpu", "--device", "cpu"]


@pytest.fixture
def command(idx_folder, monkeypatch):
    """Run the command on small data, with a recipe that such data needs."""
    monkeypatch.setattr(speedrun, "RECIPE", Recipe(epochs=2, batch_size=16, lr=0.02))
    return lambda *options: main(["speedrun", "--data-dir", str(idx_folder), *HOST, *options])


def test_a_line_a_run_and_the_mean(command, capsys):
    assert command("--seeds", "2", "--target", "0.15") == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line[:7] for line in lines] == ["seed  0", "seed  1"]
    assert all(line.endswith("12 steps") for line in lines)
    accuracies = [float(line.split("accuracy")[1].split("%")[0]) for line in lines]
    assert last.startswith(f"mean test accuracy {np.mean(accuracies):.3f}% (standard error ")
    assert last.endswith("2 of 2 runs reached 15.00%")


def test_for_a_program(command, capsys, tmp_path):
    assert command("--seeds", "2", "--target", "100", "--json") == 1  # below the target
    (tmp_path / "printed").write_text(capsys.readouterr().out)
    found = json.loads((tmp_path / "printed").read_text())
    record = training_records.read(tmp_path / "printed")
    assert (record.device, record.summary.runs, record.held_out) == ("cpu", 2, False)
    assert found["recipe"]["epochs"] == 2
    assert found["target"] == 1
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    accuracies = [run["accuracy"] for run in found["runs"]]
    assert accuracies[0] != accuracies[1]  # a new seed each
    assert found["summary"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert all(0 < run["seconds"] < 60 for run in found["runs"])


def test_the_same_again(command, capsys):
    first = command("--seeds", "1", "--json"), json.loads(capsys.readouterr().out)
    again = command("--seeds", "1", "--json"), json.loads(capsys.readouterr().out)
    assert first[1]["runs"][0]["accuracy"] == again[1]["runs"][0]["accuracy"]
    assert first[1]["summary"]["deviation"] is None  # of one run


def test_ctrl_c_prints_what_there_is(command, capsys, monkeypatch):
    from lenet.steps import HostSteps

    real, made = HostSteps.step, 0

    def counted(self, *arguments):
        nonlocal made
        made += 1
        if made == 12 + 3:  # in the second run
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    monkeypatch.setattr(HostSteps, "step", counted)
    assert command("--seeds", "5", "--target", "0") == 130
    said = capsys.readouterr()
    assert said.out.startswith("seed  0")
    assert said.out.endswith("1 of 1 runs reached 0.00%\n")
    assert "interrupted; the run in hand is left out" in said.err


def test_the_summary_by_hand():
    outcomes = [Outcome(seed, a, 2.0 + seed, 10) for seed, a in enumerate((0.98, 0.99, 1.0))]
    found = speedrun.summary(outcomes, 0.99)
    assert found.accuracy == pytest.approx(0.99)
    assert found.deviation == pytest.approx(0.01)
    assert found.error == pytest.approx(0.01 / 3**0.5)
    assert found.seconds == pytest.approx(3)
    assert (found.runs, found.reached) == (3, 2)
    assert speedrun_command.text(found, 0.99, "test") == (
        "mean test accuracy 99.000% (standard error 0.577%, deviation of a run 1.000%), mean "
        "training time 3.000 s, 2 of 3 runs reached 99.00%"
    )


def test_held_out_images_are_the_last_of_the_training(tmp_path, monkeypatch):
    whole = load_data(folder=write_folder(tmp_path / "data"))
    monkeypatch.setattr(speedrun, "HELD_OUT", 20)
    found = speedrun.held_out(whole)
    assert np.array_equal(found.train_images, whole.train_images[:76])
    assert np.array_equal(found.test_images, whole.train_images[76:])
    assert np.array_equal(found.test_labels, whole.train_labels[76:])


def test_a_recipe_that_diverges(idx_folder):
    wild = Recipe(epochs=1, batch_size=16, lr=1e6)
    with pytest.raises(DivergedError, match="seed 3: the loss is no longer a number"):
        list(speedrun.runs(load_data(folder=idx_folder), CPU, Choice("cpu", "max_pool2d", "cpu"),
                           range(3, 5), wild))  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data-dir", "nowhere"], "nowhere: no such folder; --data-dir wants one with MNIST's"),
        (["--seeds", "0"], "--seeds is 0; expected at least 1"),
        (["--target", "101"], "--target is '101'; expected a share"),
        (["--held-out"], "96 training images; --held-out takes 10,000 of them away"),
        (["--graph"], "--graph: a CUDA graph needs a GPU"),
        (["--conv", "winograd9"], "--conv winograd9: no such kernel"),
    ],
)
def test_what_cannot_be_used(command, capsys, options, message):
    import re

    assert command(*options) == 2
    assert re.search(message, capsys.readouterr().err)
