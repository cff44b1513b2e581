import dataclasses
import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lenet import build_model, choose_kernels
from lenet.checkpoint import FORMAT, VELOCITY, Checkpoint, Run
from lenet.device import CPU
from lenet.errors import CheckpointError
from lenet.settings import Settings

SETTINGS = Settings(pool="max:cpu", device="cpu", activation="relu")
CONFIG = {
    "format": FORMAT, **dataclasses.asdict(SETTINGS), "classes": 10, "mean": 0.13, "std": 0.3,
    "fingerprint": 7,
}  # fmt: skip
LINE = {
    "loss": 0.5, "accuracy": 0.9, "test_loss": 0.4, "test_accuracy": 0.95, "seconds": 1.5,
    "images_per_second": 958.0,
}  # fmt: skip


@pytest.fixture
def tensors():
    model = build_model(10, choose_kernels("reference", "reference", CPU))
    return model.tensors(model.weights)


@pytest.fixture
def run(tmp_path, tensors):
    run = Run.create(tmp_path / "runs" / "one", CONFIG)
    velocity = {name: -array for name, array in tensors.items()}
    run.save(Checkpoint(tensors, velocity, 4, np.array([0.5, 0.25]), np.array([3.0, 4.0])))
    return run


def test_what_was_saved_is_loaded(run, tensors):
    loaded = run.load(tensors)
    assert loaded.epoch == 4
    assert loaded.losses.tolist() == [0.5, 0.25]
    assert loaded.hits.tolist() == [3, 4]
    for name, array in tensors.items():
        assert np.array_equal(loaded.weights[name], array)
        assert np.array_equal(loaded.velocity[name], -array)
    assert run.config() == CONFIG


def test_the_file_is_plain_safetensors(run, tensors):
    read = load_file(run.folder / "checkpoint.safetensors")
    assert read["conv2.w"].shape == (16, 6, 5, 5)
    assert set(read) == {
        *tensors, *(VELOCITY + name for name in tensors), "epoch.losses", "epoch.hits"
    }  # fmt: skip


def rewrite(run, change, metadata=None):
    path = run.folder / "checkpoint.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata or {"format": FORMAT, "epoch": "4"})


def shrink(name):
    return lambda tensors: tensors.update({name: tensors[name][..., :-1].copy()})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run, path: path.unlink(), "there is no checkpoint; the run was stopped before"),
        (lambda run, path: path.write_bytes(path.read_bytes()[:-9]), "damaged or no safetensors"),
        (lambda run, path: path.write_bytes(path.read_bytes()[:30]), "damaged or no safetensors"),
        (lambda run, path: path.write_bytes(b""), "damaged or no safetensors file"),
        (lambda run, path: path.write_bytes(b"PK\x03\x04" * 99), "damaged or no safetensors"),
        (
            lambda run, path: rewrite(run, lambda t: t.pop("conv2.w")),
            r"another model's: it has no conv2\.w",
        ),
        (
            lambda run, path: rewrite(run, lambda t: t.update(conv9=np.zeros(1))),
            r"another model's: it also has conv9",
        ),
        (
            lambda run, path: rewrite(run, shrink("linear3.b")),
            r"another model's: linear3\.b is float32 \(9,\); expected float32 \(10,\)",
        ),
        (
            lambda run, path: rewrite(
                run, lambda t: t.update({"conv1.b": t["conv1.b"].astype(np.float64)})
            ),
            r"another model's: conv1\.b is float64 \(6,\); expected float32",
        ),
        (
            lambda run, path: rewrite(run, lambda t: None, {"epoch": "4"}),
            "not a checkpoint of ours",
        ),
        (
            lambda run, path: rewrite(run, lambda t: None, {"format": FORMAT, "epoch": "x"}),
            "not a checkpoint of ours",
        ),
    ],
)
def test_damaged_and_foreign_checkpoints(run, tensors, damage, message):
    damage(run, run.folder / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match=message):
        run.load(tensors)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"config\.json: damaged"),
        ("[]", r"config\.json: not of a LeNet run"),
        (json.dumps({"format": "other"}), r"config\.json: not of a LeNet run"),
    ],
)
def test_damaged_config(run, text, message):
    (run.folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        run.config()


def test_no_run_at_all(tmp_path):
    message = r"is not a run: config\.json: No such file .* such as runs/NAME"
    with pytest.raises(CheckpointError, match=message):
        Run(tmp_path / "nothing").config()


def test_a_folder_that_is_taken(run):
    with pytest.raises(CheckpointError, match=r"is there already; choose another --name, or cont"):
        Run.create(run.folder, CONFIG)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot make the run folder .*: Not a directory"):
        Run.create(tmp_path / "runs" / "one", CONFIG)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied; choose a folder that can be"):
        Run.create(tmp_path / "runs" / "one", CONFIG)


def test_metrics_are_cut_to_the_checkpoint(run):
    for epoch in (1, 2, 3):
        run.add_metrics({"epoch": epoch, **LINE})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "lo')
    assert [line["epoch"] for line in run.metrics()] == [1, 2, 3]
    run.trim_metrics(2)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"epoch": epoch, **LINE} for epoch in (1, 2)]
