"""Watching launches: who is named does, and without one nothing changes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import emulator, observe

ROOT = Path(__file__).parents[2]


def test_without_an_observer_a_launch_is_handed_back_as_it_is():
    def launch(grid, block, args, shared_mem=0):
        """Do nothing."""

    assert observe.kernel(launch, "name", "gpu", {}) is launch
    assert observe.product(np.matmul, "cpu") is np.matmul


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_an_observer_sees_each_launch_and_what_goes_wrong_in_it(monkeypatch):
    seen, ended = [], []

    class Watching:
        @contextlib.contextmanager
        def launch(self, launch):
            seen.append(launch)
            try:
                yield
            finally:
                ended.append(launch.function)

        def span(self, name):
            return None

    monkeypatch.setattr(observe, "current", Watching())
    x, w = np.ones((2, 3, 9, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    y = kernels.conv2d(x, w, kernel="im2col_gemm")
    assert (y == 27).all()
    assert [launch.function for launch in seen] == [
        "conv2d_im2col", "matmul", "conv2d_rows_to_images",
    ]  # fmt: skip
    assert [launch.place for launch in seen] == ["emulator", "cpu", "emulator"]
    assert seen[0].block == (256,)
    assert seen[0].args[0] is x
    with pytest.raises(emulator.LaunchError):
        observe.kernel(_refuse, "refused", "emulator", {})((0,), (1,), ())
    assert ended[-1] == "refused"


def _refuse(grid, block, args, shared_mem=0):
    raise emulator.LaunchError("no")


def test_an_observer_that_is_not_there_is_one_line_and_the_program_runs():
    done = subprocess.run(
        [sys.executable, "-c", "import kernels; print('runs')"],
        env={**os.environ, "PYTHONPATH": str(ROOT), observe.VARIABLE: "no_such_module"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "runs\n"
    assert done.stderr.count("\n") == 1
    assert "nobody watches the launches: No module named 'no_such_module'" in done.stderr
