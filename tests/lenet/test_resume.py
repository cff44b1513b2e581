"""A run that was stopped, in any way, ends as if it had not been."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lenet.checkpoint import Run
from lenet.errors import CheckpointError, DivergedError, OptionError
from lenet.settings import Settings
from lenet.train import resume, train

ROOT = Path(__file__).parents[2]
EPOCHS = 3


@pytest.fixture
def settings(idx_folder):
    return Settings(
        data_dir=str(idx_folder),
        epochs=EPOCHS,
        batch_size=20,  # 96 images: the last batch has 16
        conv="reference",
        pool="reference",
        device="cpu",
        weight_decay=1e-3,
    )


@pytest.fixture
def whole(settings, tmp_path):
    """The run that nothing stopped."""
    return train(settings, tmp_path / "whole").run


def without_times(run):
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["images_per_second"]
    return lines


def assert_same(run, whole):
    got, want = (load_file(r.folder / "checkpoint.safetensors") for r in (run, whole))
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert np.array_equal(got[name].view(np.uint8), array.view(np.uint8)), name
    assert without_times(run) == without_times(whole)


class StopError(Exception):
    pass


def stop_at(monkeypatch, step, how):
    """Call `how` when training has made `step` steps."""
    from lenet.steps import HostSteps

    real, made = HostSteps.step, 0

    def counted(self, *arguments):
        nonlocal made
        made += 1
        if made == step + 1:
            how()
        return real(self, *arguments)

    monkeypatch.setattr(HostSteps, "step", counted)


def test_same_seed_same_numbers_and_another_seed_others(settings, whole, tmp_path):
    import dataclasses

    assert_same(train(settings, tmp_path / "again").run, whole)
    other = train(dataclasses.replace(settings, seed=1), tmp_path / "other").run
    assert without_times(other) != without_times(whole)


@pytest.mark.parametrize("step", [0, 2, 5, 7, 14])
def test_after_ctrl_c(settings, whole, tmp_path, monkeypatch, step):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, step, lambda: os.kill(os.getpid(), signal.SIGINT))
        result = train(settings, folder)
    assert result.interrupted
    assert len(result.history) == step // 5  # the epoch counts once it is evaluated
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finished = resume(folder, {})
    assert not finished.interrupted
    assert_same(finished.run, whole)


def test_ctrl_c_twice_in_one_epoch(settings, whole, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
        train(settings, folder)
    with monkeypatch.context() as patch:
        stop_at(patch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert resume(folder, {}).interrupted
    assert_same(resume(folder, {}).run, whole)


@pytest.mark.parametrize("step", [2, 7, 12])
def test_after_an_exception_in_a_step(settings, whole, tmp_path, monkeypatch, step):
    def fail():
        raise StopError

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, step, fail)
        with pytest.raises(StopError):
            train(settings, folder)
    assert_same(resume(folder, {}).run, whole)


def test_resuming_a_finished_run_changes_nothing(whole):
    files = [whole.folder / name for name in ("checkpoint.safetensors", "timing.json")]
    before = [path.read_bytes() for path in files]
    result = resume(whole.folder, {})
    assert [path.read_bytes() for path in files] == before
    assert len(result.history) == EPOCHS


def test_the_times_of_every_session_are_kept(settings, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, 7, lambda: os.kill(os.getpid(), signal.SIGINT))
        first = train(settings, folder)
    second = resume(folder, {})
    sessions = second.run.timing()
    assert [session["steps"] for session in sessions] == [8, 7]  # 15 steps in all
    for session, result in zip(sessions, (first, second), strict=True):
        assert session["sampled"] == session["steps"]
        assert session["machine"]["cores"] >= 1
        kept = {
            (phase["name"], phase["direction"]): phase["seconds"] for phase in session["phases"]
        }
        seconds = {(phase.name, phase.direction): s for phase, s in result.seconds.items()}
        del kept["checkpoint", ""], seconds["checkpoint", ""]  # the last is not in its own figure
        assert kept == seconds
        in_steps = {phase["name"] for phase in session["phases"] if phase["in_steps"]}
        assert {"data", "conv1", "pool2", "linear3", "loss", "update"} <= in_steps
        assert not in_steps & {"evaluation", "checkpoint", "warm-up"}


def test_times_that_are_damaged_or_missing(settings, whole, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, 7, lambda: os.kill(os.getpid(), signal.SIGINT))
        train(settings, folder)
    (folder / "timing.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"timing\.json: damaged: .*; delete it to do without"
    ):
        resume(folder, {})
    (folder / "timing.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"timing\.json: not of this version .*; delete it"):
        resume(folder, {})
    (folder / "timing.json").unlink()
    assert_same(resume(folder, {}).run, whole)
    assert [session["steps"] for session in Run(folder).timing()] == [7]


def test_a_finished_run_without_its_metrics(whole):
    (whole.folder / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"complete but its metrics\.jsonl is gone; use py"):
        resume(whole.folder, {})


# Kills its own process, by SIGKILL, at the chosen moment of the chosen save.
KILLED_WHILE_SAVING = """
import os, signal, sys
from lenet import checkpoint
from lenet.__main__ import main
moment, save = sys.argv[1], int(sys.argv[2])
count = 0
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
replace, fsync, add_metrics = os.replace, os.fsync, checkpoint.Run.add_metrics
def counted_replace(source, target):
    global count
    if str(target).endswith(".safetensors"):
        count += 1
        if count == save:
            if moment == "half":
                os.truncate(source, os.path.getsize(source) // 2)
            if moment == "after":
                replace(source, target)
            die()
    replace(source, target)
def torn_metrics(self, line):
    if moment == "metrics" and line["epoch"] == save - 1:
        with open(self.folder / "metrics.jsonl", "ab") as file:
            file.write(b'{"epoch": ')
        die()
    add_metrics(self, line)
os.replace, checkpoint.Run.add_metrics = counted_replace, torn_metrics
sys.exit(main(sys.argv[3:]))
"""


def arguments(settings, folder):
    return [
        "train", "--data-dir", settings.data_dir, "--epochs", str(EPOCHS), "--batch-size", "20",
        "--conv", "reference", "--pool", "reference", "--device", "cpu", "--weight-decay", "1e-3",
        "--runs-dir", str(folder.parent), "--name", folder.name,
    ]  # fmt: skip


def python(*command, **options):
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.mark.parametrize(
    ("moment", "save", "epochs_kept"),
    [("before", 3, 1), ("half", 2, 0), ("after", 3, 2), ("metrics", 3, 1)],
)
def test_after_kill_9_in_a_save(settings, whole, tmp_path, moment, save, epochs_kept):
    folder = tmp_path / "killed"
    process = python("-c", KILLED_WHILE_SAVING, moment, str(save), *arguments(settings, folder))
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    run = Run(folder)
    names = load_file(whole.folder / "checkpoint.safetensors")
    weights = {n: a for n, a in names.items() if not n.startswith(("velocity.", "epoch."))}
    assert run.load(weights).epoch == epochs_kept
    assert_same(resume(folder, {}).run, whole)
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.safetensors",
        "config.json",
        "metrics.jsonl",
        "timing.json",
    ]


def wait_for(process, path, text):
    for _ in range(1200):
        if path.exists() and text in path.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{path} never held {text!r}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_real_signal_from_outside(settings, tmp_path, number):
    folder = tmp_path / "signalled"
    command = arguments(settings, folder)
    command[command.index("--epochs") + 1] = "400"
    process = python("-m", "lenet", *command)
    wait_for(process, folder / "metrics.jsonl", '"epoch": 2')
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130, errors
        assert "interrupted and saved; go on with: python -m lenet train --resume" in errors
        assert "Traceback" not in errors
    # What is there is a whole checkpoint, and training goes on from it.
    config = Run(folder).config()
    config["epochs"] = max(line["epoch"] for line in Run(folder).metrics()) + 1
    (folder / "config.json").write_text(json.dumps(config))
    assert len(resume(folder, {}).history) == config["epochs"]


def test_a_full_disk_keeps_the_checkpoint_before(settings, whole, tmp_path, monkeypatch):
    real, saves = os.fsync, 0

    def full(descriptor):
        nonlocal saves
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        saves += name.endswith(".checkpoint.safetensors.new")
        if saves == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    folder = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = (
            r"cannot save epoch 2 in .*full: No space left on device; the checkpoint before is "
            r"intact: continue with --resume .*full"
        )
        with pytest.raises(CheckpointError, match=message):
            train(settings, folder)
    assert not list(folder.glob(".*"))
    assert_same(resume(folder, {}).run, whole)


def test_a_full_disk_under_the_metrics(settings, whole, tmp_path, monkeypatch):
    real = Run.add_metrics
    folder = tmp_path / "full"

    def full(self, line):
        if line["epoch"] == 2:
            with self._saving("epoch 2"), open("/dev/full", "wb", buffering=0) as file:
                file.write(b"x")
        real(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "add_metrics", full)
        with pytest.raises(
            CheckpointError, match=r"cannot save epoch 2 .* No space left on device"
        ):
            train(settings, folder)
    assert_same(resume(folder, {}).run, whole)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": 0.5}, r"--lr 0.5: .*whole was started with 0.015, and --resume goes on exactly"),
        ({"epochs": 9}, r"--epochs 9: .* was started with 3"),
        ({"batch_size": 7}, r"--batch-size 7: .* started with 20"),
        ({"conv": "cpu"}, r"--conv cpu: .* started with reference"),
        ({"pool": "avg:cpu"}, r"--pool avg:cpu: .* started with max:reference"),
        ({"activation": "tanh"}, r"--activation tanh: .* started with relu"),
        ({"data": "digits"}, r"--data digits: .* trains on "),
    ],
)
def test_options_that_disagree(whole, given, message):
    with pytest.raises(OptionError, match=message):
        resume(whole.folder, given)


def test_options_that_agree_and_data_elsewhere(settings, whole, idx_folder, tmp_path):
    moved = idx_folder.rename(tmp_path / "moved")
    given = {"lr": settings.lr, "pool": "max:reference", "device": "cpu", "data_dir": str(moved)}
    assert len(resume(whole.folder, given).history) == EPOCHS


def test_other_data_than_before(whole, idx_folder):
    path = idx_folder / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="are not those the run began with"):
        resume(whole.folder, {})


def test_a_loss_that_is_no_number(settings, tmp_path):
    import dataclasses

    wild = dataclasses.replace(settings, lr=1e6)
    with pytest.raises(DivergedError, match=r"no longer a number in epoch 1.* smaller --lr"):
        train(wild, tmp_path / "wild")
