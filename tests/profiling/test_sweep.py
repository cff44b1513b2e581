"""``bench --distributed``: by MPI's processes, by threads, on made-up hosts and devices."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernels import emulator
from lenet import launcher
from profiling import __main__ as cli
from profiling import bench, bench_plan, ceilings, hand_out, sweep
from profiling.bench_group import ContextLostError
from profiling.result_file import Ceilings, load
from tests.profiling.thread_ranks import run_ranks

ROOT = Path(__file__).parents[2]
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

# The command on hosts of a name for each rank, with ceilings of its own. FATE is what becomes of a
# rank at the first group that is 3 images or more.
COMMAND = """
import os, signal, socket, sys, time
from profiling import __main__ as cli, bench_group, ceilings, clock_gpu
from profiling.result_file import Ceilings
rank = int(os.environ.get("PMI_RANK", 0))
if "ONE_HOST" not in os.environ:
    socket.gethostname = lambda: f"host{rank}"
ceilings.measure_cpu = lambda: Ceilings(1e10 * (rank + 1), 1e10, 1e11, None, 1e-6, 1 << 20)
ceilings.LARGEST_ARRAY, ceilings.GEMM_GPU, ceilings.GEMM_CPU = 1 << 16, 32, 32
ceilings.POLICY = ceilings.Policy(min_seconds=0.01, max_seconds=0.1)
clock_gpu.SHORT = 1.0
fate, _, who = os.environ.get("FATE", "").partition(":")
real = bench_group.Bench.group
def group(self, group, between):
    if fate and int(who) == rank and group.case.shape.n >= 3:
        if fate == "sleep":
            print("asleep", file=sys.stderr, flush=True)
            time.sleep(100)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, group, between)
bench_group.Bench.group = group
if "UNLIKE" in os.environ:
    import cupy
    about = cupy.cuda.runtime.getDeviceProperties
    cupy.cuda.runtime.getDeviceProperties = lambda device: {
        **about(device), "name": b"model %d" % device
    }
