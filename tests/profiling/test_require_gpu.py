"""--require-gpu and --slow, tried on a small suite in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import place

ROOT = Path(__file__).parents[2]

SUITE = """
import pytest

@pytest.mark.gpu
def test_marked():
    pass

def test_on_each(xp):
    assert xp.zeros(1).shape == (1,)

def test_skips_itself():
    pytest.skip("CuPy finds no usable GPU")

def test_skips_for_something_else():
    pytest.skip("needs a printer")

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.xfail(reason="GPU", strict=True)
def test_expected_failure():
    raise ValueError
"""


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_suite.py").write_text(SUITE)

    def run(*options: str) -> dict[str, int]:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "-n0",
             "--rootdir", tmp_path, "-p", "no:cacheprovider", tmp_path, *options],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        last = result.stdout.strip().splitlines()[-1]
        counts = {word.rstrip("s"): int(n) for n, word in re.findall(r"(\d+) (\w+)", last)}
        # A test that fails before its body is an "error" to pytest.
        counts["failed"] = counts.get("failed", 0) + counts.pop("error", 0)
        return counts

    return run


def test_without_options_a_missing_gpu_skips_and_slow_is_left_out(suite):
    counts = suite()
    missing = 2 if place.gpu_problem() else 0
    assert counts["passed"] == 3 - missing
    assert counts["skipped"] == 2 + missing
    assert counts["deselected"] == 1


def test_require_gpu_fails_what_lacks_one(suite):
    counts = suite("--require-gpu")
    assert counts["failed"] == (3 if place.gpu_problem() else 1)
    assert counts["skipped"] == 1  # the printer
    assert counts["xfailed"] == 1


def test_slow_runs_everything(suite):
    assert "deselected" not in suite("--slow")


def test_require_gpu_fails_a_module_that_skips_itself(suite, tmp_path):
    (tmp_path / "test_module.py").write_text(
        'import pytest\npytest.skip("no CUDA device", allow_module_level=True)\n'
    )
    assert suite("--require-gpu")["failed"] == 1  # pytest stops there
