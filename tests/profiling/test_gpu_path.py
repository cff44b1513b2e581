"""The GPU path without a GPU: a strict test double of CuPy in a process of its own.

What passes here calls, on device arrays, only what CuPy has, in CuPy's conventions. It says nothing
of a GPU's numbers or speed, and its records never count as a GPU's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import emulator
from profiling import verified

ROOT = Path(__file__).parents[2]
DOUBLE = ROOT / "tests" / "fake_cupy"

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))


def run(*command: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{DOUBLE}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


STRICT = """
import cupy, numpy as np, kernels
x = cupy.asarray(np.ones((2, 1, 8, 8), np.float32))
assert not isinstance(x, np.ndarray)
assert np.isnan(cupy.empty(3).get()).all()
function = cupy.RawModule(code='extern "C" __global__ void f(float* y, int n) { y[n] = n; }')
function = function.get_function("f")
function((1,), (1,), (x, np.int32(1)))
assert x.get().flat[1] == 1
for refused in (
    lambda: x + np.ones(3), lambda: np.ones(3) + x, lambda: np.asarray(x), lambda: list(range(x)),
    lambda: cupy.exp(np.ones(3)), lambda: x.__setitem__(0, np.ones((1, 8, 8))),
    lambda: function((1,), (1,), (x, None)), lambda: function([1], (1,), (x, np.int32(1))),
    lambda: function((1,), (1,), (x.get(), np.int32(1))),
    lambda: kernels.conv2d(x, np.ones((1, 1, 1, 1), np.float32)),
    lambda: kernels.conv2d(x, x, kernel="cpu"),
    lambda: cupy.matmul(x[0, 0], x[0, 0], out=x[0, 0].T),
    lambda: function((1,), (1,), (x, 1)),  # an int goes as 64 bits where the kernel reads 32
):
    try:
        refused()
    except (TypeError, ValueError):
        continue
    raise SystemExit("not refused")
"""


def test_the_double_is_strict():
    run("-c", STRICT)


MUCH_SHARED = """
import cupy, numpy as np, kernels
from kernels.source import recorded_launches
rng = np.random.default_rng(0)
# More than 48 KiB, and less than that until the kernel's static shared memory is counted too.
for name, x_dims, w_dims, least, most in (
    ("implicit_gemm_bf16", (6, 5, 57, 55), (70, 5, 3, 3), 48 << 10, 227 << 10),
    ("implicit_gemm_wgmma", (3, 1, 60, 400), (1, 1, 2, 2), 47 << 10, 48 << 10),
):
    x, w = (rng.standard_normal(dims, dtype=np.float32) for dims in (x_dims, w_dims))
    with recorded_launches() as launches:
        kernels.conv2d(x, w, kernel=name)
    assert least < max(launch.shared_bytes for launch in launches) <= most
    y = kernels.conv2d(cupy.asarray(x), cupy.asarray(w), kernel=name)
    np.testing.assert_array_equal(y.get(), kernels.conv2d(x, w, kernel=name))
"""


def test_a_kernel_that_takes_much_shared_memory_asks_for_it_first():
    run("-c", MUCH_SHARED)


FOR_ONE_ARCHITECTURE = """
import cupy, numpy as np, kernels
from cupy.cuda import nvrtc
from kernels.conv2d import implicit_gemm_wgmma
from kernels.source import KernelCompileError, nvrtc_code
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(dims, dtype=np.float32) for dims in ((3, 70, 9, 8), (70, 70, 3, 3)))
y = kernels.conv2d(cupy.asarray(x), cupy.asarray(w), kernel="implicit_gemm_wgmma")
np.testing.assert_array_equal(y.get(), kernels.conv2d(x, w, kernel="implicit_gemm_wgmma"))
source = implicit_gemm_wgmma.warpgroup_source
label, code = nvrtc_code(source.path)
program = nvrtc.createProgram(code, label, (), ())
refused = (
    (cupy.cuda.compiler.CompileException, lambda: cupy.RawModule(code=code).compile()),
    (TypeError, lambda: cupy.RawModule(code=code, path="a.cubin")),
    (RuntimeError, lambda: nvrtc.getCUBIN(program)),
    (nvrtc.NVRTCError, lambda: nvrtc.compileProgram(program, ("-arch=sm_90",))),
    (KernelCompileError, lambda: source.kernel("none", cupy.asarray(x), COLUMNS=8)),
)
for error, call in refused:
    try:
        call()
    except error as said:
        print(type(said).__name__, said)
        continue
    raise SystemExit(f"not refused: {error}")