sys.exit(cli.main(sys.argv[1:]))
"""
QUICK = ("--min-seconds", "0.01", "--max-seconds", "0.1")
ASKED = (
    "--shape", "1:6:+1,1,10,9,3,3,3", "--pass", "forward", "--kernel", "reference",
    "--against", "numpy", *QUICK,
)  # fmt: skip


@pytest.fixture
def mpiexec() -> str:
    if MPIEXEC is None:
        pytest.skip("no mpiexec (make test installs MPICH's)")
    return MPIEXEC


def start(mpiexec: str, size: int, *given: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [mpiexec, "-n", str(size), sys.executable, "-c", COMMAND, "bench", "--distributed",
         *map(str, given)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def ended(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = job.communicate(timeout=120)
    return job.returncode, out, err


def cpu(path: Path) -> tuple[object, ...]:
    return "--device", "cpu", *ASKED, "-o", path


def assert_each_group_is_of_one_device(path: Path, hosts: set[str]) -> None:
    results = load(path)
    devices: dict[object, set[int | None]] = {}
    for row in results.rows:
        devices.setdefault(row.key[:3], set()).add(row.device)
    assert all(len(found) == 1 for found in devices.values())
    used = {results.device(row).host for row in results.rows}
    assert used == hosts
    for row in results.rows:
        rank = int(results.device(row).host.removeprefix("host"))
        assert results.ceilings(row).copy == 1e10 * (rank + 1)


@pytest.mark.slow
def test_ranks_measure_what_one_process_does(mpiexec, tmp_path, monkeypatch, capsys):
    together, alone, page = (tmp_path / name for name in ("two.jsonl", "one.jsonl", "two.html"))
    code, out, err = ended(start(mpiexec, 2, *cpu(together), "--json"))
    assert code == 0, err
    assert_each_group_is_of_one_device(together, {"host0", "host1"})
    known = Ceilings(1e10, 1e10, 1e11, None, 1e-6, 1 << 20)
    monkeypatch.setattr(ceilings, "measure_cpu", lambda: known)
    assert cli.main(["bench", *map(str, cpu(alone))]) == 0
    two, one = load(together), load(alone)
    assert {row.key for row in two.rows} == {row.key for row in one.rows}
    assert [r.status for r in two.rows] == [r.status for r in one.rows] == ["timed"] * 12
    assert two.header.groups == 6
    assert {record["device"]["host"] for record in json.loads(out)} == {"host0", "host1"}
    # Only the first rank speaks, and says what is measured where.
    assert err.count("ceilings measured: ") == 1
    assert err.count("6/6 ") == 1
    assert "forward, CPU of host1: reference " in err
    # What reads a file reads this one.
    capsys.readouterr()
    assert cli.main(["report", str(together), "-o", str(page)]) == 0
    assert "CPU of host1" in page.read_text()
    assert cli.main(["compare", str(alone), str(together), "--json", "--tolerance", "900"]) == 0
    compared = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert len(compared["rows"]) == 12


@pytest.mark.slow
def test_a_killed_rank_is_named_and_another_number_of_ranks_goes_on(mpiexec, tmp_path):
    path = tmp_path / "out.jsonl"
    code, _, err = ended(start(mpiexec, 2, *cpu(path), FATE="kill:1"))
    assert code in (1, 9)  # the rank's own, or that mpiexec killed the others
    (said,) = [line for line in err.splitlines() if line.startswith("bench: rank")]
    assert said.startswith("bench: rank 1 on host1 was ended by SIGKILL at ")
    assert ",1,10,9,3,3,3 forward on CPU of host1; what was measured is in " in said
    assert "--resume goes on" in said
    begun = load(path, unfinished=True)
    assert begun.end is None
    assert 2 <= len(begun.rows) < 12
    code, _, err = ended(start(mpiexec, 3, *cpu(path), "--resume"))
    assert code == 0, err
    whole = load(path)
    assert whole.rows[: len(begun.rows)] == begun.rows
    assert len(whole.rows) == 12
    # The devices of the first run keep their lines and ceilings.
    assert [device.host for device in whole.devices] == ["host0", "host1", "host2"]


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_ctrl_c_keeps_what_was_measured(mpiexec, tmp_path, who):
    path = tmp_path / "out.jsonl"
    job = start(mpiexec, 2, *cpu(path), FATE=f"sleep:{who}")
    before = ""
    for line in job.stderr:
        before += line
        if line.startswith("asleep"):
            break
    time.sleep(1)
    job.send_signal(signal.SIGINT)
    code, _, err = ended(job)
    assert code == 130, before + err
    assert err.count("bench: interrupted; what was measured is in ") == 1
    assert "Traceback" not in err
    begun = load(path, unfinished=True)
    assert begun.rows
    code, _, err = ended(start(mpiexec, 1, *cpu(path), "--resume"))
    assert code == 0, err
    assert len(load(path).rows) == 12


def gpus(path: Path) -> tuple[object, ...]:
    return (
        "--device", "gpu", "--shape", "1:4:+1,1,4,5,2,3,3", "--pass", "forward", "--against",
        "none", "--kernel", "naive", *QUICK, "-o", path,
    )  # fmt: skip


def double(count: int, **more: str) -> dict[str, str]:
    path = f"{ROOT / 'tests' / 'fake_cupy'}{os.pathsep}{ROOT}"
    return {"PYTHONPATH": path, "CUPY_DOUBLE_DEVICES": str(count), "ONE_HOST": "", **more}


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_gpus_of_one_host_and_unlike_ones_are_kept_apart(mpiexec, tmp_path, capsys):
    path, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    code, _, err = ended(start(mpiexec, 2, *gpus(path), **double(2, UNLIKE="")))
    assert code == 0, err
    assert "WARNING: UNLIKE DEVICES: 1 of model 0, 1 of model 1" in err
    results = load(path)
    assert results.header.place == "test double"
    assert [(d.index, d.identity) for d in results.devices] == [
        (0, "0000:00:00.0"), (1, "0000:01:00.0"),
    ]  # fmt: skip
    parts = results.by_model()
    assert {part.header.machine["name"] for part in parts} == {"model 0", "model 1"}
    assert sum(len(part.rows) for part in parts) == 4
    assert cli.main(["report", str(path), "-o", str(page)]) == 0
    assert "was measured on unlike devices, model" in page.read_text()


@pytest.mark.slow
@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_ranks_that_would_share_a_gpu_are_refused(mpiexec, tmp_path):
    path = tmp_path / "out.jsonl"
    code, out, err = ended(start(mpiexec, 3, *gpus(path), **double(2)))
    assert (code, out) == (2, "")
    (said,) = [line for line in err.splitlines() if line.startswith("bench: ")]
    assert "rank 0 on " in said
    assert "rank 2 on " in said
    assert "have one GPU between them (0000:00:00.0)" in said
    assert "shows 2 to 3 ranks: start one rank a GPU (mpiexec -n or -ppn)" in said
    assert not path.exists()


# Without MPI's processes.


@pytest.mark.parametrize("names", launcher.VARIABLES)
def test_several_processes_without_distributed_are_refused(monkeypatch, capsys, names):
    for rank, said in ((0, 1), (1, 0)):
        for name, value in zip(names, (rank, 4), strict=True):
            monkeypatch.setenv(name, str(value))
        assert cli.main(["bench", "--device", "cpu"]) == 2
        assert capsys.readouterr().err.count("4 processes were started, and each would") == said


def test_distributed_without_a_job_says_how(monkeypatch, capsys):
    for name in sum(launcher.VARIABLES, ()):
        monkeypatch.delenv(name, raising=False)
    mpi = SimpleNamespace(COMM_WORLD=SimpleNamespace(Get_size=lambda: 1))
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=mpi))
    assert cli.main(["bench", "--distributed"]) == 2
    assert "wants the processes of an MPI job: mpiexec -n 4 python -m" in capsys.readouterr().err
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(bench_plan.BenchError, match="to mpi4py each is alone"):
        sweep.join()
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(bench_plan.BenchError, match=r"pip install 'conv-kernel-lab\[distributed\]"):
        sweep.join()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(["--device", "cpu", "--distributed", *ASKED])


def plan_of(**changed: object) -> bench_plan.Plan:
    """Return a rank's plan. It parses code, which Python 3.11 does in one thread at a time."""
    return bench_plan.make(options())._replace(**changed)


