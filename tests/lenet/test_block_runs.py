"""Runs on the fused block: what they record, and that their checkpoints are anybody's."""

import json

import pytest
from lenet_idx_files import write_folder

from kernels.conv2d_relu_pool import cpu_pair
from kernels.training import gather_cpu, linear_stack_cpu
from lenet.__main__ import main
from lenet.progress import Silent
from lenet.settings import Settings, from_config
from lenet.train import train
from profiling.__main__ import main as profiling


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = write_folder(folder / "data")
    options = ["--data-dir", str(data), "--runs-dir", str(folder), "--name", "run"]
    assert main(["train", *options, "--epochs", "1", "--device", "cpu", "--no-progress"]) == 0
    return folder / "run"


def test_a_run_records_its_block(run, capsys):
    config = json.loads((run / "config.json").read_text())
    assert (config["block"], config["conv"], config["pool"]) == ("cpu", "auto", "max:auto")
    phases = json.loads((run / "timing.json").read_text())["sessions"][0]["phases"]
    assert {p["name"] for p in phases if p["kind"] == "block"} == {"conv1+conv2"}
    assert profiling(["train-report", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"{run}: block cpu, batches of" in said


def test_what_an_epoch_calls_the_warm_up_has_compiled(tmp_path, monkeypatch):
    """A batch of 8 is too small for the cores together, the 360 test images are not."""
    called = []

    def watched(module, name):
        real = getattr(module, name)

        def call(*arguments):
            called.append(module.__name__)
            return real(*arguments)

        monkeypatch.setattr(module, name, call)

    modules = gather_cpu, cpu_pair, linear_stack_cpu
    for module, name in zip(modules, ("gather", "forward", "forward"), strict=True):
        watched(module, name)

    class Begun(Silent):
        def begin(self, *arguments):
            called.append("begin")

    data = write_folder(tmp_path / "data", 40, 360)
    settings = Settings(data_dir=str(data), epochs=1, batch_size=8, device="cpu")
    train(settings, tmp_path / "run", Begun())
    begin = called.index("begin")
    names = {module.__name__ for module in modules}
    assert set(called[begin + 1 :]) == names
    assert set(called[:begin]) == names


def test_a_checkpoint_of_blocks_runs_without_them(run, capsys):
    losses = []
    for names in ([], ["--conv", "cpu"], ["--block", "none"], ["--block", "reference"]):
        assert main(["evaluate", str(run), "--device", "cpu", "--json", *names]) == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses == pytest.approx(losses[:1] * 4, rel=1e-5)


def test_resuming_with_another_block_is_refused(run, capsys):
    for block in ("none", "reference"):
        assert main(["train", "--resume", str(run), "--block", block]) == 2
        assert f"--block {block}: {run} was started with cpu" in capsys.readouterr().err


def test_a_run_older_than_the_block_has_none(run):
    config = json.loads((run / "config.json").read_text())
    del config["block"]
    assert from_config(config | {"conv": "cpu", "pool": "max:cpu"}, run).block == "none"
