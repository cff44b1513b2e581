"""What a process's environment makes of Numba's threads: each case in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.cpu_threads import SPINS

ROOT = Path(__file__).parents[2]
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
LOADED = """
import os
from kernels import cpu_threads
from numba.np.ufunc import omppool
cpu_threads.limit(1)
print(omppool.openmp_vendor, os.environ.get("GOMP_SPINCOUNT"))
"""


def run(code, **variables):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables}, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "spins"),
    [
        ({}, str(SPINS)),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(variables, spins):
    done = run(LOADED, OMP_DISPLAY_ENV="verbose", **variables)
    vendor, left = done.stdout.split()
    if vendor != "GNU":
        pytest.skip("Numba has another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
    assert left == str(variables.get("GOMP_SPINCOUNT"))  # nothing stays for other libraries


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, 2),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "1,4"}, 1),
        ({"OMP_NUM_THREADS": "1000000"}, 2),
        ({"OMP_NUM_THREADS": "0"}, 2),
        ({"OMP_NUM_THREADS": "many"}, 2),
        ({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "1"}, 1),
    ],
)
def test_a_plain_run_heeds_both_variables(variables, threads):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    two = f"import os; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[:2]})\n"
    done = run(two + "import kernels, numba; print(numba.get_num_threads())", **variables)
    assert int(done.stdout) == threads


def test_a_numba_that_was_there_first_keeps_its_threads():
    code = "import numba, kernels, os; print(os.environ.get('NUMBA_NUM_THREADS'))"
    assert run(code, OMP_NUM_THREADS="1").stdout == "None\n"
