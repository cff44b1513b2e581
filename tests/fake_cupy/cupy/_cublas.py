"""libcublas of the double: the few functions that the lab calls past CuPy, on the host.

`ctypes.CDLL` finds it under the name that the double's version of CUDA gives the library.
"""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np

SONAME = "libcublas.so.0"
INVALID_VALUE = 7  # CUBLAS_STATUS_INVALID_VALUE
HANDLE = 0xCB1A5

_state = {"stream": None, "workspace": None}


def _create(handle: Any) -> int:
    from cupy import cuda

    cuda.refuse_capture("creating a cuBLAS handle")
    handle._obj.value = HANDLE
    return 0


def _set_stream(handle: Any, stream: int) -> int:
    _state.update(stream=stream, workspace=None)  # a new stream takes the workspace away
    return 0 if handle.value == HANDLE else 1


def _set_workspace(handle: Any, pointer: int, nbytes: int) -> int:
    _state["workspace"] = (pointer, nbytes)
    return 0 if handle.value == HANDLE else 1


def _matrix(pointer: int, rows: int, cols: int, leading: int, scalar: Any) -> np.ndarray:
    """Return a matrix of column after column, `leading` elements apart."""
    cells = (scalar * (leading * (cols - 1) + rows)).from_address(pointer)
    flat = np.frombuffer(cells, scalar)
    return np.lib.stride_tricks.as_strided(
        flat, (rows, cols), (flat.itemsize, leading * flat.itemsize)
    )


def _gemm(
    scalar: Any, handle: Any, flag_a: int, flag_b: int, m: int, n: int, k: int,
    alpha: Any, a: int, lda: int, b: int, ldb: int, beta: Any, c: int, ldc: int,
) -> int:  # fmt: skip
    from cupy import cuda

    if handle.value != HANDLE or flag_a not in (0, 1) or flag_b not in (0, 1):
        return INVALID_VALUE
    a_dims, b_dims = ((k, m) if flag_a else (m, k)), ((n, k) if flag_b else (k, n))
    if lda < max(1, a_dims[0]) or ldb < max(1, b_dims[0]) or ldc < max(1, m):
        return INVALID_VALUE
    if _state["workspace"] is None:
        cuda.refuse_capture("cuBLAS without a workspace allocating memory")
    factor, keep = alpha._obj.value, beta._obj.value  # read now, as from the host

    def run() -> None:
        left, right = _matrix(a, *a_dims, lda, scalar), _matrix(b, *b_dims, ldb, scalar)
        out = _matrix(c, m, n, ldc, scalar)
        product = factor * ((left.T if flag_a else left) @ (right.T if flag_b else right))
        out[...] = product if keep == 0 else product + keep * out

    if cuda.captured is None:
        run()
    else:
        cuda.captured[cuda.get_current_stream()].append(run)
    return 0


def _function(call: Callable[..., int]) -> Callable[..., int]:
    """Return it as a function that takes attributes, as those of ctypes do."""
    return lambda *args: call(*args)


library = types.SimpleNamespace(
    cublasCreate_v2=_function(_create),
    cublasSetStream_v2=_function(_set_stream),
    cublasSetWorkspace_v2=_function(_set_workspace),
    cublasSgemm_v2=_function(functools.partial(_gemm, ctypes.c_float)),
    cublasDgemm_v2=_function(functools.partial(_gemm, ctypes.c_double)),
)


class _Libraries(ctypes.CDLL):
    def __new__(cls, name: Any, *args: Any, **kwargs: Any) -> Any:
        return library if name == SONAME else super().__new__(cls)


ctypes.CDLL = _Libraries  # type: ignore[misc]
