"""The network of 1998: its counts, its table, what it computes, and how it is trained."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lenet_idx_files import squares, write_folder
from safetensors.numpy import load_file
from scipy.signal import correlate2d

from kernels import emulator
from lenet import build_model, choose_kernels
from lenet.__main__ import main
from lenet.classic import BACKGROUND, C3_INPUTS, FOREGROUND, MEAN, NAME, STD
from lenet.data import load_data, standardise
from lenet.device import CPU
from lenet.loss import softmax_cross_entropy
from lenet.settings import Settings
from lenet.steps import HostSteps
from lenet.train import resume, train

ROOT = Path(__file__).parents[2]
emulated = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))


def model_on(conv, pool, dtype=np.float64):
    choice = choose_kernels(conv, pool, CPU, model=NAME)
    return build_model(10, choice, model=NAME, seed=3, dtype=dtype)


@pytest.fixture(scope="module")
def batch():
    images, labels = squares(6, seed=0)
    return standardise(images, MEAN, STD).astype(np.float64), labels.astype(np.int64)


def test_parameters_and_connections_are_the_papers(batch):
    model, x = model_on("reference", "auto"), batch[0][:1]
    parameters, connections = {}, {}
    for layer in model.layers:
        x = layer.forward(x)
        if layer.shapes:
            parameters[layer.name] = layer.parameters
            places = int(np.prod(x.shape[2:]))
            # A unit that subsamples has four inputs by one weight, and a bias.
            each = 5 * x.shape[1] if layer.name in ("s2", "s4") else layer.parameters
            connections[layer.name] = each * places
    assert parameters.pop("output") == 850  # where the paper has 840 fixed ones
    assert parameters == {
        "c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164
    }  # fmt: skip
    assert sum(parameters.values()) == 60_000
    del connections["output"]
    assert connections == {
        "c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164
    }  # fmt: skip
    assert sum(connections.values()) + 840 == 340_908


def test_the_table_is_the_papers():
    def around(count):
        return {frozenset((first + i) % 6 for i in range(count)) for first in range(6)}

    found = [frozenset(seen) for seen in C3_INPUTS]
    assert set(found[:6]) == around(3)
    assert set(found[6:12]) == around(4)
    assert {len(seen) for seen in found[12:15]} == {4}
    assert not set(found[12:15]) & around(4)  # "discontinuous subsets of four"
    assert found[15] == set(range(6))
    assert len(set(found)) == 16
    # Each map of S2 is seen as often as its neighbours.
    assert [sum(i in seen for seen in found) for i in range(6)] == [10] * 6


def by_hand(weights, images):
    """Return the logits, map by map, as the paper's text says."""

    def squash(x):
        return 1.7159 * np.tanh(2 / 3 * x)

    def subsample(maps, name):
        sums = maps[:, ::2, ::2] + maps[:, 1::2, ::2] + maps[:, ::2, 1::2] + maps[:, 1::2, 1::2]
        return np.stack(
            [w * s + b for w, s, b in zip(weights[f"{name}.w"], sums, weights[f"{name}.b"],
                                          strict=True)]
        )  # fmt: skip

    def convolve(maps, name, inputs):
        w, b = weights[f"{name}.w"], weights[f"{name}.b"]
        return np.stack(
            [
                b[k] + sum(correlate2d(maps[c], w[k, c], mode="valid") for c in seen)
                for k, seen in enumerate(inputs)
            ]
        )

    rows = []
    for (image,) in images:
        maps = np.full((1, 32, 32), -0.1)
        maps[0, 2:30, 2:30] = image
        maps = squash(convolve(maps, "c1", [(0,)] * 6))
        maps = squash(subsample(maps, "s2"))
        maps = squash(convolve(maps, "c3", C3_INPUTS))
        maps = squash(subsample(maps, "s4"))
        units = squash(convolve(maps, "c5", [range(16)] * 120).ravel())
        units = squash(units @ weights["f6.w"] + weights["f6.b"])
        rows.append(units @ weights["output.w"] + weights["output.b"])
    return np.array(rows)


def shaken(model):
    """Give a model weights that use every squashing function's whole range."""
    rng = np.random.default_rng(4)
    for name, weights in model.tensors(model.weights).items():
        weights[...] = rng.standard_normal(weights.shape) / (4 if name[0] in "cs" else 10)
    return model


def test_it_computes_what_the_paper_says(batch):
    model = shaken(model_on("reference", "avg:reference"))
    logits = model.forward(batch[0])
    want = by_hand(model.tensors(model.weights), batch[0])
    assert logits == pytest.approx(want, abs=1e-10)
    assert np.ptp(want, axis=0).min() > 0.01  # it says something about the images


def test_gradient_is_the_slope_of_the_loss(batch):
    model = shaken(model_on("reference", "avg:reference"))
    x, labels = batch

    def loss():
        return float(softmax_cross_entropy(model.forward(x), labels)[0])

    model.backward(softmax_cross_entropy(model.forward(x), labels)[1])
    rng = np.random.default_rng(5)
    for name, weights in model.tensors(model.weights).items():
        gradient = model.tensors(model.gradient)[name].copy()
        direction = rng.standard_normal(weights.shape)
        direction /= np.linalg.norm(direction)
        before, h = weights.copy(), 1e-6
        weights += h * direction
        above = loss()
        weights[...] = before - h * direction
        below = loss()
        weights[...] = before
        slope = float((gradient * direction).sum())
        assert slope != 0
        assert (above - below) / (2 * h) == pytest.approx(slope, abs=2e-8, rel=1e-6), name


