"""One parallel Numba launch at a time.

Numba picks its threading layer by what is installed: TBB, OpenMP, or `workqueue`, which is always
there but ends the process when two Python threads launch at once. A launch uses every core anyway,
so taking turns costs nothing. (GNU OpenMP, the usual layer on Linux, does not survive `fork()`
after a launch: start worker processes with `spawn`.)
"""

from __future__ import annotations

import threading

one_launch = threading.Lock()
