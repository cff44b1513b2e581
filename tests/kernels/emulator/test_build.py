"""Compiling: errors, the cache, several processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels import emulator

TINY = 'extern "C" __global__ void set(int* out) { out[threadIdx.x] = VALUE; }\n'
USE = (
    "import sys, numpy as np\n"
    "from kernels import emulator\n"
    "out = np.zeros(4, np.int32)\n"
    "emulator.load(sys.argv[1], defines={'VALUE': 7}).get_function('set')((1,), (4,), (out,))\n"
    "assert list(out) == [7] * 4\n"
)


def run(source, cache, **environment):
    return subprocess.run(
        [sys.executable, "-c", USE, str(source)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "CONV_KERNEL_LAB_CACHE": str(cache), **environment},
    )


@pytest.fixture
def tiny(tmp_path):
    source = tmp_path / "tiny.cu"
    source.write_text(TINY)
    return source


def broken(tmp_path, text):
    source = tmp_path / "broken.cu"
    source.write_text(text)
    with pytest.raises(emulator.CompileError) as told:
        emulator.load(source)
    assert "/tmp" not in str(told.value)
    return str(told.value)


def test_an_error_names_file_and_line(tmp_path):
    text = broken(tmp_path, '\nextern "C" __global__ void f(int* x) {\n  x[0] = oops;\n}\n')
    assert text.startswith("broken.cu:3: ")
    assert "'oops' was not declared" in text or "undeclared identifier 'oops'" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#include <mma.h>\n", r"broken.cu:1: the emulator does not support tensor cores"),
        ("\n#include <cooperative_groups.h>\n", r"broken.cu:2: .*cooperative groups"),
        ("\n__device__ void f() { asm(\"bar.sync 0;\"); }\n", "broken.cu:2: .*inline PTX"),
        ("__global__ void f(float* y) { y[0] = tex2D<int>(1, 0); }\n", "broken.cu:1: .*textures"),
        ("__device__ int f() { return 1; }\n", "broken.cu: there is no kernel in it"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(tmp_path, text, expected):
    assert re.match(expected, broken(tmp_path, text))


def test_undefined_device_function(tmp_path):
    text = broken(
        tmp_path,
        '__device__ int gone(int);\nextern "C" __global__ void f(int* x) { x[0] = gone(1); }\n',
    )
    assert "gone" in text
    assert "nowhere defined" in text


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        emulator.load(tmp_path / "absent.cu")


def test_no_compiler(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        emulator.CompilerNotFound, match=r"no C\+\+ compiler was found.*apt install"
    ):
        emulator.load(tiny, defines={"VALUE": 1})
    monkeypatch.setenv("CXX", "absent-c++")
    with pytest.raises(emulator.CompilerNotFound, match="CXX names 'absent-c"):
        emulator.load(tiny, defines={"VALUE": 1})


def test_defines_and_edits_make_other_modules(tiny, tmp_path):
    def result(value):
        out = np.zeros(2, np.int32)
        module = emulator.load(tiny, defines={"VALUE": value}, include_dirs=[tmp_path / "include"])
        module.get_function("set")((1,), (2,), (out,))
        return out[0], module

    (tmp_path / "include").mkdir()
    header = tmp_path / "include" / "more.cuh"
    header.write_text("#define EXTRA 100\n")
    tiny.write_text("#include <more.cuh>\n" + TINY.replace("VALUE", "VALUE + EXTRA"))
    value, module = result(3)
    assert value == 103
    assert result(3)[1] is module
    header.write_text("#define EXTRA 200\n")
    assert result(3)[0] == 203


@pytest.mark.slow
def test_processes_that_build_at_once_and_a_damaged_entry(tiny, tmp_path):
    cache = tmp_path / "cache"
    arguments = [sys.executable, "-c", USE, str(tiny)]
    environment = {**os.environ, "CONV_KERNEL_LAB_CACHE": str(cache)}
    processes = [subprocess.Popen(arguments, env=environment) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    entries = sorted(cache.iterdir())
    assert len(entries) == 2  # the runtime and the kernel file, and nothing half-made

    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:1000])
    assert run(tiny, cache).returncode == 0
    before = [entry.stat().st_mtime_ns for entry in entries]
    assert run(tiny, cache, PATH_IS_THE_SAME="1").returncode == 0
    assert [entry.stat().st_mtime_ns for entry in entries] == before


def test_a_cache_that_cannot_be_written(tiny, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    done = run(tiny, blocked / "cache")
    assert done.returncode == 0, done.stderr


WILD = 'extern "C" __global__ void add(int* out) {\n    atomicAdd(out + (1ll << 44), 1);\n}\n'
FAULT = (
    "import sys, numpy as np\n"
    "from kernels import emulator\n"
    "add = emulator.load(sys.argv[1], traced=True).get_function('add')\n"
    "add((1,), (1,), (np.zeros(1, np.int32),))\n"
)


@pytest.mark.skipif(not shutil.which("addr2line"), reason="addresses stay without a line")
def test_two_checkouts_with_one_cache_both_tell_the_kernels_line(tmp_path):
    ours, other = Path(__file__).parents[3], tmp_path / "other"
    shutil.copytree(ours / "kernels", other / "kernels")
    (tmp_path / "link").symlink_to(other)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache-link").symlink_to(tmp_path / "cache")
    source = tmp_path / "wild.cu"
    source.write_text(WILD)
    for root in (tmp_path / "link", ours):
        done = subprocess.run(
            [sys.executable, "-c", FAULT, str(source)],
            capture_output=True,
            text=True,
            cwd=root,
            timeout=60,
            env={
                **os.environ,
                "CONV_KERNEL_LAB_CACHE": str(tmp_path / "cache-link"),
                "PYTHONPATH": str(root),
            },
        )
        assert done.stderr.endswith(" at wild.cu:2\n"), done.stderr


def test_benchmark_command():
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "kernels.emulator", "--size", "24", "--json"],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ratio"] == pytest.approx(
        result["simulator_seconds"] / result["emulator_seconds"]
    )
