"""The switch between GPU and simulator, and what a kernel is compiled from."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import types

import numba
import numpy as np
import pytest

import kernels
from kernels import numba_cuda, table
from kernels.conv2d import naive_numba, tiled_numba
from kernels.pool2d import max_numba
from kernels.shapes import Conv2dShape, PoolShape
from kernels.source import KernelCompileError

PTX = pytest.mark.skipif(numba_cuda.ptx_problem() is not None, reason=str(numba_cuda.ptx_problem()))
X = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4)


@PTX
def test_one_process_simulates_and_compiles_and_runs_njit():
    want = kernels.max_pool2d(X, kernel="cpu")  # numba is imported and used already
    np.testing.assert_array_equal(kernels.max_pool2d(X, kernel="max_numba"), want)
    assert ".entry" in max_numba.source.ptx("max_pool2d_forward", "float32", (9, 0))
    np.testing.assert_array_equal(kernels.max_pool2d(X, kernel="max_numba"), want)


SWITCHED = """
import numpy as np, kernels
from kernels.pool2d import max_numba
x = np.ones((1, 1, 4, 4), np.float32)
assert kernels.max_pool2d(x, kernel="max_numba").sum() == 4
w = np.ones((1, 1, 3, 3), np.float32)
assert kernels.conv2d(x, w, kernel="tiled_numba").sum() == 36
class OnGpu:
    dtype = x.dtype
for ask in (
    lambda: max_numba.source.kernel("max_pool2d_forward", like=OnGpu()),
    lambda: max_numba.source.ptx("max_pool2d_forward", "float32", (9, 0)),
):
    try:
        ask()
    except RuntimeError as error:
        print(error)
"""


def test_a_process_switched_to_the_simulator_says_that_it_cannot_reach_a_gpu():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SWITCHED],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    gpu, ptx = done.stdout.splitlines()
    assert gpu.startswith("max_pool2d_forward: got a CuPy array but NUMBA_ENABLE_CUDASIM=1 has")
    assert "start another without that variable" in gpu
    assert "cannot be compiled: NUMBA_ENABLE_CUDASIM=1" in ptx


def test_arrays_are_launched_with_the_types_that_were_compiled():
    conv = Conv2dShape.of((1, 1, 4, 4), (1, 1, 3, 3))
    pool = PoolShape.of((1, 1, 4, 4))
    signature = naive_numba.source.signature("conv2d_naive_forward", "float64")
    assert signature.types == (numba.float64[::1],) * 4 + (
        numba.typeof(numba_cuda._in_32_bits(conv)),
    )
    x, y, argmax, shape = max_numba.source.signature("max_pool2d_forward", "float32").types
    assert x == y == numba.typeof(X.reshape(-1))
    assert argmax == numba.typeof(np.zeros(3, np.int32))
    assert shape == numba.typeof(numba_cuda._in_32_bits(pool))
    assert tiled_numba.source.signature("conv2d_tiled_forward", "float32").types[-1] == (
        numba.typeof(np.int32(3))
    )


def test_a_small_grid_is_launched_without_a_warning(monkeypatch):
    stream = types.SimpleNamespace(ptr=0)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(get_current_stream=lambda: stream))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(numba_cuda.cuda, "external_stream", lambda ptr: ptr)
    monkeypatch.setattr(numba_cuda.cuda, "as_cuda_array", lambda array, sync: array)
    launched = []
    jitted = max_numba.source.namespace("float32", ())["max_pool2d_forward"]
    monkeypatch.setattr(
        type(jitted), "call", lambda self, args, how: launched.append((how.griddim, len(args)))
    )
    pool = PoolShape.of((1, 1, 4, 4), 2)
    numba_cuda._launch_on_gpu(jitted, (1,), (256,), (X, X, None, pool))
    assert launched == [((1, 1, 1), 4)]
    with pytest.warns(Warning, match="Grid size 1 "):  # of others' it still says so
        jitted[1, 256]


def test_every_row_gives_its_sources():
    for row in table.rows():
        if row.language == "numba" and "gpu" in row.places:
            found = numba_cuda.sources(row)
            assert found, row.name
            assert all(source.kernels() for source in found)


def test_the_cache_knows_the_file_the_type_and_the_tile(tmp_path):
    file = tmp_path / "kernel.py"
    file.write_text("1")
    keys = [repr(("f", dtype, tile)) for dtype in ("float32", "float64") for tile in (8, 16)]
    digests = {numba_cuda._digest(file, key) for key in keys}
    numba_cuda._digest.cache_clear()
    file.write_text("2")
    digests |= {numba_cuda._digest(file, key) for key in keys}
    assert len(digests) == 8
    jitted = tiled_numba.source.namespace("float32", ())["conv2d_tiled_forward"]
    before = numba.config.CACHE_DIR
    with numba_cuda._cached_below("some-digest"):
        jitted.enable_caching()
    assert "some-digest" in jitted._cache.cache_path
    assert before == numba.config.CACHE_DIR


@PTX
def test_a_kernel_that_numba_refuses_is_named_with_its_file(tmp_path, monkeypatch):
    (tmp_path / "wrong_numba.py").write_text(
        "from __future__ import annotations\n"
        "from numba import cuda\n"
        "from kernels.index_numba import Scalars\n"
        "from kernels.numba_cuda import NumbaSource\n"
        "source = NumbaSource(__name__)\n"
        "@cuda.jit\n"
        "def wrong(x: Scalars) -> None:\n"
        "    x[0] = no_such_name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import wrong_numba

    with pytest.raises(KernelCompileError, match=r"wrong_numba.py: Numba refused wrong:"):
        wrong_numba.source.ptx("wrong", "float32", (9, 0))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "seen"), [(Terminal(), True), (io.StringIO(), False)])
def test_a_terminal_sees_what_takes_long(terminal, seen, monkeypatch):
    monkeypatch.setattr(numba_cuda, "SLOW_COMPILATION", 0.0)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with numba_cuda._spinner("compiling something"):
        time.sleep(0.3)
    assert ("compiling something" in terminal.getvalue()) == seen


WITHOUT_NUMBA_CUDA = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__module__ != "_numba_cuda_redirector"]
try:
    import kernels.numba_cuda
except ImportError as error:
    print(error)
"""


def test_the_deprecated_target_inside_numba_is_refused():
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_NUMBA_CUDA]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "expected NVIDIA's: pip install numba-cuda" in done.stdout, done.stderr