"""


def test_a_kernel_for_one_architecture_is_loaded_from_a_cubin():
    told = run("-c", FOR_ONE_ARCHITECTURE)
    assert re.search(r"KernelCompileError conv2d/implicit_gemm_wgmma.cu: NVRTC refused it", told)


AS_WRITTEN = """
import pathlib, sys, cupy, numpy as np
from kernels import source
folder, told = pathlib.Path(sys.argv[1]), []
(folder / "scale.cu").write_text('''
#include "factor.cuh"
extern "C" __global__ void scale(SCALAR* x) { x[threadIdx.x] *= FACTOR; }
''')
cupy.cuda.pace = lambda name, options: told.append(options) or 0.0
for factor in (2, 3, 2):
    (folder / "factor.cuh").write_text(f"#define FACTOR {factor}")
    source._on_gpu.cache_clear()  # as in a new process
    source._gpu_module.cache_clear()
    x = cupy.ones(4, np.float32)
    source.CudaSource(folder / "scale.cu").kernel("scale", like=x)((1,), (4,), (x,))
    assert x.get().tolist() == [factor] * 4, x.get()
    assert not any("ftz" in option for option in told[-1]), told[-1]
"""


def test_a_file_is_compiled_as_the_x_ray_does_and_anew_when_what_it_includes_has_changed(tmp_path):
    run("-c", AS_WRITTEN, tmp_path)


CAPTURE = """
import cupy, numpy as np
x = cupy.asarray(np.arange(4, dtype=np.float32))
stream = cupy.cuda.Stream(non_blocking=True)
def captured():
    stream.begin_capture()
    y = (x + 1) * 2
    x[...] = y[::-1]
    return stream.end_capture()
with stream:
    graph = captured()
    assert x.get().tolist() == [0, 1, 2, 3]  # nothing has happened yet
    graph.launch()
    assert x.get().tolist() == [8, 6, 4, 2]
    # The memory of y is anyone's by now, unless it came from a pool of the graph's own.
    others = [cupy.zeros(4, np.float32) for _ in range(3)]
    graph.launch()
    assert any(other.any() for other in others)
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        graph = captured()
    others = [cupy.zeros(4, np.float32) for _ in range(3)]
    graph.launch()
    assert not any(other.any() for other in others)
    del pool
    try:
        graph.launch()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        assert "cudaErrorIllegalAddress" in str(error)
    else:
        raise SystemExit("memory that was given back was used")
    for refused in (
        lambda: x.get(), lambda: float(x[0]), lambda: bool(x.any()), lambda: x.set(np.ones(4, "f")),
        lambda: cupy.asarray(np.ones(3)), lambda: x.nonzero(), lambda: x @ x,
        lambda: cupy.matmul(x, x), lambda: graph.launch(), lambda: stream.begin_capture(),
        lambda: stream.synchronize(), lambda: stream.wait_event(before),
    ):
        before = stream.record()
        stream.begin_capture()
        try:
            refused()
        except (RuntimeError, NotImplementedError):
            called_off = not stream.is_capturing()
        else:
            raise SystemExit("not refused")
        try:
            stream.end_capture()
        except cupy.cuda.runtime.CUDARuntimeError:
            assert called_off
        else:
            assert not called_off
# Another stream's work is recorded as a branch, happens as late as it may, and must be waited for.
aside, log = cupy.cuda.Stream(non_blocking=True), cupy.zeros(4, np.float32)
def forked(joins):
    first, last = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
    stream.begin_capture()
    x.fill(1)
    first.record(stream)
    aside.wait_event(first)
    with aside:
        log[...] = x
        last.record(aside)
    x.fill(2)
    if joins:
        stream.wait_event(last)
    x.fill(3)
    return stream.end_capture()
with stream:
    graph = forked(True)
    assert not log.get().any()
    graph.launch()
    assert log.get().tolist() == [2] * 4 and x.get().tolist() == [3] * 4
    try:
        forked(False)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        assert "Unjoined" in str(error)
    else:
        raise SystemExit("nobody waited for a branch")
try:
    cupy.cuda.Stream.null.begin_capture()
except RuntimeError:
    raise SystemExit(0)
