"""`python -m profiling doctor`: the command, its probes' isolation, and what runs without a GPU."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kernels import emulator
from kernels.emulator.cache import cache_directory
from profiling import doctor, doctor_host
from profiling.doctor_probe import Finding, Probe, ask

ROOT = Path(__file__).parents[2]


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "profiling", "doctor", *options],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


# The command.


def test_without_a_gpu_it_says_so_and_the_lab_works():
    done = run(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert re.match("The emulator and the CPU kernels work; no GPU", lines[-1])
    for group in doctor.GROUPS:
        assert group in lines
    for i, line in enumerate(lines):
        if re.match(r"  (missing|broken|note) ", line):
            assert re.match(r" {20,}> \S", lines[i + 1]), f"no line mends: {line}"
        elif line.startswith("  OK "):
            assert not re.match(r" *>", lines[i + 1])


def test_require_gpu_and_json_with_a_compiler_that_fails(tmp_path):
    broken = script(tmp_path / "c++", "case $1 in --version) echo fake 1.0;; *) exit 1;; esac")
    done = run("--json", "--require-gpu", CUDA_VISIBLE_DEVICES="", CXX=str(broken))
    assert done.returncode == 1
    assert done.stderr == "doctor: --require-gpu, and no GPU works here\n"
    record = json.loads(done.stdout)
    assert (record["ok"], record["gpu"]) == (False, False)
    assert record["sentence"] == "The CPU kernels work; mend this first: emulator."
    found = {finding["name"]: finding for finding in record["findings"]}
    assert found["C++ compiler"]["found"] == f"{broken}: fake 1.0"
    assert found["emulator"]["status"] == "broken"
    assert found["emulator"]["mend"].startswith("unset CXX")
    assert found["Numba"]["status"] == "OK"
    assert found["Numba"]["group"] == "without a GPU"


def test_an_unknown_option_is_bad_usage():
    assert run("--gpu-please").returncode == 2


def test_the_table_is_the_same_without_rich(monkeypatch, capsys):
    findings = [Finding("nsys", "missing", "[not] found", "apt install x"), Finding("b", "OK", "1")]
    table = {"profilers": findings, "GPU": []}
    verdict = doctor.Verdict(True, False, "All is well.")
    doctor._print(table, verdict)
    by_rich = capsys.readouterr().out
    monkeypatch.setattr(doctor, "_has_rich", lambda: False)
    doctor._print(table, verdict)
    assert capsys.readouterr().out == by_rich
    assert "  missing  nsys  [not] found\n                 > apt install x\n  OK" in by_rich
    assert by_rich.endswith("\nAll is well.\n")


# The verdict.

ON_HOST = {"Python": "OK", "NumPy": "OK", "Numba": "OK", "C++ compiler": "OK", "emulator": "OK"}
ON_GPU = {"driver": "OK", "device": "OK", "CuPy": "OK", "CUDA C on the GPU": "OK", "cuBLAS": "OK"}
DOUBLE = {"driver": "missing", "CuPy": "note", "CUDA C on the GPU": "note", "cuBLAS": "note"}
NO_COMPILER = {"C++ compiler": "missing", "emulator": "missing"}


@pytest.mark.parametrize(
    ("status", "ok", "gpu", "words"),
    [
        (ON_HOST, True, False, "The emulator and the CPU kernels work; no GPU (none here)"),
        (ON_HOST | ON_GPU, True, True, "The emulator, the CPU kernels and the GPU work: "),
        (
            ON_HOST | {"load": "note", "ncu": "broken", "driver": "missing"},
            True,
            False,
            "none here",
        ),
        (ON_HOST | DOUBLE, True, False, "no GPU (none here)"),
        (ON_HOST | {"device": "OK", "CuPy": "missing"}, True, False, "CuPy does not reach it"),
        (ON_HOST | ON_GPU | {"CuPy": "broken", "cuBLAS": "broken"}, False, False, "cuBLAS, CuPy."),
        (ON_HOST | ON_GPU | {"Numba on the GPU": "broken"}, False, True, "Numba on the GPU."),
        (ON_HOST | {"driver": "broken"}, False, False, "work; mend this first: driver."),
        (ON_HOST | NO_COMPILER, False, False, "The CPU kernels work; mend this first: C++ comp"),
        (ON_HOST | NO_COMPILER | ON_GPU, True, True, "The CPU kernels and the GPU work: "),
        (
            ON_HOST | {"Numba": "missing"},
            False,
            False,
            "The emulator works; mend this first: Numba",
        ),
        (
            {},
            False,
            False,
            "Nothing works here; mend this first: Python, NumPy, Numba, C++ compiler",
        ),
    ],
)
def test_the_verdict(status, ok, gpu, words):
    verdict = doctor.judge([Finding(name, what, "") for name, what in status.items()])
    assert (verdict.ok, verdict.gpu) == (ok, gpu)
    assert words in verdict.sentence


# A probe may crash, hang, raise and print.

ILL = """
import ctypes, pathlib, subprocess, sys, time
from profiling.doctor_probe import Finding

