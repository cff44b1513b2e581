"""kernel="auto" on a GPU that is none: its times are the test's, its rules CuPy's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import __main__ as cli
from kernels import choosing, event_clock, operations, table
from kernels.shapes import Conv2dShape

ROOT = Path(__file__).parents[2]
SHAPE = Conv2dShape.of((2, 3, 9, 8), (4, 3, 3, 2), stride=2, padding="same")
HOW = {"stride": 2, "padding": "same"}
RNG = np.random.default_rng(0)
X, W, B = (RNG.standard_normal(dims).astype(np.float32) for dims in ((2, 3, 9, 8), (4, 3, 3, 2), 4))
IMAGES, GRADIENT = (2, 3, 12, 12), (2, 4, 10, 10)
WINOGRAD = table.find("conv2d", "winograd")
Y = kernels.conv2d(X, W, B, kernel="reference", **HOW)


@pytest.fixture
def seen(cupy, monkeypatch):
    """The functions launched, in order; `seen.cost` says how many microseconds each takes."""

    class Seen(list):
        cost: dict[str, float] = {}  # noqa: RUF012

        def only(self):
            """Return what was launched since the last call, each once."""
            names = list(dict.fromkeys(name for name in self if name != "spin"))
            self.clear()
            return names

    noted = Seen()

    def pace(name, options):
        noted.append(name)
        part = next((part for part in noted.cost if part in name), None)
        return 1e-6 * noted.cost[part] if part else 1e-6

    monkeypatch.setattr(cupy.cuda, "pace", pace)
    # Emulated launches are slow, and each takes the same time by this clock.
    monkeypatch.setattr(event_clock, "SAMPLES", 2)
    monkeypatch.setattr(event_clock, "MOST_LAUNCHES", 2)
    return noted


@pytest.fixture
def forward(cupy):
    x, w, b = map(cupy.asarray, (X, W, B))

    def call(kernel="auto"):
        y = kernels.conv2d(x, w, b, kernel=kernel, **HOW)
        np.testing.assert_allclose(y.get(), Y, rtol=1e-4, atol=1e-4)

    return call


def entries():
    return [entry.value for entry in choosing.ENTRIES]


def chosen(seen, forward):
    """Return the one function that a call launches now."""
    seen.clear()
    forward()
    (name,) = seen.only()
    return name


@pytest.mark.parametrize("fastest", ["naive", "tiled", "im2col_gemm"])
def test_every_pass_runs_the_fastest(cupy, seen, fastest):
    # Each in its turn far below the others; im2col_gemm's launches have names of their own.
    seen.cost = {"naive": 90, "tiled": 90, "im2col": 30, "rows": 30, "matmul": 30, "col2im": 30}
    if fastest == "im2col_gemm":
        seen.cost |= {"im2col": 1, "rows": 1, "matmul": 1, "col2im": 1}
    else:
        seen.cost[fastest] = 20
    x, w, dy = map(cupy.asarray, (X, W, Y))
    judge = {**HOW, "kernel": "reference"}
    for call, want in (
        (lambda: kernels.conv2d(x, w, **HOW), kernels.conv2d(X, W, **judge)),
        (
            lambda: kernels.conv2d_backward_data(dy, w, X.shape, **HOW),
            kernels.conv2d_backward_data(Y, W, X.shape, **judge),
        ),
        (
            lambda: kernels.conv2d_backward_filter(x, dy, W.shape, **HOW),
            kernels.conv2d_backward_filter(X, Y, W.shape, **judge),
        ),
    ):
        for _ in range(2):
            seen.clear()
            np.testing.assert_allclose(call().get(), want, rtol=1e-4, atol=1e-4)
        launched = seen.only()
        assert launched
        gemm = ("im2col", "rows", "matmul", "col2im")
        mine = gemm if fastest == "im2col_gemm" else (fastest,)
        assert all(any(part in name for part in mine) for name in launched)
    times = [value["seconds"] for value in entries()]
    assert len(times) == 3
    assert all(min(one, key=one.get) == fastest for one in times)


def test_the_time_kept_is_that_of_the_launches(seen, forward):
    seen.cost = {"naive": 40, "tiled": 25, "matmul": 7, "im2col": 100}
    forward()
    (value,) = entries()
    assert value["seconds"]["naive"] == pytest.approx(40e-6)
    assert value["seconds"]["tiled"] == pytest.approx(25e-6)
    assert value["left_out"] == {}


def test_measured_once_and_remembered(seen, forward, restarted):
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 90}
    forward()
    assert len(seen.only()) > 2
    assert chosen(seen, forward) == "conv2d_naive_forward"
    restarted()
    seen.cost = {"naive": 90, "tiled": 20}  # nobody looks any more
    assert chosen(seen, forward) == "conv2d_naive_forward"


def test_another_process_remembers(seen, forward, monkeypatch):
    seen.cost = {"naive": 90, "tiled": 20, "matmul": 90}
    forward()
    # Of the same candidates: an entry is of all their sources.
    program = (
        "import cupy, numpy as np, kernels\n"
        "from kernels import table\n"
        "of = ('naive', 'im2col_gemm', 'tiled')\n"
        "table._ROWS = tuple(r for r in table._ROWS if r.name in of)\n"
        "launched = []\n"
        "cupy.cuda.pace = lambda name, options: launched.append(name) or 1e-6\n"
        "x, w = cupy.zeros((2, 3, 9, 8), np.float32), cupy.zeros((4, 3, 3, 2), np.float32)\n"
        "kernels.conv2d(x, w, stride=2, padding='same')\n"
        "print(launched)\n"
    )
    path = os.pathsep.join([str(ROOT / "tests" / "fake_cupy"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['conv2d_tiled_forward']"


def test_a_new_source_or_driver_is_measured_anew(cupy, seen, forward, restarted, monkeypatch):
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 90}
    forward()
    seen.cost = {"naive": 90, "tiled": 20, "matmul": 90}
    real = Path.read_bytes

    def edited(path):
        return real(path) + (b"// edited" if path.name == "naive.cu" else b"")

    restarted()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", edited)
        forward()
        assert len(seen.only()) > 2
        assert chosen(seen, forward) == "conv2d_tiled_forward"
    restarted()
    assert chosen(seen, forward) == "conv2d_naive_forward"
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: 13000)
    restarted()
    forward()
    assert chosen(seen, forward) == "conv2d_tiled_forward"
    assert len(entries()) == 3


def test_reduced_precision_only_when_allowed(seen, forward, invent):
    invent("tf32", roundoff=2.0**-11)
    invent("bf16", roundoff=2.0**-8)
    seen.cost = {"bf16": 5, "tf32": 10, "tiled": 20, "naive": 90, "matmul": 90}
    forward()
    assert chosen(seen, forward) == "conv2d_tiled_forward"
    with kernels.reduced_precision("tf32"):
        forward()
        assert chosen(seen, forward) == "tf32_forward"
        with kernels.reduced_precision("float32"):
            assert chosen(seen, forward) == "conv2d_tiled_forward"
    with kernels.reduced_precision("bf16"):
        forward()
        assert chosen(seen, forward) == "bf16_forward"
    assert chosen(seen, forward) == "conv2d_tiled_forward"
    with pytest.raises(ValueError, match="got 'fp16'; expected one of 'float32', 'tf32', 'bf16'"):
        kernels.reduced_precision("fp16").__enter__()


def test_what_refuses_the_shape_or_lacks_the_pass_is_not_tried(seen, forward, invent):
    invent("picky", python="def refuses(d, shape, dtype):\n    return 'takes 3x3 only'")
    invent("half", passes=("backward_data",))
    seen.cost = {"picky": 1, "half": 1, "tiled": 20, "naive": 90, "matmul": 90}
    forward()
    assert not any("picky" in name or "half" in name for name in seen)
    assert chosen(seen, forward) == "conv2d_tiled_forward"


BROKEN = {
    "raises": ({"python": "def forward(*_):\n    raise RuntimeError('too many registers')"},
               "RuntimeError: too many registers"),
    "does not compile": ({"cuda": ("y[i] = sum;", "y[i] = summ;")}, "KernelCompileError"),
    "is wrong": ({"cuda": ("y[i] = sum;", "y[i] = sum * scalar(1.001);")},
                 "elements differ from those of kernel 'im2col_gemm'"),
    "leaves one out": ({"cuda": ("y[i] = sum;", "if (i != 7) y[i] = sum;")},
                       "DisagreementError: 1 of 160 elements"),
    "finds no memory": ({"python": "def forward(*_):\n    raise MemoryError('9 GiB')"},
                        "MemoryError: 9 GiB"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_candidate_that_fails_is_left_out_by_name(seen, forward, invent, fault):
    how, said = BROKEN[fault]
    invent("broken", **how)
    seen.cost = {"broken": 1, "tiled": 20, "naive": 90, "matmul": 90}
    with pytest.warns(RuntimeWarning, match=r"'auto': 'broken' is left out") as warned:
        forward()
    assert len(warned) == 1
    assert said in str(warned[0].message)
    assert chosen(seen, forward) == "conv2d_tiled_forward"
    # Memory may be there at the next start.
    assert [list(value["left_out"]) for value in entries()] == (
        [] if fault == "finds no memory" else [["broken"]]
    )


def test_a_kernel_that_rounds_its_factors_passes_for_no_other(cupy, seen, forward, invent):
    """Off by one part in 2000: within TF32's bound, and far outside float32's."""
    cuda = ("y[i] = sum;", "y[i] = sum * scalar(1.0005);")
    invent("rounded", cuda=cuda)
    with pytest.warns(RuntimeWarning, match="'rounded' is left out: DisagreementError"):
        forward()
    invent("honest", cuda=cuda, roundoff=2.0**-11)
    with kernels.reduced_precision("tf32"), pytest.warns(RuntimeWarning) as warned:
        kernels.conv2d(cupy.asarray(X), cupy.asarray(W), **HOW)
    assert ["'rounded'" in str(one.message) for one in warned] == [True]


def test_pools_are_held_to_the_last_bit(cupy, seen, invent, restarted):
    invent("twin", "pool2d/max")
    x = cupy.asarray(np.round(X * 2))
    seen.cost = {"twin": 5, "max": 50}
    kernels.max_pool2d(x)
    seen.clear()
    y, argmax = kernels.max_pool2d(x, return_argmax=True)
    assert seen.only() == ["twin_forward"]
    np.testing.assert_array_equal(y.get(), kernels.max_pool2d(x.get(), kernel="reference"))
    dx = kernels.max_pool2d_backward(y, argmax, x.shape)
    want = kernels.max_pool2d_backward(y.get(), argmax.get(), x.shape, kernel="reference")
    np.testing.assert_allclose(dx.get(), want, rtol=1e-6)
    restarted()
    invent("last", "pool2d/max", cuda=("value > best || first_nan", "value >= best || first_nan"))
    with pytest.warns(RuntimeWarning, match="'last' is left out"):  # ties go to the first
        kernels.max_pool2d(x)


def test_where_the_fixed_kernel_fails_another_runs(seen, forward):
    seen.cost = {"naive": 20, "tiled": 90}
    with kernels.workspace_limit(0):
        with pytest.warns(RuntimeWarning, match="'im2col_gemm' is left out: ValueError"):
            forward()
        assert chosen(seen, forward) == "conv2d_naive_forward"


def test_where_all_fail_the_fixed_kernel_says_why(cupy, forward, monkeypatch):
    only = [row for row in table.rows() if row.name in ("im2col_gemm", "naive")]
    monkeypatch.setattr(table, "_ROWS", tuple(only))
    monkeypatch.setattr(table.find("conv2d", "naive").launchers, "forward", _fails)
    with (
        kernels.workspace_limit(0),
        pytest.warns(RuntimeWarning, match="is left out"),
        pytest.raises(ValueError, match="kernel 'im2col_gemm' needs"),
    ):
        forward()
    assert entries() == []


def _fails(*_):
    raise RuntimeError("no")


def test_where_timing_fails_the_fixed_kernel_runs(seen, forward, monkeypatch):
    monkeypatch.setattr("kernels.event_clock.race", _fails)
    with pytest.warns(RuntimeWarning, match="nothing is measured: no"):
        forward()
    assert "matmul" in {*seen}
    assert entries() == []


def captured(cupy):
    """Return what a graph makes of a forward pass whose arrays were there before."""
    x, w, b = map(cupy.asarray, (X, W, B))
    y = cupy.empty(SHAPE.output_shape, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    row = table.find("conv2d", "auto", like=x)
    with stream:
        stream.begin_capture()
        operations.run_asked("auto", row, "forward", (x, w, b, y), SHAPE)
        graph = stream.end_capture()
    assert np.isnan(y.get()).all()
    graph.launch()
    np.testing.assert_allclose(y.get(), Y, rtol=1e-4, atol=1e-4)


def test_a_capture_takes_the_fixed_kernel_that_a_graph_can_hold(cupy, seen, forward):
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 90}
    captured(cupy)
    assert entries() == []
    # Not remembered: the next call outside measures.
    forward()
    assert chosen(seen, forward) == "conv2d_naive_forward"


@pytest.mark.parametrize("fastest", ["naive", "im2col_gemm"])
def test_a_capture_takes_what_is_remembered(cupy, seen, forward, restarted, monkeypatch, fastest):
    """Of cuBLAS's no graph can be made: the next one in the ranking takes its place."""
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 50 if fastest == "naive" else 1}
    forward()
    (value,) = entries()
    assert min(value["seconds"], key=value["seconds"].get) == fastest
    monkeypatch.setattr(table.find("conv2d", "tiled").launchers, "forward", _fails)
    captured(cupy)
    restarted()
    captured(cupy)


