"""A step's launches give the same numbers however they are made: by hand, on the device, a graph.

The GPU's part runs on the double of CuPy, in a process of its own: its graphs hold addresses in
memory that its pools hand on, as a GPU's do.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import lenet.train
from kernels import emulator
from lenet.__main__ import main
from lenet.errors import OptionError
from lenet.settings import Settings
from lenet.step_graph import DeviceSteps
from lenet.train import resume, train

ROOT = Path(__file__).parents[2]
DOUBLE = ROOT / "tests" / "fake_cupy"

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))


@pytest.fixture
def settings(idx_folder):
    return Settings(
        data_dir=str(idx_folder),
        epochs=2,
        batch_size=20,  # 96 images: the last batch has 16
        conv="cpu",
        pool="max:cpu",
        device="cpu",
        augment=2,
        seed=5,
    )


def numbers(run):
    """Return all that a run's end consists of, times left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["images_per_second"]
    tensors = load_file(run / "checkpoint.safetensors")
    return {name: array.tobytes() for name, array in tensors.items()}, lines


def launched(trainer, data, graph=None):
    """Make the steps of a training on the host by the launches that a GPU would get."""
    return DeviceSteps(trainer, data, graph)


def test_launches_on_the_emulator_are_the_hosts_steps(settings, tmp_path, monkeypatch):
    whole = train(settings, tmp_path / "host").run.folder
    monkeypatch.setattr(lenet.train, "choose_steps", launched)
    assert numbers(train(settings, tmp_path / "launched").run.folder) == numbers(whole)


def test_moved_images_are_other_images(settings, tmp_path):
    plain = dataclasses.replace(settings, augment=0)
    losses = [
        train(wanted, tmp_path / str(i)).history[0]["loss"]
        for i, wanted in enumerate((settings, plain))
    ]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("step", [2, 5])
def test_launches_stopped_in_an_epoch_go_on_on_the_host(settings, tmp_path, monkeypatch, step):
    whole = train(settings, tmp_path / "whole").run.folder
    real, made = DeviceSteps.step, 0

    def counted(self, *arguments):
        nonlocal made
        made += 1
        if made == step + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)

    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(lenet.train, "choose_steps", launched)
        patch.setattr(DeviceSteps, "step", counted)
        assert train(settings, folder).interrupted
    assert not resume(folder, {}).interrupted
    assert numbers(folder) == numbers(whole)


def test_a_graph_on_the_cpu_is_refused(settings, tmp_path, capsys):
    with pytest.raises(OptionError, match=r"--graph: a CUDA graph needs a GPU.* leave --graph out"):
        train(settings, tmp_path / "run", graph=True)
    assert not (tmp_path / "run").exists()
    assert main(["train", "--graph", "--device", "cpu"]) == 2
    assert "lenet: error: --graph: a CUDA graph needs a GPU" in capsys.readouterr().err


def test_a_run_of_another_order_is_not_continued_but_evaluated(settings, tmp_path, capsys):
    folder = train(settings, tmp_path / "old").run.folder
    config = json.loads((folder / "config.json").read_text())
    del config["augment"]  # no version that shuffled otherwise wrote it
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(OptionError, match=r"shuffled otherwise began it.*lenet evaluate .*old"):
        resume(folder, {})
    assert main(["evaluate", str(folder), "--conv", "reference", "--device", "cpu"]) == 0


@pytest.mark.parametrize("value", [-1, 28])
def test_an_augment_that_cannot_be(settings, value):
    with pytest.raises(OptionError, match=f"--augment is {value}; expected 0 to 27 pixels"):
        dataclasses.replace(settings, augment=value).check()


