"""Kernels that end badly end the launch, say where, and leave the process sound."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kernels import emulator

SOURCE = Path(__file__).with_name("faults.cu")
needs_addr2line = pytest.mark.skipif(
    not any((Path(p) / "addr2line").exists() for p in os.environ["PATH"].split(":")),
    reason="addr2line is not installed: addresses stay without a line",
)


def line(mark):
    lines = SOURCE.read_text().splitlines()
    return next(n for n, text in enumerate(lines, 1) if text.endswith(f"MARK {mark}"))


@pytest.fixture(autouse=True)
def still_sound(faults):
    yield
    out = np.zeros(32, np.int32)
    faults.get_function("fine")((4,), (32,), (out,))
    np.testing.assert_array_equal(out, np.arange(32)[::-1])


def out():
    return np.zeros(64, np.int32)


def test_barrier_that_some_never_reach(faults, any_order):
    with pytest.raises(emulator.BarrierDivergence) as told:
        faults.get_function("some_return")((1, 1), (32,), (out(),))
    assert re.fullmatch(
        r"some_return: block \(0, 0, 0\): 16 of 32 threads arrived at the __syncthreads at "
        rf"faults.cu:{line('returned')}; thread \(16, 0, 0\) has returned",
        str(told.value),
    )


def test_barriers_on_two_lines(faults, any_order):
    with pytest.raises(emulator.BarrierDivergence) as told:
        faults.get_function("two_lines")((1,), (32,), (out(),))
    text = str(told.value)
    assert f"faults.cu:{line('five')}" in text
    assert f"faults.cu:{line('others')}" in text
    assert "(5, 0, 0)" in text or "31 of 32 threads" in text or "1 of 32 threads" in text


@needs_addr2line
def test_endless_loop(faults):
    flag = np.zeros(1, np.int32)
    start = time.monotonic()
    with (
        pytest.raises(emulator.KernelTimeout) as told,
        emulator.settings(time_limit=0.3),
    ):
        faults.get_function("endless")((3,), (8,), (flag,))
    assert time.monotonic() - start < 5
    assert str(told.value) == (
        "endless: block (1, 0, 0), thread (2, 0, 0): still running after the time limit of 0.3 s "
        f"at faults.cu:{line('endless')}"
    )


@needs_addr2line
@pytest.mark.parametrize("traced", [False, True])
def test_endless_loop_in_our_headers_is_told_by_the_kernels_line(faults, traced):
    kernel = emulator.load(SOURCE, traced=traced).get_function("counts")
    with (
        emulator.settings(time_limit=0.3),
        pytest.raises(emulator.KernelTimeout, match=f" at faults.cu:{line('counts')}$"),
    ):
        kernel((1,), (1,), (out(), np.int32(1)))


@needs_addr2line
def test_wild_pointer(faults):
    with pytest.raises(emulator.IllegalAddress) as told:
        faults.get_function("wild")((1,), (8,), (out(),))
    assert re.fullmatch(
        r"wild: block \(0, 0, 0\), thread \(3, 0, 0\): illegal memory access at address 0x\w+ "
        rf"at faults.cu:{line('wild')}",
        str(told.value),
    )


@needs_addr2line
def test_wild_pointer_given_to_the_c_library(faults):
    with pytest.raises(emulator.IllegalAddress, match=rf"at faults.cu:{line('memset')}$"):
        faults.get_function("clears")((1,), (1,), (np.zeros(8, np.int8), np.int32(300)))


def test_null_pointer(faults):
    with pytest.raises(emulator.IllegalAddress, match=r"fine: .* at address (\(nil\)|0x)"):
        faults.get_function("fine")((1,), (32,), (None,))


def test_division_by_zero(faults):
    with pytest.raises(emulator.EmulatorError, match="integer division by zero"):
        faults.get_function("divide")((1,), (1,), (out(), np.int32(0)))


def test_stack_overflow(faults):
    with pytest.raises(emulator.IllegalAddress, match="stack overflow"):
        faults.get_function("recursion")((1,), (1,), (out(),))


def test_trap_and_assert(faults):
    with pytest.raises(emulator.EmulatorError) as told:
        faults.get_function("trap")((1,), (2,), ())
    assert str(told.value) == (
        f"trap: block (0, 0, 0), thread (1, 0, 0): __trap() at faults.cu:{line('trap')}"
    )
    faults.get_function("asserts")((1,), (1,), (np.int32(4),))
    with pytest.raises(emulator.EmulatorError) as told:
        faults.get_function("asserts")((1,), (1,), (np.int32(3),))
    assert f"assertion `n > 3' failed at faults.cu:{line('assert')}" in str(told.value)


def test_printf(faults, capsys):
    with emulator.settings(workers=1):
        faults.get_function("prints")((2,), (2,), (np.float32(1.5),))
    assert capsys.readouterr().out == "".join(
        f"thread {thread} of block {block}: 1.50\n" for block in (0, 1) for thread in (0, 1)
    )


def test_ctrl_c(faults):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        faults.get_function("endless")((2,), (8,), (np.zeros(1, np.int32),))
    assert time.monotonic() - start < 5


def test_faults_outside_of_kernels_stay_faulthandlers(faults):
    code = (
        "import faulthandler, numpy as np; faulthandler.enable()\n"
        "from kernels import emulator\n"
        f"fn = emulator.load({str(SOURCE)!r}).get_function('fine')\n"
        "fn((1,), (32,), (np.zeros(32, np.int32),))\n"
        "faulthandler._sigsegv()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr


def test_a_forked_child_can_launch(faults):
    code = (
        "import os, sys, numpy as np\n"
        "from kernels import emulator\n"
        f"fn = emulator.load({str(SOURCE)!r}).get_function('fine')\n"
        "out = np.zeros(32, np.int32)\n"
        "fn((4,), (32,), (out,))\n"
        "child = os.fork()\n"
        "out[:] = 0\n"
        "fn((4,), (32,), (out,))\n"
        "right = list(out) == list(range(31, -1, -1))\n"
        "if not child: os._exit(0 if right else 1)\n"
        "sys.exit(os.waitpid(child, 0)[1] or not right)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