raise SystemExit("captured the default stream")
"""


def test_the_doubles_captures_are_strict():
    run("-c", CAPTURE)


SLOW_HOST = """
import time
from profiling.clock_gpu import GpuClock
from profiling.timing import Subject
clock, spins = GpuClock(), []
clock._clock._spin = lambda grid, block, args: spins.append(int(args[0]))
for seconds in (300e-6, 4e-3):  # short enough for several in a sample, and too long for that
    subject = Subject("slow", lambda _: time.sleep(seconds), capturable=False)
    clock.prepare(subject)
    clock.samples(subject, "hot")
    _, launches = clock.method(subject, "hot")
    assert spins[-1] >= launches * seconds * 1e9, (spins[-1], launches)
"""


def test_the_gpu_waits_for_a_host_that_takes_long_to_launch():
    run("-c", SLOW_HOST)


PUBLIC_FACE = """
import cupy, numpy as np, kernels
from kernels import table
rng = np.random.default_rng(0)
host = rng.standard_normal((2, 3, 9, 8), dtype=np.float32)
filters = rng.standard_normal((4, 3, 3, 2), dtype=np.float32)
square = rng.standard_normal((4, 3, 3, 3), dtype=np.float32)
bias = rng.standard_normal(4, dtype=np.float32)
x, b = map(cupy.asarray, (host, bias))
def same(got, want):
    assert type(got) is cupy.ndarray
    np.testing.assert_allclose(got.get(), want, rtol=1e-4, atol=1e-4)
# Numba's launches go past CuPy, to the driver: the double knows nothing of them.
# A row that rounds its factors has a wider bound, which `check` knows.
rows = [row for row in table.rows("conv2d") if row.language == "cuda_c"]
in_c = [row.name for row in rows if not row.roundoff]
for name in ["auto", *in_c]:
    # Winograd's take 3x3 filters with stride 1.
    taps, stride = (square, 1) if name == "winograd" else (filters, 2)
    w = cupy.asarray(taps)
    how = {"stride": stride, "padding": "same", "kernel": name}
    judge = {**how, "kernel": "reference"}
    y = kernels.conv2d(x, w, b, **how)
    same(y, kernels.conv2d(host, taps, bias, **judge))
    dx = kernels.conv2d_backward_data(y, w, x.shape, **how)
    same(dx, kernels.conv2d_backward_data(y.get(), taps, x.shape, **judge))
    dw = kernels.conv2d_backward_filter(x, y, w.shape, **how)
    same(dw, kernels.conv2d_backward_filter(host, y.get(), w.shape, **judge))
    same(kernels.conv2d_backward_bias(y, kernel=name), y.get().sum(axis=(0, 2, 3)))
# A layer with work enough that the kernels are compiled for it.
xs, ws = cupy.asarray(np.tile(host, (1, 1, 3, 9))), cupy.asarray(np.tile(filters, (8, 1, 1, 1)))
y, argmax = kernels.conv2d_relu_pool(xs, ws, kernel="fused", return_argmax=True)
same(y, kernels.conv2d_relu_pool(xs.get(), ws.get(), kernel="reference"))
dx = kernels.conv2d_relu_pool_backward_data(y, argmax, ws, xs.shape, kernel="fused")
same(dx, kernels.conv2d_relu_pool_backward_data(
    y.get(), argmax.get(), ws.get(), xs.shape, kernel="reference"))
dw = kernels.conv2d_relu_pool_backward_filter(xs, y, argmax, ws.shape, kernel="fused")
same(dw / 1000, kernels.conv2d_relu_pool_backward_filter(
    xs.get(), y.get(), argmax.get(), ws.shape, kernel="reference") / 1000)
same(kernels.conv2d_relu_pool_backward_bias(y, argmax, kernel="fused"),
     y.get().sum(axis=(0, 2, 3)))
y, argmax = kernels.max_pool2d(x, return_argmax=True)
same(y, kernels.max_pool2d(host, kernel="reference"))
same(kernels.max_pool2d_backward(y, argmax, x.shape),
     kernels.max_pool2d_backward(y.get(), argmax.get(), x.shape, kernel="reference"))
y = kernels.avg_pool2d(x, 3, padding=1)
same(y, kernels.avg_pool2d(host, 3, padding=1, kernel="reference"))
same(kernels.avg_pool2d_backward(y, x.shape, 3, padding=1),
     kernels.avg_pool2d_backward(y.get(), x.shape, 3, padding=1, kernel="reference"))