@pytest.mark.parametrize(
    ("conv", "pool"), [("cpu", "avg:cpu"), pytest.param("naive", "avg", marks=emulated)]
)
def test_the_kernels_give_the_references_gradient(batch, conv, pool):
    x, labels = batch
    gradients = []
    for how in (("reference", "avg:reference", np.float64), (conv, pool, np.float32)):
        model = shaken(model_on(*how))
        logits = model.forward(x.astype(how[2]))
        model.backward(softmax_cross_entropy(logits, labels)[1])
        gradients.append(model.tensors(model.gradient))
    for name, want in gradients[0].items():
        assert np.linalg.norm(gradients[1][name] - want) <= 1e-5 * np.linalg.norm(want), name


def test_pixels_are_scaled_as_in_the_paper(idx_folder):
    data = load_data(folder=idx_folder, scale=(MEAN, STD))
    pixels = squares(96, 1)[0]
    want = BACKGROUND + (FOREGROUND - BACKGROUND) * pixels[:, None] / 255
    assert data.train_images == pytest.approx(want, abs=1e-6)
    assert data.background == pytest.approx(-0.1)
    assert data.fingerprint == load_data(folder=idx_folder).fingerprint


@pytest.fixture
def settings(idx_folder):
    return Settings(
        data_dir=str(idx_folder), epochs=2, batch_size=20, model=NAME, conv="cpu", device="cpu",
        augment=2, distort=0.2, seed=5,
    )  # fmt: skip


def numbers(run):
    """Return all that a run's end consists of, times left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["images_per_second"]
    tensors = load_file(run / "checkpoint.safetensors")
    return {name: array.tobytes() for name, array in tensors.items()}, lines


@pytest.mark.parametrize("step", [2, 5])
def test_a_run_stopped_in_an_epoch_ends_as_if_it_had_not_been(
    settings, tmp_path, monkeypatch, step
):
    whole = train(settings, tmp_path / "whole").run.folder
    config = json.loads((whole / "config.json").read_text())
    assert [config[name] for name in ("model", "activation", "pool", "block", "distort")] == [
        NAME, "tanh", "avg:cpu", "none", 0.2
    ]  # fmt: skip
    real, made = HostSteps.step, 0

    def counted(self, number):
        nonlocal made
        made += 1
        if made == step + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(HostSteps, "step", counted)
        assert train(settings, tmp_path / "stopped").interrupted
    assert not resume(tmp_path / "stopped", {}).interrupted
    assert numbers(tmp_path / "stopped") == numbers(whole)
    plain = train(dataclasses.replace(settings, distort=0.0), tmp_path / "plain").run.folder
    assert numbers(plain)[1][0]["loss"] != numbers(whole)[1][0]["loss"]
    weights = load_file(whole / "checkpoint.safetensors")
    for name in ("c3.w", "velocity.c3.w"):
        seen = weights[name].any(axis=(2, 3))
        assert [tuple(np.flatnonzero(row)) for row in seen] == list(C3_INPUTS)


def test_it_learns_and_the_run_is_used(tmp_path, capsys):
    data = write_folder(tmp_path / "data", 200, 60)
    options = ["--data-dir", str(data), "--runs-dir", str(tmp_path), "--name", "run"]
    how = ["--model", NAME, "--epochs", "6", "--batch-size", "10", "--lr", "0.03"]
    status = main(["train", *options, *how, "--device", "cpu", "--target-accuracy", "90"])
    assert status == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == last["test_accuracy"]
    assert found["loss"] == pytest.approx(last["test_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pool", "max"], "--pool max: --model lenet5-1998 adds up what it pools; give avg:auto"),
        (["--block", "cpu"], "--block cpu: --model lenet5-1998 has no such block; leave it out"),
        (["--activation", "relu"], "--activation relu: --model lenet5-1998 has tanh; leave it"),
        (["--model", "lenet4"], "--model is 'lenet4'; expected one of lenet5, lenet5-1998"),
        (["--distort", "0.6"], "--distort is 0.6; expected a share, 0 to 0.5, such as 0.15"),
        (["--distort", "nan"], "--distort is nan; expected a share"),
    ],
)
def test_what_cannot_be(tmp_path, capsys, options, message):
    given = ["--model", NAME, *options, "--runs-dir", str(tmp_path / "r")]
    assert main(["train", *given]) == 2
    assert f"lenet: error: {message}" in capsys.readouterr().err


ON_DOUBLE = """
import sys
from pathlib import Path
from lenet.settings import Settings
from lenet.train import train

data, out = sys.argv[1], Path(sys.argv[2])
settings = Settings(data_dir=data, epochs=1, batch_size=20, model="lenet5-1998", conv="naive",
                    pool="avg", device="gpu", augment=2, distort=0.2, seed=5)
assert not train(settings, out / "eager", graph=False).graph
assert train(settings, out / "graph", graph=True).graph
"""


@emulated
def test_a_graph_has_the_numbers_of_its_launches_and_nearly_the_hosts(settings, tmp_path):
    path = os.pathsep.join([str(ROOT / "tests" / "fake_cupy"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", ON_DOUBLE, settings.data_dir, tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert numbers(tmp_path / "graph") == numbers(tmp_path / "eager")
    host = train(dataclasses.replace(settings, epochs=1), tmp_path / "host").run.folder
    (there,), (here,) = numbers(tmp_path / "graph")[1], numbers(host)[1]
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-5)
