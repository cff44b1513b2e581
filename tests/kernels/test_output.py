"""Every command line with an output that is closed, full, or has few characters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kernels import output
from kernels.source import ROOT

# Some print themselves, some with Rich; one is argparse's.
COMMANDS = [
    "kernels list",
    "kernels list --json",
    "kernels --help",
    "kernels check avg --shapes 0 --fast",
    "kernels xray naive --shape 1,1,6,6,2,3,3",
    "kernels explain --input 6x6x1 --filters 2 --size 3x3",
    "kernels exercise list",
    "kernels exercise show 1",
    pytest.param("profiling step --batch-size 1", marks=pytest.mark.slow),  # 20 s
    "profiling ncu naive 1,1,6,6,2,3,3",
    "lenet --help",
    "lenet train --data digits --epochs 1 --batch-size 512 --name a",
]


def start(words, stdout, folder, **environment):
    return subprocess.run(
        [sys.executable, "-m", *words.split()],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent), "PYTHONUNBUFFERED": "", **environment},
    )


@pytest.mark.parametrize("words", COMMANDS)
def test_a_closed_pipe_ends_it_in_silence(words, tmp_path):
    read, write = os.pipe()
    os.close(read)
    try:
        done = start(words, write, tmp_path)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (output.NOBODY_READS, "")


def test_a_full_disk_is_told(tmp_path):
    with open("/dev/full", "w") as full:
        for words in ("kernels list", "kernels exercise show 1", "kernels --help"):
            done = start(words, full, tmp_path)
            assert done.returncode == 2
            assert done.stderr.endswith("output: No space left on device\n")
            assert done.stderr.count("\n") == 1


def test_what_cannot_be_encoded_is_replaced(tmp_path):
    few = {"PYTHONIOENCODING": "ascii"}
    done = start("kernels xray naive", subprocess.PIPE, tmp_path, **few)
    assert (done.returncode, done.stderr) == (0, "")
    assert "?" in done.stdout
    done = start("kernels list --json", subprocess.PIPE, tmp_path, **few)
    assert json.loads(done.stdout)


def test_an_output_that_was_closed_before_is_none(tmp_path):
    command = f"{sys.executable} -m kernels list >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, cwd=ROOT.parent)
    assert (done.returncode, done.stderr) == (0, "")