def test_during_another_streams_capture_nothing_is_measured(cupy, seen):
    """CUDA will not even say of the default stream whether it is captured."""
    x, w, b = map(cupy.asarray, (X, W, B))
    y = cupy.empty(SHAPE.output_shape, np.float32)
    stream = cupy.cuda.Stream()
    stream.begin_capture()
    try:
        row = table.find("conv2d", "auto", like=x)
        assert choosing.fastest(row, "forward", (x, w, b, y), SHAPE).name == "tiled"
    finally:
        stream.end_capture()
    assert entries() == []


def test_one_candidate_is_not_measured(cupy, seen, tmp_path):
    kernels.max_pool2d(cupy.asarray(X))
    assert seen.only() == ["max_pool2d_forward"]
    assert not (tmp_path / "choices").exists()


@pytest.mark.parametrize(
    "value",
    [
        {}, {"seconds": {}, "left_out": {}}, {"seconds": [], "left_out": None},
        {"seconds": {"naive": 1e-6}, "left_out": {}},
        {"seconds": {"naive": "1", "tiled": 1.0, "im2col_gemm": 1.0}, "left_out": {}},
        {"seconds": {"naive": -1.0, "tiled": 1.0, "im2col_gemm": 1.0}, "left_out": {}},
        {"seconds": {"fast": 1e-9, "naive": 1.0, "tiled": 1.0, "im2col_gemm": 1.0}, "left_out": {}},
    ],
)  # fmt: skip
def test_an_entry_edited_by_hand_is_measured_anew(seen, forward, restarted, value):
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 90}
    forward()
    good = entries()
    (entry,) = choosing.ENTRIES
    entry.path.write_text(json.dumps({"key": entry.key, "value": value}))
    restarted()
    forward()
    assert chosen(seen, forward) == "conv2d_naive_forward"
    assert [{*one["seconds"]} for one in entries()] == [{*good[0]["seconds"]}]


