"""cupy.lib.stride_tricks of the double."""

from __future__ import annotations

from typing import Any

import numpy as np


def sliding_window_view(x: Any, window_shape: Any, axis: Any = None) -> Any:
    """Return a view of all windows."""
    import cupy

    return cupy._wrap(np.lib.stride_tricks.sliding_window_view(x._host, window_shape, axis))
