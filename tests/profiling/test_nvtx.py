"""NVTX ranges reach a listener that comes in by NVTX's own door, as Nsight does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import emulator
from profiling import listener

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))


def heard(script: str, folder: Path, limit: int = 1 << 20, **more: str) -> list[dict]:
    """Run a script with the listener attached; return the lines that it wrote."""
    spool = folder / "spool"
    spool.touch()
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NVTX_INJECTION64_PATH": str(listener.build()),
        "CONV_KERNEL_LAB_TRACE": str(spool),
        "CONV_KERNEL_LAB_TRACE_LIMIT": str(limit),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in spool.read_bytes().splitlines()]


def shown(lines: list[dict]) -> list[tuple[str, str, str]]:
    return [(line["ph"], line["cat"], line["name"]) for line in lines]


OURS = """
import time
import numpy as np
import kernels
from kernels import ranges
with ranges.span("outer"):
    with ranges.span('a "b" \\\\ \\n é'):
        time.sleep(0.05)
x = np.ones((1, 1, 4, 4), np.float32)
kernels.conv2d(x, np.ones((1, 1, 3, 3), np.float32), kernel="reference")
"""


def test_the_labs_ranges_and_every_public_call_are_heard(tmp_path):
    lines = heard(OURS, tmp_path)
    domain = "conv-kernel-lab"
    assert shown(lines) == [
        ("B", domain, "outer"),
        ("B", domain, 'a "b" \\ \n é'),
        ("E", domain, ""),
        ("E", domain, ""),
        ("B", domain, "conv2d forward reference"),
        ("E", domain, ""),
    ]
    times = [line["ns"] for line in lines]
    assert times == sorted(times)
    assert 50e6 <= times[2] - times[1] < 500e6
    assert len({(line["pid"], line["tid"]) for line in lines}) == 1


OTHERS = """
import nvtx, threading
nvtx.push_range("plain"); nvtx.mark("here"); nvtx.pop_range()
first = nvtx.start_range("first", domain="d"); second = nvtx.start_range("second", domain="d")
nvtx.end_range(first); nvtx.end_range(second)
nvtx.push_range("one", domain="d"); nvtx.push_range("two", domain="e")
nvtx.pop_range(domain="d"); nvtx.pop_range(domain="e")
def work():
    with nvtx.annotate("in a thread", domain="d"): pass
thread = threading.Thread(target=work); thread.start(); thread.join()
"""


def test_other_libraries_domains_marks_and_process_ranges_are_heard(tmp_path):
    lines = heard(OTHERS, tmp_path)
    assert shown(lines) == [
        ("B", "NVTX", "plain"), ("i", "NVTX", "here"), ("E", "NVTX", ""),
        ("b", "d", "first"), ("b", "d", "second"), ("e", "d", ""), ("e", "d", ""),
        ("B", "d", "one"), ("B", "e", "two"), ("E", "d", ""), ("E", "e", ""),
        ("B", "d", "in a thread"), ("E", "d", ""),
    ]  # fmt: skip
    ids = [line["id"] for line in lines if line["ph"] in "be"]
    assert ids[0] == ids[2] != ids[1] == ids[3]
    assert lines[-1]["tid"] != lines[0]["tid"]


# The functions that C programs call, in plain and wide characters, filled in as NVTX does it.
AS_NVTX = """
import ctypes, os
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p, c_wchar_p
library = ctypes.CDLL(os.environ["NVTX_INJECTION64_PATH"])
tables = {}
for module, size in ((1, 16), (5, 16)):
    functions = (c_void_p * size)()
    slots = (c_void_p * (size + 1))()
    for i in range(1, size):
        slots[i] = ctypes.addressof(functions) + 8 * i
    tables[module] = functions, slots, size
@CFUNCTYPE(c_int, c_int, POINTER(c_void_p), POINTER(c_uint))
def get_table(module, out, size):
    out[0] = ctypes.addressof(tables[module][1])
    size[0] = tables[module][2]
    return 1
class Callbacks(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("get", type(get_table)))
callbacks = Callbacks(ctypes.sizeof(Callbacks), get_table)
@CFUNCTYPE(c_void_p, c_uint)
def export(which):
    return ctypes.addressof(callbacks) if which == 1 else None
assert library.InitializeInjectionNvtx2(export) == 1
core = tables[1][0]
push_a = CFUNCTYPE(c_int, c_char_p)(core[9])
push_w = CFUNCTYPE(c_int, c_wchar_p)(core[10])
pop = CFUNCTYPE(c_int)(core[11])
assert (push_a(b"plain"), push_w("wide \\u00e9 \\u20ac \\U0001f600"), pop(), pop()) == (0, 1, 1, 0)
assert pop() == -1
assert [push_a(b"deep") for _ in range(600)] == list(range(600))
assert [pop() for _ in range(600)] == list(reversed(range(600)))
"""


def test_the_c_functions_answer_with_the_level_and_write_utf8(tmp_path):
    lines = heard(AS_NVTX, tmp_path)
    assert [line["name"] for line in lines[:4]] == [
        "plain",
        "wide \u00e9 \u20ac \U0001f600",
        "",
        "",
    ]
    deep = lines[4:]  # past its depth the listener counts, and writes no half ranges
    assert [line["ph"] for line in deep] == ["B"] * (len(deep) // 2) + ["E"] * (len(deep) // 2)


FULL = """
import nvtx
with nvtx.annotate("outer"):
    for i in range(1000):
        with nvtx.annotate("inner"): pass
"""


def test_a_full_file_begins_nothing_more_ends_what_is_open_and_counts_the_rest(tmp_path):
    lines = heard(FULL, tmp_path, limit=2000)
    kinds = [line["ph"] for line in lines]
    written = kinds.count("B")
    assert written == kinds.count("E")
    assert 1 < written < 50
    assert next(line["name"] for line in lines if line["ph"] == "B") == "outer"
    assert [line["id"] for line in lines if line["ph"] == "dropped"][-1] == 1001 - written


def test_without_a_listener_nothing_is_written(tmp_path):
    assert heard(OURS, tmp_path, NVTX_INJECTION64_PATH="") == []
