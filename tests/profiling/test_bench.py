"""``python -m profiling bench`` as a user meets it, on the CPU and on the double of a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kernels import compare, emulator, operations, place, table
from kernels.shapes import BlockShape, Conv2dShape, PoolShape
from profiling import __main__ as cli
from profiling import admission, bench, bench_group, ceilings, machine
from profiling.buffers import Buffers
from profiling.result_file import Ceilings, load

ROOT = Path(__file__).parents[2]
SMALL = "4,1,10,9,3,3,3,1,1"
QUICK = ("--min-seconds", "0.02", "--max-seconds", "0.2")
CEILINGS = Ceilings(1e10, 1e10, 1e11, None, 1e-6, 1 << 20)


@pytest.fixture(autouse=True)
def known_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "measure_cpu", lambda: CEILINGS)


# The command in a process of its own, with ceilings that take no time to measure.
SUBPROCESS = """
import sys
from profiling import __main__ as cli, ceilings, clock_gpu
from profiling.result_file import Ceilings
ceilings.measure_cpu = lambda: Ceilings(1e10, 1e10, 1e11, None, 1e-6, 1 << 20)
ceilings.LARGEST_ARRAY, ceilings.GEMM_GPU, ceilings.GEMM_CPU = 1 << 16, 32, 32
clock_gpu.SHORT = 1.0  # on a busy machine the double's launches are none too fast
sys.exit(cli.main(sys.argv[1:]))
"""


def run(*args: object) -> int:
    given = list(map(str, args))
    device = [] if "--device" in given else ["--device", "cpu"]
    return cli.main(["bench", *given, *device])


def test_a_shape_is_checked_timed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "out.jsonl"
    given = ("--shape", SMALL, "--shape", "max_pool2d:4,3,8,9,2", "--against", "numpy")
    assert run(*given, *QUICK, "-o", path) == 0
    results = load(path)
    assert results.header.place == "cpu"
    assert results.header.commit == machine.commit()[0]
    rows = {(row.operation, row.direction, row.name): row for row in results.rows}
    kernel = rows["conv2d", "forward", "cpu"]
    assert kernel.status == "timed"
    assert kernel.check is not None
    assert kernel.check.elements == kernel.check.total == 4 * 3 * 10 * 9
    assert 0 < kernel.check.worst < 1
    assert kernel.flops == 2 * 4 * 3 * 10 * 9 * 9
    for timing in (kernel.cold, kernel.hot):
        assert timing is not None
        assert len(timing.samples_s) >= 10
        assert timing.low_s <= timing.median_s <= timing.high_s < 0.1
    assert {(ratio.peer, ratio.state) for ratio in kernel.ratios} == {
        ("numpy", "cold"), ("numpy", "hot"),
    }  # fmt: skip
    assert rows["conv2d", "forward", "numpy"].kind == "peer"
    assert "no short way" in rows["conv2d", "backward_data", "numpy"].reason
    assert rows["max_pool2d", "backward", "cpu"].status == "timed"
    out = capsys.readouterr().out
    assert "fastest peer numpy" in out
    assert "SKIPPED" in out
    # A file that is there stays as it is.
    before = path.read_bytes()
    assert run(*given, *QUICK, "-o", path) == 2
    assert "exists; choose another name, or --resume" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_json_is_read_by_a_program(capsys: pytest.CaptureFixture[str]):
    assert run("--shape", SMALL, "--pass", "forward", "--against", "none", *QUICK, "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)
    cold = record["cold"]
    assert cold["flops_per_s"] == pytest.approx(record["flops"] / cold["median_s"])
    assert cold["bound"] in ("compute", "memory", "launch")
    assert "samples_s" not in cold


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--suite", "alexnet"], "unknown suite 'alexnet'"),
        (["--shape", "1,2,3"], "has 3 numbers"),
        (["--kernel", "fastest"], "unknown kernel 'fastest'"),
        (["--kernel", "naive"], "the emulator's or simulator's time says nothing"),
        (["--kernel", ""], "--kernel is empty"),
        (["--pass", "sideways"], "unknown pass 'sideways'"),
        (["--pass", ""], "--pass is empty"),
        (["--against", "tensorflow"], "unknown peer 'tensorflow'; expected one of torch"),
        (["--device", "gpu"], "--device gpu: "),
        (["--threads", "0"], "--threads is 0; expected 1 to"),
        (["--min-seconds", "3", "--max-seconds", "2"], "the second not below the first"),
        (["--batch", "many"], "N is 'many'"),
        (["--resume"], "--resume wants -o FILE"),
        (["--resume", "-o", "none.jsonl"], "No such file"),
        (["-o", "no/such/folder.jsonl", "--shape", SMALL], "No such file"),
        (["--shape", "max_pool2d:4,3,8,9,2", "--pass", "filter"], "no kernel and pass is left"),
    ],
)
def test_bad_input_is_one_clear_line(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    if "gpu" in given and place.gpu_problem() is None:
        pytest.skip("there is one")
    against = [] if "--against" in given else ["--against", "none"]
    assert run(*given, *against) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert said in err[-1]
    assert err[-1].startswith("bench: ")


def test_a_peer_that_is_missing_is_named_and_skipped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    find = bench.peers.importlib.util.find_spec
    monkeypatch.setattr(
        bench.peers.importlib.util, "find_spec", lambda n, *a: None if n == "torch" else find(n, *a)
    )
    assert run("--shape", SMALL, "--pass", "bias", *QUICK) == 0
    assert "torch is not installed: make compare-torch" in capsys.readouterr().err


def faulty(monkeypatch: pytest.MonkeyPatch, direction: str, change) -> list[str]:
    """Let the cpu kernel's results be changed; return a note for every launch."""
    row = table.find("conv2d", "cpu")
    right = getattr(row.launchers, direction)
    launched: list[str] = []

    def wrong(*args):
        launched.append(direction)
        right(*args)
        change(args)

    monkeypatch.setattr(row.launchers, direction, wrong)
    return launched