def ranks_of(comm: object) -> sweep.Ranks:
    return sweep.Ranks(SimpleNamespace(COMM_WORLD=comm))


def test_two_ranks_on_one_cpu_are_refused():
    plan = plan_of()
    first, second = run_ranks(2, lambda comm: ranks_of(comm).agree(plan))
    assert isinstance(first, bench_plan.BenchError)
    assert isinstance(second, sweep.ElsewhereError)
    assert "2 ranks would time the CPU of" in str(first)
    assert "start one a host (mpiexec -ppn 1)" in str(first)


def test_ranks_that_would_not_measure_the_same_are_named():
    plans = plan_of(), plan_of(), plan_of(fingerprint="another")

    def work(comm) -> None:
        ranks_of(comm).agree(plans[comm.Get_rank()])

    error, *others = run_ranks(3, work)
    assert str(error).startswith("rank 2 on ")
    assert "in kernels, peers and options (another, not " in str(error)
    assert all(isinstance(other, sweep.ElsewhereError) for other in others)


def test_bad_input_on_one_rank_is_said_once_with_its_name():
    def work(comm) -> None:
        def plan() -> None:
            if comm.Get_rank() == 1:
                raise bench_plan.BenchError("no GPU here")

        ranks_of(comm).together(plan)

    first, second = run_ranks(2, work)
    assert str(first).startswith("rank 1 on ")
    assert str(first).endswith(": no GPU here")
    assert isinstance(second, sweep.ElsewhereError)


def hand(comm, numbers, measure, kept: list[tuple[int, int]]) -> None:
    def noted(number: int, between) -> list:
        return measure(comm.Get_rank(), number, between)

    if comm.Get_rank():
        hand_out.work(comm, noted)
    else:
        begin, keep = lambda number, rank: None, lambda n, rank, rows: kept.append((n, rank))
        hand_out.HandingOut(comm, numbers, begin, keep).run(noted, lambda share: None)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("groups", [0, 1, 9])
def test_every_group_is_measured_once(size: int, groups: int):
    kept: list[tuple[int, int]] = []
    found = run_ranks(size, lambda comm: hand(comm, range(groups), lambda *_: [], kept))
    assert found == [None] * size
    assert sorted(number for number, _ in kept) == list(range(groups))


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_who_is_free_gets_the_next(slow: int):
    """A rank is at one group until the others have measured all that is left."""
    kept: list[tuple[int, int]] = []

    def measure(rank: int, number: int, between) -> list:
        while rank == slow and len(kept) < 7:
            between(0.0)
            time.sleep(0.001)
        return []

    assert run_ranks(3, lambda comm: hand(comm, range(8), measure, kept)) == [None] * 3
    assert [rank for _, rank in kept].count(slow) == 1
    assert kept[-1][1] == slow


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("error", [ContextLostError("the context"), IndexError("a bug")])
def test_a_lost_rank_ends_the_job_and_what_others_had_at_hand_is_kept(
    lost: int, error: Exception, capsys
):
    kept: list[tuple[int, int]] = []
    begun: set[int] = set()

    def measure(rank: int, number: int, between) -> list:
        begun.add(rank)
        while len(begun) < 3:  # a busy machine may start the others late
            between(0.0)
            time.sleep(0.001)
        if rank == lost:
            raise error
        for _ in range(50):
            between(0.0)
            time.sleep(0.002)
        return []

    found = run_ranks(3, lambda comm: hand(comm, range(90), measure, kept))
    assert isinstance(found[0], hand_out.LostError)
    assert found[1:] == [None, None]
    assert found[0].rank == lost
    assert str(error) in str(found[0])
    assert {rank for _, rank in kept} == {0, 1, 2} - {lost}
    assert found[0].number not in {number for number, _ in kept}
    assert len(kept) <= 4
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, IndexError)


def test_threads_are_shared_out_and_no_part_of_the_plan(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    alone, shared = bench_plan.make(options()), bench_plan.make(options(), sharing=4)
    assert (alone.threads, shared.threads) == (8, 2)
    assert alone.fingerprint == shared.fingerprint