def test_a_folder_that_cannot_be_written_costs_a_warning(seen, forward, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONV_KERNEL_LAB_CHOICES", str(tmp_path / "file"))
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 90}
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        forward()
    assert chosen(seen, forward) == "conv2d_naive_forward"


def test_on_the_host_no_file_is_touched(monkeypatch, tmp_path):
    monkeypatch.setenv("CONV_KERNEL_LAB_CHOICES", str(tmp_path / "choices"))
    monkeypatch.setattr(choosing, "fastest", _fails)
    kernels.conv2d(X, W, B, **HOW)
    assert not (tmp_path / "choices").exists()


def test_an_empty_batch_measures_nothing(cupy, seen):
    assert kernels.conv2d(cupy.asarray(X[:0]), cupy.asarray(W)).shape == (0, 4, 7, 7)
    assert list(seen) == []


# The command.


def test_list_auto_and_forget(capsys, seen, forward, restarted, monkeypatch):
    seen.cost = {"naive": 20, "tiled": 90, "matmul": 90}
    forward()
    assert cli.main(["list", "--auto"]) == 0
    out = capsys.readouterr().out
    assert "conv2d forward 2,3,9,8,4,3,2 stride_h=2 stride_w=2" in out
    assert "naive 20.00 µs, tiled 90.00 µs" in out
    assert "STALE" not in out
    assert cli.main(["list", "--auto", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["current"]
    assert record["seconds"]["naive"] == pytest.approx(20e-6)
    real = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: real(path) + (b"//" if path.suffix == ".cuh" else b"")
    )
    restarted()
    assert cli.main(["list", "--auto"]) == 0
    assert "STALE" in capsys.readouterr().out
    assert cli.main(["list", "--auto", "--forget"]) == 0
    assert capsys.readouterr().out.startswith("1 forgotten")
    assert entries() == []


@pytest.mark.parametrize("words", [("--forget",), ("--auto", "--tiles"), ("--auto", "--arch", "x")])
def test_list_refuses_what_does_not_go_together(capsys, words):
    assert cli.main(["list", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("list: ")


def test_auto_measures_without_warnings(seen, forward):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forward()


def test_winograd_is_held_to_its_own_bound(cupy, seen, monkeypatch):
    """On images that are mostly zero, as after a ReLU: what it rounds, the definition lacks."""
    monkeypatch.setattr(table, "_ROWS", (*table.rows(), WINOGRAD))
    x, w, dy = (RNG.standard_normal(d).astype(np.float32) for d in (IMAGES, (4, 3, 3, 3), GRADIENT))
    for sparse in (x, dy):
        sparse[RNG.random(sparse.shape) < 0.9] = 0
        sparse[:, :, 6:] = 0
    x, w, dy = map(cupy.asarray, (x, w, dy))
    kernels.conv2d(x, w)
    kernels.conv2d_backward_data(dy, w, x.shape)
    kernels.conv2d_backward_filter(x, dy, w.shape)
    assert [value["left_out"] for value in entries()] == [{}] * 3
    assert all("winograd" in value["seconds"] for value in entries())