def crashes():
    ctypes.string_at(0)

def hangs():
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path(__file__).with_name("child").write_text(str(child.pid))
    time.sleep(600)

def raises():
    raise OSError("no such luck")

def lacks():
    import no_such_module

def leaves():
    sys.exit(3)

def prints():
    print("a library says hello")
    subprocess.run(["echo", "and so does another"])
    return [Finding("talkative", "OK", "done")]
"""


def test_the_others_go_on(tmp_path, monkeypatch):
    (tmp_path / "ill.py").write_text(ILL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    wanted = {
        "crashes": ("broken", "the process died of SIGSEGV"),
        "hangs": ("broken", "no answer within 3 s"),
        "raises": ("broken", "OSError: no such luck"),
        "lacks": ("missing", "ModuleNotFoundError: No module named 'no_such_module'"),
        "leaves": ("broken", "the process ended with status 3"),
    }
    probes = [
        Probe("g", name, f"ill:{name}", f"mend {name}", limit_s=3 if name == "hangs" else 60)
        for name in wanted
    ]
    *answers, last = ask([*probes, Probe("g", "prints", "ill:prints", "mend")])
    for (name, (status, found)), answer in zip(wanted.items(), answers, strict=True):
        assert answer == [Finding(name, status, found, f"mend {name}")]
    assert last == [Finding("talkative", "OK", "done")]
    assert ended((tmp_path / "child").read_text())


def ended(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"  # where nobody asks how it ended


def test_an_interrupt_ends_the_probes_at_once(tmp_path):
    (tmp_path / "ill.py").write_text(ILL)
    code = "from profiling.doctor_probe import *; ask([Probe('g', 'n', 'ill:hangs', '', 60)])"
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in said
    assert ended((tmp_path / "child").read_text())


# Without a GPU.


def test_the_packages_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert set(doctor_host.PACKAGES.values()) == named - {"numpy", "numba"}


def test_a_missing_package_is_named_as_pip_knows_it(monkeypatch):
    find = doctor_host.importlib.util.find_spec
    absent = ("pynvml", "PIL", "nvtx")
    monkeypatch.setattr(
        doctor_host.importlib.util,
        "find_spec",
        lambda name: None if name in absent else find(name),
    )
    interpreter, packages = doctor_host.python()
    assert interpreter.status == "OK"
    assert packages.status == "missing"
    assert packages.mend == "pip install pillow nvtx nvidia-ml-py"


def test_an_old_python_is_broken(monkeypatch):
    monkeypatch.setattr(doctor_host.prerequisites, "python_problem", lambda: "too old")
    interpreter = doctor_host.python()[0]
    assert interpreter.status == "broken"
    assert interpreter.mend == "make PYTHON=python3.12 test"


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler, line = doctor_host.emulator()
    assert compiler == Finding(
        "C++ compiler", "missing", "no C++ compiler was found", "apt install g++"
    )
    assert (line.status, line.mend) == ("missing", "apt install g++")


def test_a_compiler_without_a_version_is_broken(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", str(script(tmp_path / "c++", "exit 1")))
    compiler, _ = doctor_host.emulator()
    assert compiler.status == "broken"
    assert compiler.mend.startswith("unset CXX")


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_the_emulator_is_compiled_even_where_it_is_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("CONV_KERNEL_LAB_CACHE", str(tmp_path))
    compiler, line, cache = doctor_host.emulator()
    assert (compiler.status, line.status, cache.status) == ("OK", "OK", "OK")
    assert cache.found.startswith(f"{tmp_path}, ")
    assert not list(tmp_path.iterdir())  # neither read nor left there
    assert os.environ["CONV_KERNEL_LAB_CACHE"] == str(tmp_path)


def test_a_cache_without_permission_or_room(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("CONV_KERNEL_LAB_CACHE", str(file / "below"))  # root may not write there
    line = doctor_host._cache(cache_directory())
    assert line.status == "note"
    assert line.mend.startswith("export CONV_KERNEL_LAB_CACHE=")
    monkeypatch.setattr(doctor_host, "LEAST_DISK", 1 << 80)
    full = doctor_host._cache(tmp_path)
    assert (full.status, full.mend) == ("note", f"rm -r {tmp_path}")


def test_the_simulator_switch_is_noted(monkeypatch):
    pytest.importorskip("numba_cuda")
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    (line,) = doctor_host.ptx()
    assert (line.status, line.mend) == ("note", "unset NUMBA_ENABLE_CUDASIM")


def test_nvrtc_that_is_not_installed(monkeypatch):
    from kernels import resources

    def absent():
        raise resources.NvrtcMissingError("cuda-bindings is not installed (do this)")

    monkeypatch.setattr(resources, "architectures", absent)
    (line,) = doctor_host.nvrtc()
    assert line.status == "missing"
    assert line.found == "cuda-bindings is not installed"
    assert "conv-kernel-lab[test]" in line.mend
