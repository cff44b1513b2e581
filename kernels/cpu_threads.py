"""One parallel Numba launch at a time, by threads that do not wait for the next one for long.

Numba picks its threading layer by what is installed: TBB, OpenMP, or `workqueue`, which is always
there but ends the process when two Python threads launch at once. A launch uses every core anyway,
so taking turns costs nothing. (GNU OpenMP, the usual layer on Linux, does not survive `fork()`
after a launch: start worker processes with `spawn`.)
"""

from __future__ import annotations

import contextlib
import os
import threading

import numba

# How often a thread of GNU OpenMP looks for work before it sleeps. By itself it does 300,000 times,
# 3 ms on a virtual Xeon whose `pause` takes 10 ns: longer than a training step, and lost on a core
# that others want. There LeNet's step at a batch of 256 took 0.98 times as long with 20,000 (its
# standard error 0.02), 1.02 with 10,000 (0.01), 1.14 with 1,000: the gaps between its launches are
# shorter than 20,000 turns.
SPINS = 20_000

one_launch = threading.Lock()


def limit(threads: int) -> int:
    """Let this Python thread's launches use so many threads at most; return how many it were."""
    before: int = numba.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return before


def _load_openmp() -> None:
    """Load Numba's OpenMP with `SPINS`, unless the user has a wish of their own.

    The library reads its environment once, when it is loaded. So the variable is there for that
    long only: the copies of it that wheels bring (PyTorch's, scikit-learn's) and child processes
    keep their default. A library that takes the system's libgomp shares this one.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    try:
        with contextlib.suppress(ImportError):  # no OpenMP: Numba takes another layer
            import numba.np.ufunc.omppool  # noqa: F401
    finally:
        del os.environ["GOMP_SPINCOUNT"]


_load_openmp()