@pytest.mark.parametrize(
    ("direction", "change", "said"),
    [
        ("forward", lambda a: a[3].__setitem__((-1, -1, -1, -1), 9e9), "elements wrong"),
        ("forward", lambda a: a[3].__setitem__((0, 0, 0, 0), np.nan), "not written"),
        ("forward", lambda a: a[3].__imul__(1 + 2e-3), "elements wrong"),
        ("backward_data", lambda a: a[2].__setitem__(Ellipsis, np.nan), "not written"),
        ("backward_filter", lambda a: a[2].__imul__(-1), "elements wrong"),
    ],
)
def test_a_kernel_that_fails_the_judge_is_reported_and_not_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys, direction: str, change, said: str
):
    launched = faulty(monkeypatch, direction, change)
    path = tmp_path / "out.jsonl"
    passes = {"forward": "forward", "backward_data": "data", "backward_filter": "filter"}
    given = ("--shape", SMALL, "--pass", passes[direction], "--against", "numpy", *QUICK)
    assert run(*given, "-o", path) == 1
    (row,) = (row for row in load(path).rows if row.name == "cpu")
    assert row.status == "failed"
    assert said in row.reason
    assert row.cold is row.hot is None
    assert row.ratios == []
    assert len(launched) == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_kernel_that_raises_is_reported_and_the_rest_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def fail(_) -> None:
        raise RuntimeError("it broke\nat a place")

    faulty(monkeypatch, "forward", fail)
    path = tmp_path / "out.jsonl"
    assert run("--shape", SMALL, "--against", "numpy", *QUICK, "-o", path) == 1
    rows = {(row.direction, row.name): row for row in load(path).rows}
    assert rows["forward", "cpu"].reason == "RuntimeError: it broke"
    assert rows["forward", "numpy"].status == "timed"
    assert rows["backward_data", "cpu"].status == "timed"


def test_what_does_not_fit_in_memory_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(bench_group.buffers, "free_bytes", lambda xp: 10_000)
    path = tmp_path / "out.jsonl"
    given = ("--shape", "4,1,64,64,3,3,3", "--shape", "1,1,4,4,1,3,3", "--pass", "forward")
    assert run(*given, "--against", "none", *QUICK, "-o", path) == 0
    large, small = load(path).rows
    assert large.status == "skipped"
    assert "GiB are free" in large.reason
    assert small.status == "timed"


PART_SHAPES = {
    "conv2d": Conv2dShape.of((40, 12, 11, 9), (14, 12, 3, 3), padding=1),
    "conv2d_relu_pool": BlockShape.of((40, 12, 11, 9), (14, 12, 3, 3), padding=1),
    "max_pool2d": PoolShape.of((400, 12, 11, 9), 2),
    "avg_pool2d": PoolShape.of((400, 12, 11, 9), 2),
}


