"""`profiling ncu`: the line, and the program that it profiles."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import emulator, place
from profiling import launch_once
from profiling.__main__ import main

ROOT = Path(__file__).parents[2]
DOUBLE = ROOT / "tests" / "fake_cupy"

needs_compiler = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

# An observer that notes each launch, and whether the profiler would have seen it.
NOTES = """
import contextlib, cupy
class Notes:
    @contextlib.contextmanager
    def launch(self, launch):
        print("profiled" if cupy.cuda.runtime.profiling else "ignored", launch.function)
        yield
    def span(self, name): return None
def observer(): return Notes()
"""


@needs_compiler
@pytest.mark.parametrize(
    ("kernel", "direction", "functions"),
    [
        ("tiled", "forward", ["conv2d_tiled_forward"]),
        ("im2col_gemm", "forward", ["conv2d_im2col", "matmul", "conv2d_rows_to_images"]),
        ("im2col_gemm", "backward_data", ["conv2d_images_to_rows", "matmul", "conv2d_col2im"]),
    ],
)
def test_exactly_one_pass_is_profiled(kernel, direction, functions, tmp_path):
    (tmp_path / "notes.py").write_text(NOTES)
    path = os.pathsep.join(map(str, (DOUBLE, ROOT, tmp_path)))
    words = [kernel, "2,3,9,8,4,3,3,1,1", "--pass", direction, "--warm-up", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "profiling.launch_once", *words],
        env={**os.environ, "PYTHONPATH": path, "CONV_KERNEL_LAB_OBSERVER": "notes"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:-1] == [f"ignored {name}" for name in functions * 2] + [
        f"profiled {name}" for name in functions
    ]
    assert lines[-1] == f"conv2d {direction} {kernel} ran 2 + 1 times (gpu)"


@needs_compiler
@pytest.mark.skipif(place.gpu_problem() is None, reason="a GPU would run it")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_without_a_gpu_the_program_runs_too(direction, capsys):
    assert launch_once.main(["max", "2,3,8,8,2", "--pass", direction]) == 0
    assert capsys.readouterr().out == f"max_pool2d {direction} max ran 3 + 1 times (emulator)\n"


def printed(capsys, *words: str) -> list[str]:
    assert main(["ncu", *words]) == 0
    return shlex.split(capsys.readouterr().out)


def test_the_line_profiles_the_program_that_was_named(capsys):
    shape = "64,1,28,28,6,5,5,1,2"
    words = printed(capsys, "tiled", shape)
    at = words.index(sys.executable)
    assert words[0] == "ncu"
    assert words[1:3] == ["--profile-from-start", "off"]
    assert words[at + 1 :] == [
        "-m", "profiling.launch_once", "tiled", shape, "--pass", "forward", "--warm-up", "3",
    ]  # fmt: skip
    (folder,) = (words[i + 1] for i, word in enumerate(words) if word == "--source-folders")
    assert (Path(folder) / "conv2d" / "tiled.cu").exists()  # what -lineinfo names


def test_the_lines_options_come_before_the_program(capsys):
    words = printed(
        capsys, "max", "4,3,8,8,2", "--pass", "backward", "--set", "basic", "--metrics", "a,b",
        "-o", "my report", "--options=--launch-skip 1",
    )  # fmt: skip
    at = words.index(sys.executable)
    ours, program = words[:at], words[at:]
    for pair in (("--set", "basic"), ("--metrics", "a,b"), ("--export", "my report")):
        assert ours[ours.index(pair[0]) + 1] == pair[1]
    assert ours[-2:] == ["--launch-skip", "1"]
    assert "--force-overwrite" in ours
    assert program[program.index("--pass") + 1] == "backward"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nix 4,3,8,8,2", "no GPU kernel named 'nix'"),
        ("cpu 4,3,8,8,2", "no GPU kernel named 'cpu'"),
        ("max 4,3", "expected N,C,H,W,size"),
        ("max 4:8:x2,3,8,8,2", "2 shapes; expected one"),
        ("tiled 4,3,8,8,2,9,9", "tiled"),
        ("max 4,3,8,8,2 --pass backward_data", "has no pass 'backward_data'"),
        ("max 4,3,8,8,2 --warm-up -1", "--warm-up is -1"),
        ('max 4,3,8,8,2 --options="\'"', "No closing quotation"),
    ],
)
def test_bad_input_is_one_line(words, said, capsys):
    assert main(["ncu", *shlex.split(words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if said != "tiled":
        assert said in error


def test_run_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["ncu", "max", "4,3,8,8,2", "--run"]) == 2
    assert "ncu is not on PATH" in capsys.readouterr().err
    tool(tmp_path, "true")
    monkeypatch.setattr(place, "gpu_problem", lambda: "CuPy sees no CUDA device")
    assert main(["ncu", "max", "4,3,8,8,2", "--run"]) == 2
    assert "CuPy sees no CUDA device" in capsys.readouterr().err


def test_run_shows_what_ncu_says_and_explains_a_refusal(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(place, "gpu_problem", lambda: None)
    tool(tmp_path, 'echo "profiling $#"; exit 0')
    assert main(["ncu", "max", "4,3,8,8,2", "--run"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("profiling ")
    assert err == ""
    tool(tmp_path, 'echo "==ERROR== ERR_NVGPUCTRPERM - no permission" >&2; exit 1')
    assert main(["ncu", "max", "4,3,8,8,2", "--run"]) == 1
    out, err = capsys.readouterr()
    assert "ERR_NVGPUCTRPERM" in out
    assert "NVreg_RestrictProfilingToAdminUsers=0" in err


def tool(folder: Path, body: str) -> None:
    """Put a program called ncu into a folder."""
    (folder / "ncu").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "ncu").chmod(0o755)
