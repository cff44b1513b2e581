"""Ranks together train what one process trains: as threads, as MPI's processes, and on the double.

93 images in batches of 10 leave three for the last step: of four ranks one has none.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from lenet_idx_files import write_folder
from lenet_thread_ranks import run_ranks
from safetensors.numpy import load_file

from kernels import emulator
from lenet import launcher
from lenet.__main__ import main
from lenet.checkpoint import Run
from lenet.errors import CheckpointError, DivergedError, KernelError, OptionError
from lenet.ranks import Ranks
from lenet.settings import Settings
from lenet.train import resume, train

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
FILES = ["checkpoint.safetensors", "config.json", "metrics.jsonl", "timing.json"]
STEPS = 20
# Sums in another order round otherwise: a few units in the last place of the largest weight a step.
# The model is smooth: where a maximum or a ReLU is decided otherwise, a step is another one.
BOUND = 4 * STEPS * 2**-24


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(
        data_dir=str(write_folder(tmp_path_factory.mktemp("data"), 93, 41)),
        epochs=2, batch_size=10, augment=2, weight_decay=1e-3,
        conv="reference", pool="avg:reference", activation="tanh", device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """The run of one process."""
    return train(settings, tmp_path_factory.mktemp("whole") / "run").run.folder


def worst(run, other):
    """Return the largest difference of two runs' tensors, as a share of the tensor's largest."""
    got, want = (load_file(folder / "checkpoint.safetensors") for folder in (run, other))
    assert got.keys() == want.keys()
    return max(
        float(np.abs(got[name] - array).max() / np.abs(array).max())
        for name, array in want.items()
        if array.size
    )


def assert_same(run, other):
    assert worst(run, other) <= BOUND
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (run, other)
    ]
    assert len(lines[0]) == len(lines[1])
    for line, want in zip(*lines, strict=True):
        for name in ("accuracy", "test_accuracy"):
            assert line[name] == want[name]
        for name in ("loss", "test_loss"):
            assert line[name] == pytest.approx(want[name], rel=1e-5)


# Threads.


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_parts_are_the_whole_and_even(size):
    for count in (0, 1, 3, 10, 96):
        parts = []
        for rank in range(size):
            ranks = Ranks()
            ranks.rank, ranks.size = rank, size
            parts.append(range(count)[ranks.part(count)])
        assert [image for part in parts for image in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_train_what_one_process_trains(settings, whole, tmp_path):
    results = run_ranks(4, lambda ranks: train(settings, tmp_path / "four", ranks=ranks))
    assert_same(tmp_path / "four", whole)
    assert all(result.history == results[0].history for result in results)
    assert sorted(path.name for path in (tmp_path / "four").iterdir()) == FILES
    session = Run(tmp_path / "four").timing()[0]
    assert session["ranks"] == 4
    assert "communication" in {phase["name"] for phase in session["phases"]}


def test_the_comparison_notices_a_mean_of_means(settings, whole, tmp_path, monkeypatch):
    from lenet.trainer import Trainer

    real = Trainer.learn

    def unweighted(self, x, target, rate, share=1.0):
        return real(self, x, target, rate, 1 / self.ranks.size)

    monkeypatch.setattr(Trainer, "learn", unweighted)
    run_ranks(4, lambda ranks: train(settings, tmp_path / "unweighted", ranks=ranks))
    assert worst(tmp_path / "unweighted", whole) > 1000 * BOUND


def test_what_a_gpu_gets_launched_by_ranks(settings, whole, tmp_path, monkeypatch):
    if emulator.problem() is not None:
        pytest.skip(str(emulator.problem()))
    from lenet.step_graph import DeviceSteps

    monkeypatch.setattr("lenet.train.choose_steps", DeviceSteps)
    run_ranks(4, lambda ranks: train(settings, tmp_path / "launched", graph=False, ranks=ranks))
    assert_same(tmp_path / "launched", whole)


def test_ranks_that_disagree_are_named(settings, tmp_path):
    def work(ranks):
        lr = settings.lr * (1 + (ranks.rank == 2))
        train(dataclasses.replace(settings, lr=lr), tmp_path / "run", ranks=ranks)

    errors = run_ranks(3, work)
    assert all(isinstance(error, OptionError) for error in errors)
    (message,) = {str(error) for error in errors}
    assert message.startswith("--distributed: rank 2 on ")
    assert "in lr (0.03, not 0.015); start all ranks with the same options" in message
    assert not (tmp_path / "run").exists()


def test_ranks_of_other_code_are_named(settings, tmp_path, monkeypatch):
    from lenet import distributed

    real = distributed._code

    def work(ranks):
        def code():
            return {**real(), **({"lenet/optim.py": "0"} if ranks.rank else {})}

        monkeypatch.setattr(ranks, "_agree", lambda facts: type(ranks)._agree(
            ranks, {**facts, **code()}
        ))  # fmt: skip
        train(settings, tmp_path / "run", ranks=ranks)

    for error in run_ranks(2, work):
        assert isinstance(error, OptionError)
        assert "in lenet/optim.py (0, not " in str(error)


def test_data_that_only_one_rank_lacks(settings, tmp_path):
    def work(ranks):
        where = settings.data_dir if ranks.rank != 1 else "no/such"
        train(dataclasses.replace(settings, data_dir=where), tmp_path / "run", ranks=ranks)

    for error in run_ranks(2, work):
        assert str(error).startswith("rank 1 on ")
        assert "no/such: no such folder" in str(error)


def test_a_full_disk_under_the_first_rank_is_all_ranks_error(settings, tmp_path, monkeypatch):
    def full(self, checkpoint):
        raise CheckpointError("cannot save")

    monkeypatch.setattr(Run, "save", full)
    errors = run_ranks(3, lambda ranks: train(settings, tmp_path / "run", ranks=ranks))
    assert [str(error) for error in errors] == ["cannot save"] * 3


def test_a_loss_that_is_no_number_ends_all_ranks(settings, tmp_path):
    wild = dataclasses.replace(settings, lr=1e6)
    errors = run_ranks(2, lambda ranks: train(wild, tmp_path / "run", ranks=ranks))
    assert all(isinstance(error, DivergedError) for error in errors)


def test_weights_that_drift_apart(settings, tmp_path, monkeypatch):
    from lenet.distributed import MpiRanks

    real = MpiRanks.add_up

    def tampered(self, model, loss, hits):
        figures = real(self, model, loss, hits)
        model.gradient[0] += np.float32(self.rank * 1e-6)
        return figures

    monkeypatch.setattr(MpiRanks, "add_up", tampered)
    errors = run_ranks(3, lambda ranks: train(settings, tmp_path / "run", ranks=ranks))
    assert all(isinstance(error, KernelError) for error in errors)
    assert "rank 1 on " in str(errors[0])
    assert "no longer has the weights of rank 0" in str(errors[0])


@pytest.mark.parametrize(
    ("variables", "threads"),
    [({}, 1), ({"OMP_NUM_THREADS": "2"}, 2), ({"NUMBA_NUM_THREADS": "2"}, 2)],
)
def test_ranks_share_the_cores_unless_told_otherwise(monkeypatch, variables, threads):
    import numba

    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})

    def work(ranks):
        ranks._share_cores()
        return numba.get_num_threads(), emulator.options.current().worker_count

    most = numba.config.NUMBA_NUM_THREADS
    assert run_ranks(3, work) == [(min(threads, most), threads)] * 3


# Processes.


@pytest.fixture(scope="module")
def mpiexec():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed (make test installs it)")
    if MPIEXEC is None:
        pytest.skip("no mpiexec (make test installs MPICH's)")
    return MPIEXEC


def options(settings, folder):
    return [
        "--data-dir", settings.data_dir, "--epochs", "2", "--batch-size", "10", "--augment", "2",
        "--weight-decay", "1e-3", "--conv", "reference", "--pool", "avg:reference",
        "--activation", "tanh", "--device", "cpu",
        "--runs-dir", str(folder.parent), "--name", folder.name,
    ]  # fmt: skip


def start(mpiexec, size, *command, **environment):
    return subprocess.Popen(
        [mpiexec, "-n", str(size), sys.executable, *map(str, command)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip


def ended(process, seconds=120):
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output, errors


def test_processes_train_what_one_process_trains(mpiexec, settings, whole, tmp_path):
    job = start(
        mpiexec, 4, "-m", "lenet", "train", "--distributed", *options(settings, tmp_path / "run")
    )
    status, output, errors = ended(job)
    assert (status, errors) == (0, "")
    assert_same(tmp_path / "run", whole)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES
    assert [line[:9] for line in output.splitlines()[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert output.count("The run is in") == 1
    assert "communication" in output


# A rank meets its fate before step 14 of 20; the first epoch's checkpoint is there by then.
FATE = """
import os, signal, sys
from lenet import steps
from lenet.__main__ import main
fate, made, real = sys.argv[1], 0, steps.HostSteps.step
def step(self, number):
    global made
    made += 1
    if made == 14 and self.trainer.ranks.rank == 1:
        if fate == "RuntimeError":
            raise RuntimeError("no more")
        os.kill(os.getpid(), getattr(signal, fate))
    real(self, number)