@pytest.mark.parametrize("operation", PART_SHAPES)
def test_the_judges_part_covers_the_ends_and_stays_in_its_budget(
    operation: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(admission, "BUDGET", 30_000)
    shape, row = PART_SHAPES[operation], table.find(operation, "auto")
    rng = np.random.default_rng(3)
    for direction in row.passes:
        buffers = Buffers(np, operation, direction, shape, 1, rng)
        buffers.poison()
        operations.run(row, direction, (*buffers.inputs[0], *buffers.outputs[0]), shape)
        got = buffers.fetch()
        check, wrong = admission.judge(operation, direction, shape, buffers.host, got, rng)
        assert wrong == ""
        assert 0 < check.elements < check.total
        # The last element of the last image or filter is always among them.
        got[0][tuple(np.array(got[0].shape) - 1)] += 1e3
        _, wrong = admission.judge(operation, direction, shape, buffers.host, got, rng)
        assert "wrong" in wrong
        # The part is the pass's own: the judge at full size says the same.
        want, _ = compare.expected(operation, direction, buffers.host, shape, 0.0)
        part = admission.choose(operation, direction, shape, buffers.host, rng)
        small, _ = compare.expected(operation, direction, part.inputs, part.shape, 0.0)
        for full, at, some in zip(want, part.outputs, small, strict=True):
            np.testing.assert_allclose(full[at], some)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured_and_resume_ends_it(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    command = [
        sys.executable, "-c", SUBPROCESS, "bench", "--device", "cpu", "--against", "none",
        "-o", str(path),
        *(arg for n in range(1, 9) for arg in ("--shape", f"{n},1,10,9,3,3,3")),
        "--min-seconds", "0.3", "--max-seconds", "0.6", "--pass", "forward",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= 3:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    begun = load(path, unfinished=True)
    assert 2 <= len(begun.rows) < 8
    done = subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = load(path)
    assert whole.rows[: len(begun.rows)] == begun.rows
    assert [row.shape["n"] for row in whole.rows] == list(range(1, 9))
    again = subprocess.run([*command, "--resume"], cwd=ROOT, capture_output=True, check=False)
    assert (again.returncode, load(path)) == (0, whole)
    assert b"whole already" in again.stderr
    other = subprocess.run(
        [*command, "--resume", "--seed", "1"], cwd=ROOT, capture_output=True, check=False
    )
    assert other.returncode == 2
    assert b"begun with other options" in other.stderr


def test_a_run_of_another_machine_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "out.jsonl"
    given = ("--shape", SMALL, "--pass", "bias", "--against", "none", *QUICK, "-o", path)
    assert run(*given) == 0
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    monkeypatch.setattr(machine, "describe", lambda where: {"name": "another"})
    assert run(*given, "--resume") == 2
    assert "this is another; one file holds one machine" in capsys.readouterr().err


def test_the_source_hash_changes_with_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from kernels import source_hash

    rows = [row for row in table.rows() if row.language == "cuda_c"]
    before = {(row.operation, row.name): source_hash.of_row(row) for row in rows}
    assert len(set(before.values())) == len(before)
    real = Path.read_bytes

    def edited(path: Path) -> bytes:
        return real(path) + (b"// edited" if path.name == "index.cuh" else b"")

    monkeypatch.setattr(Path, "read_bytes", edited)
    after = {(row.operation, row.name): source_hash.of_row(row) for row in rows}
    assert all(after[key] != before[key] for key in before)


@pytest.mark.slow
@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_the_gpu_path_on_the_double(tmp_path: Path):
    """Graphs, queues and events in CuPy's conventions; its figures are nobody's."""
    path = tmp_path / "double.jsonl"
    environment = {
        **os.environ, "PYTHONPATH": f"{ROOT / 'tests' / 'fake_cupy'}{os.pathsep}{ROOT}",
    }  # fmt: skip
    done = subprocess.run(
        [
            sys.executable, "-c", SUBPROCESS, "bench", "--device", "gpu", "-o", str(path),
            "--shape", "1,1,4,5,2,3,3", "--kernel", "naive,im2col_gemm", "--against", "cupy",
            "--pass", "forward", *QUICK,
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = load(path)
    assert results.header.place == "test double"
    methods = {row.name: row.cold.method for row in results.rows if row.cold}
    assert methods["naive"] == "graph"
    assert methods["im2col_gemm"] == "queue"  # cuBLAS is not captured
    assert methods["cupy"] == "eager"
    launches = {row.name: row.cold.launches for row in results.rows if row.cold}
    assert launches["naive"] > 1