ON_DOUBLE = """
import contextlib, functools, json, os, signal, sys
from pathlib import Path
import cupy, numpy as np
import lenet.train
from lenet import step_graph
from lenet.errors import KernelError
from lenet.settings import Settings
from lenet.step_graph import DeviceSteps
from lenet.train import resume, train

data, out = sys.argv[1], Path(sys.argv[2])
settings = Settings(data_dir=data, epochs=2, batch_size=20, conv="naive", pool="max",
                    device="gpu", augment=2, seed=5)
# Steps 0, 4 and 8 run launch by launch, between launches of the graph.
step_graph.TIME_EVERY = 4
lenet.train.Stopwatch = functools.partial(lenet.train.Stopwatch, every=4)
said = {}

launches, reads = [], []
launch, get = cupy.cuda.Graph.launch, cupy.ndarray.get
def counted_launch(self, *arguments):
    launches.append(len(reads))
    launch(self, *arguments)
cupy.cuda.Graph.launch = counted_launch
def counted_get(self, *arguments):
    reads.append(self.shape)
    return get(self, *arguments)
cupy.ndarray.get = counted_get

eager = train(settings, out / "eager", graph=False)
assert not eager.graph and not launches
graph = train(settings, out / "graph")
assert graph.graph and len(launches) == 7, launches
# Nothing is read between the launches of an epoch.
said["reads"] = [after - before for before, after in zip(launches, launches[1:])]
said["session"] = graph.run.timing()[0]

# Ctrl-C in the middle of an epoch, and on without the graph; and the other way round.
def stopped_at(step, folder, use):
    real = DeviceSteps.step
    def step_and_stop(self, number):
        real(self, number)
        if number == step:
            os.kill(os.getpid(), signal.SIGINT)
    DeviceSteps.step = step_and_stop
    assert train(settings, folder, graph=use).interrupted
    DeviceSteps.step = real
    assert not resume(folder, {}, graph=not use).interrupted
stopped_at(2, out / "stopped", True)
stopped_at(1, out / "continued", False)

# The step of few launches: its graph has the parameters' gradients on a branch, which happens as
# late as it can.
few = Settings(**{**settings.__dict__, "conv": "auto", "pool": "auto", "block": "fused"})
graphs, capture = [], DeviceSteps._capture
def kept(self, size):
    graphs.append(capture(self, size))
    return graphs[-1]
DeviceSteps._capture = kept
assert train(few, out / "few").graph
DeviceSteps._capture = capture
said["few"] = [[sum(callable(one) for one in branch) for branch in g._work] for g in graphs]
train(few, out / "few eager", graph=False)
launches.clear()

# What a capture refuses.
gemm = Settings(**{**settings.__dict__, "conv": "im2col_gemm", "epochs": 1})
fallen_back = train(gemm, out / "gemm")
assert not fallen_back.graph
try:
    train(gemm, out / "refused", graph=True)
except KernelError as error:
    said["refused"] = str(error)

# What a branch reads is not handed on before the branch is waited for.
from lenet.learning_layers import SideStreams
stream, seen = cupy.cuda.Stream(non_blocking=True), cupy.zeros(4, np.float32)
def read(array):
    seen[...] = array
def forked(careless):
    stream.begin_capture()
    side, array = SideStreams(cupy), cupy.zeros(4, np.float32)
    array.fill(1)
    side(read, array)
    if careless:
        side._held.clear()
    del array
    cupy.zeros(4, np.float32).fill(2)
    side.join()
    graph = stream.end_capture()
    graph.launch()
    return seen.get().tolist()
said["held"] = []
for careless in (False, True):
    with stream, cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):
        said["held"].append(forked(careless))

# Arrays made after the recording, of all sizes: those of a careless graph would be written over.
def overwritten(folder):
    held = []
    real = DeviceSteps.warm_up
    def warm_up_and_hold(self):
        real(self)
        held.extend(cupy.zeros(512 << size, np.uint8) for size in range(12) for _ in range(5))
    DeviceSteps.warm_up = warm_up_and_hold
    assert train(settings, folder).graph
    DeviceSteps.warm_up = real
    return any(array.any() for array in held)
said["overwritten"] = overwritten(out / "careful")
cupy.cuda.using_allocator = lambda allocator: contextlib.nullcontext()
said["overwritten by the careless"] = overwritten(out / "careless")
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def on_double(tmp_path_factory):
    from lenet_idx_files import write_folder

    folder = tmp_path_factory.mktemp("double")
    done = subprocess.run(
        [sys.executable, "-c", ON_DOUBLE, write_folder(folder / "data"), folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{DOUBLE}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads(done.stdout)


def test_a_graph_has_the_numbers_of_its_launches(on_double):
    folder, _ = on_double
    assert numbers(folder / "graph") == numbers(folder / "eager")


def test_a_graph_of_few_launches_has_the_numbers_of_its_launches(on_double):
    folder, _ = on_double
    assert numbers(folder / "few") == numbers(folder / "few eager")
    # Batch and both blocks, the linear layers with the loss, both blocks' way back, update; on
    # branches the gradients of the second block's and the linear layers' parameters.
    _, said = on_double
    assert said["few"] == [[4, 1, 1]] * 2


@pytest.mark.parametrize("name", ["stopped", "continued"])
def test_a_graph_stopped_in_an_epoch_goes_on_without_and_back(on_double, name):
    folder, _ = on_double
    assert numbers(folder / name) == numbers(folder / "eager")


def test_a_graph_writes_over_nothing_of_others(on_double):
    _, said = on_double
    assert not said["overwritten"]
    assert said["overwritten by the careless"]  # the double would notice


def test_what_a_branch_reads_is_held_until_it_is_waited_for(on_double):
    _, said = on_double
    assert said["held"] == [[1] * 4, [2] * 4]  # the double would notice


def test_nothing_is_read_within_an_epoch(on_double):
    _, said = on_double
    # Launches 1 2 3 | 5 6 7 9: the epoch's end, between the third and the fourth, reads figures,
    # evaluation and checkpoint.
    assert said["reads"][:2] == [0, 0]
    assert said["reads"][2] > 0
    assert said["reads"][3:] == [0, 0, 0]


def test_a_sample_of_the_steps_is_timed_outside_the_graph(on_double):
    _, said = on_double
    session = said["session"]
    assert session["graph"]
    assert (session["steps"], session["sampled"]) == (10, 3)
    timed = {phase["name"] for phase in session["phases"] if phase["in_steps"]}
    assert {"data", "conv1", "linear3", "loss", "update"} <= timed


def test_the_report_says_that_there_was_a_graph(on_double):
    from profiling import train_report

    folder, _ = on_double
    notes = {name: " ".join(train_report.load(folder / name).notes) for name in ("graph", "eager")}
    assert "The other steps ran as a CUDA graph" in notes["graph"]
    assert "CUDA graph" not in notes["eager"]


def test_the_bar_moves_without_a_look_at_the_device(monkeypatch):
    from lenet.progress import Bar

    class Steps:
        seen = None

        def done(self):
            return 3

    monkeypatch.setattr("lenet.progress.REFRESH", 0)
    bar = Bar()
    bar.begin(epochs=2, images=100, epoch=1)
    bar.step(Steps(), 20)
    (task,) = bar.bar.tasks
    assert task.completed == 100 + 60
    assert task.fields["figures"].endswith(" images/s")
    assert "loss" not in task.fields["figures"]


def test_a_kernel_that_cannot_be_recorded(on_double):
    _, said = on_double
    assert said["refused"].startswith(
        "--graph: the step cannot be recorded as a CUDA graph: calling cuBLAS API during stream "
        "capture is currently unsupported; take other kernels, or leave --graph out"
    )