assert kernels.conv2d(x[:0], cupy.asarray(filters)).shape == (0, 4, 7, 7)
"""


def test_the_public_face_on_device_arrays():
    run("-c", PUBLIC_FACE)


def test_the_check_command_on_the_gpu_path():
    records = json.loads(
        run("-m", "kernels", "check", "naive", "--place", "gpu", "--shapes", "0", "--json")
    )
    assert records
    assert all(record["ok"] and record["place"] == "gpu" for record in records)


def test_lenet_trains_on_the_gpu_path(tmp_path):
    run(
        "-c",
        "import lenet, numpy as np\n"
        "d = lenet.load_data()\n"
        "def losses(device, conv, pool):\n"
        "    return lenet.train_steps(d.train_images, d.train_labels, 3, device=device,\n"
        "        conv=conv, pool=pool, batch_size=8).losses\n"
        "np.testing.assert_allclose(losses('gpu', 'auto', 'auto'), losses('cpu', 'cpu', 'cpu'),\n"
        "    rtol=1e-4)\n",
    )


GRAPH = """
import cupy, numpy as np
from kernels.training import nesterov_sgd, softmax_cross_entropy
from lenet import loss, optim, products
rng = np.random.default_rng(0)
x, w = rng.standard_normal((20, 7), np.float32), rng.standard_normal((7, 5), np.float32)
labels, rates = rng.integers(0, 5, 20), np.array([0.3, 0.2, 0.1], np.float32)
on_gpu = [cupy.asarray(a) for a in (x, w, np.zeros(35, np.float32), labels, rates)]
gx, gw, velocity, glabels, grates = on_gpu
logits, dlogits, dw = (cupy.empty(s, np.float32) for s in ((20, 5), (20, 5), (7, 5)))
losses, hits = cupy.zeros(3, np.float32), cupy.zeros(3, np.int32)
step, ticket = cupy.zeros(1, np.int32), cupy.zeros(1, np.uint32)
scratch = softmax_cross_entropy.scratch(logits)
def train():
    products.matmul(gx, gw, out=logits)
    softmax_cross_entropy.launch(logits, glabels, dlogits, losses, hits, scratch, step)
    products.matmul(gx.T, dlogits, out=dw)
    flat = gw.reshape(-1), dw.reshape(-1), velocity
    nesterov_sgd.launch(*flat, grates, 0.9, 0.01, step, ticket)
products.matmul(gx, gw, out=logits)  # the first product makes the handle, which no graph can hold
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    stream.begin_capture()
    train()
    graph = stream.end_capture()
assert step.get()[0] == 0, "captured, not run"
for _ in range(3):
    graph.launch()
weights, gradient = w.astype(float).reshape(-1), np.empty(35)
sgd = optim.NesterovSGD(weights, gradient, 0.9, 0.01)
for number in range(3):
    want, dz = loss.softmax_cross_entropy(x @ weights.reshape(7, 5), labels)
    np.testing.assert_allclose(losses.get()[number], want, rtol=1e-5)
    gradient[...] = (x.T @ dz).reshape(-1)
    sgd.step(rates[number])
np.testing.assert_allclose(gw.get().reshape(-1), weights, rtol=1e-4, atol=1e-5)
assert step.get()[0] == 3 and ticket.get()[0] == 0
for refused in (
    lambda: products.matmul(gx[:, ::2], gw[::2], out=logits),
    lambda: products.matmul(gx, gw, out=cupy.empty((5, 20), np.float32).T),
):
    try:
        refused()
    except ValueError as error:
        assert "contiguous" in str(error)
        continue
    raise SystemExit("not refused")
"""


def test_a_training_step_as_a_graph():
    run("-c", GRAPH)


@pytest.mark.slow
def test_verify_end_to_end_and_never_as_a_gpu(tmp_path):
    run(
        "-m", "profiling", "verify", "--place", "gpu", "--no-tests", "--random-shapes", "0",
        "--steps", "2", "--target-accuracy", "0", "--results", tmp_path,
    )  # fmt: skip
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert record["ok"]
    assert record["place"] == "test double"
    assert all(p["passed"] for k in record["kernels"] for p in k["passes"].values())
    assert verified.load(tmp_path) == []
