import subprocess

import pytest

from profiling import prerequisites


@pytest.mark.parametrize(
    ("version", "extra"),
    [(None, ""), ((11, 8), ""), ((12, 0), "cuda12"), ((12, 9), "cuda12"), ((13, 1), "cuda13")],
)
def test_the_extra_follows_the_driver(version, extra, capsys):
    assert prerequisites.cuda_extra(version) == extra
    assert ("11.8" in capsys.readouterr().err) == (version == (11, 8))


def test_nvidia_smi_is_asked_where_the_library_is_not_found(monkeypatch):
    def absent(name):
        raise OSError(name)

    listing = b"| NVIDIA-SMI 580.1  Driver Version: 580.1  CUDA Version: 13.0 |"
    done = subprocess.CompletedProcess([], 0, listing)
    monkeypatch.setattr(prerequisites.ctypes, "CDLL", absent)
    monkeypatch.setattr(prerequisites.subprocess, "run", lambda *_, **__: done)
    assert prerequisites.driver_cuda_version() == (13, 0)
    monkeypatch.setattr(prerequisites.subprocess, "run", absent_command)
    assert prerequisites.driver_cuda_version() is None


def absent_command(*_, **__):
    raise FileNotFoundError


@pytest.mark.parametrize(
    ("version", "word"), [((3, 10), "too old"), ((3, 11), None), ((3, 14), None), ((3, 15), "new")]
)
def test_python_too_old_or_too_new(version, word):
    problem = prerequisites.python_problem(version)
    assert problem is None if word is None else word in problem


def test_no_ensurepip_names_the_package(monkeypatch):
    find = prerequisites.importlib.util.find_spec
    monkeypatch.setattr(
        prerequisites.importlib.util,
        "find_spec",
        lambda name: None if name == "ensurepip" else find(name),
    )
    assert "apt install python3-venv" in prerequisites.venv_problem()


def test_no_compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(prerequisites.shutil, "which", lambda name: None)
    assert "apt install g++" in prerequisites.compiler_problem()
    monkeypatch.setenv("CXX", "my-c++")
    assert prerequisites.compiler_problem() == "CXX=my-c++: no such compiler on the PATH"