steps.HostSteps.step = step
sys.exit(main(sys.argv[2:]))
"""


DIED = "lenet: error: rank 1 on {host}"
ENDS = "; the job ends; go on from its last checkpoint with: "
FATES = {
    "SIGKILL": (1, f"{DIED} was ended by SIGKILL{ENDS}"),
    "RuntimeError": (1, f"{DIED}: no more{ENDS}"),
    "SIGTERM": (1, "lenet: rank 1 on {host} got SIGTERM: stopped and saved; go on with: "),
    "SIGINT": (130, "lenet: interrupted and saved; go on with: "),
}


@pytest.mark.parametrize(
    ("fate", "ranks_before", "ranks_after"),
    [
        ("SIGKILL", 2, 1),
        pytest.param("SIGINT", 2, 4, marks=pytest.mark.slow),
        pytest.param("SIGTERM", 4, 2, marks=pytest.mark.slow),
        pytest.param("RuntimeError", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_what_ends_a_rank_ends_the_job_and_other_ranks_go_on(
    mpiexec, settings, whole, tmp_path, fate, ranks_before, ranks_after
):
    folder = tmp_path / "run"
    arguments = ["train", "--distributed", *options(settings, folder)]
    status, output, errors = ended(start(mpiexec, ranks_before, "-c", FATE, fate, *arguments))
    wanted, said = FATES[fate]
    assert status == wanted, errors
    (message,) = [line for line in errors.splitlines() if line.startswith("lenet: ")]
    way = f"mpiexec -n {ranks_before} python -m lenet train --distributed --resume {folder}"
    assert message == said.format(host=os.uname().nodename) + way
    assert "epoch 1/2" in output
    assert "epoch 2/2" not in output
    if ranks_after == 1:
        resume(folder, {})
    else:
        on = ["-m", "lenet", "train", "--distributed", "--resume", folder]
        assert ended(start(mpiexec, ranks_after, *on))[0] == 0
    assert_same(folder, whole)


@pytest.mark.slow
def test_ctrl_c_at_mpiexec(mpiexec, settings, tmp_path):
    folder = tmp_path / "run"
    command = ["-m", "lenet", "train", "--distributed", *options(settings, folder)]
    job = start(mpiexec, 2, *command, "--epochs", "400")
    for _ in range(1200):
        if (folder / "metrics.jsonl").exists():
            break
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    status, _, errors = ended(job)
    assert status == 130, errors
    assert errors.count("lenet: ") == 1
    assert "lenet: interrupted and saved; go on with: mpiexec -n 2 " in errors
    assert "Traceback" not in errors


def test_bad_input_is_one_message_and_exit_with_2(mpiexec, tmp_path):
    job = start(mpiexec, 3, "-m", "lenet", "train", "--distributed", "--resume", tmp_path)
    status, output, errors = ended(job)
    assert (status, output) == (2, "")
    assert errors.startswith(f"lenet: error: {tmp_path} is not a run: config.json: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("names", launcher.VARIABLES)
def test_several_processes_without_distributed_are_refused(monkeypatch, capsys, names):
    for rank, said in ((0, "add --distributed for one training by all of them"), (1, "")):
        for name, value in zip(names, (rank, 4), strict=True):
            monkeypatch.setenv(name, str(value))
        assert main(["train"]) == 2
        errors = capsys.readouterr().err
        assert errors.count("4 processes were started, and each would train alone; ") == 1 - rank
        assert said in errors


def test_without_mpi4py_the_way_to_it_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["train", "--distributed"]) == 2
    assert "--distributed: mpi4py is not installed; pip install" in capsys.readouterr().err


def test_an_mpi_that_is_not_mpiexecs_is_noticed(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    (error,) = run_ranks(1, lambda ranks: None)
    assert isinstance(error, OptionError)
    assert "4 processes were started, but to mpi4py each is alone" in str(error)


# GPUs: the double's, whose NCCL sums by MPI.


def on_gpus(mpiexec, settings, folder, size, gpus):
    arguments = options(settings, folder)
    for option, value in (("--conv", "naive"), ("--pool", "avg"), ("--device", "gpu")):
        arguments[arguments.index(option) + 1] = value
    command = ["-m", "lenet", "train", "--distributed", *arguments, "--no-graph"]
    double = f"{ROOT / 'tests' / 'fake_cupy'}{os.pathsep}{ROOT}"
    return ended(start(mpiexec, size, *command, PYTHONPATH=double, CUPY_DOUBLE_DEVICES=str(gpus)))


def test_ranks_on_gpus_of_their_own(mpiexec, settings, whole, tmp_path):
    if emulator.problem() is not None:
        pytest.skip(str(emulator.problem()))
    status, _, errors = on_gpus(mpiexec, settings, tmp_path / "run", 4, 4)
    assert (status, errors) == (0, "")
    assert_same(tmp_path / "run", whole)


def test_more_ranks_than_gpus_are_refused(mpiexec, settings, tmp_path):
    status, _, errors = on_gpus(mpiexec, settings, tmp_path / "run", 2, 1)
    assert status == 2
    assert "2 ranks on " in errors
    assert "have 1 GPU to share; start one rank a GPU, or give --device cpu" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
