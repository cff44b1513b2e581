"""Matrix products of the linear layers: on the host, or by cuBLAS as a CUDA graph can capture it.

CuPy refuses to call cuBLAS on a stream that is being captured, because not all of cuBLAS can be
(https://github.com/cupy/cupy/issues/6290). A plain product can: here cuBLAS is called past CuPy,
with a handle and a workspace of our own, so that a capture allocates nothing.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from kernels import observe, place

Array = Any  # numpy.ndarray or cupy.ndarray

# What NVIDIA recommends for its largest GPUs, bytes.
WORKSPACE_BYTES = 32 << 20

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_GEMM = [_POINTER, *[_INT] * 5, *[_POINTER, _POINTER, _INT, _POINTER, _INT], *[_POINTER] * 2, _INT]
_TYPES = {
    "float32": ("cublasSgemm_v2", ctypes.c_float),
    "float64": ("cublasDgemm_v2", ctypes.c_double),
}


def matmul(a: Array, b: Array, *, out: Array) -> Array:
    """Write a b to `out`, and return it.

    Parameters
    ----------
    a, b
        (M, K) and (K, N), float32 or float64: C-contiguous, or the transpose (``.T``) of a matrix
        that is. In the same place.
    out
        (M, N), C-contiguous.

    Raises
    ------
    ValueError
        On a GPU, a matrix that is laid out otherwise.
    RuntimeError
        cuBLAS refused; the message has its status.

    Notes
    -----
    On a GPU the current stream may be capturing, if a product has been computed before the capture
    began: the first one makes the handle. One handle serves a device, so that products on several
    streams at once are not for this function.
    """
    if place.on_gpu(out):
        return observe.product(_on_gpu, "gpu")(a, b, out=out)
    return observe.product(_on_host, "cpu")(a, b, out=out)


def _on_host(a: Array, b: Array, *, out: Array) -> Array:
    from kernels.training.matmul_cpu import matmul as by_cores  # Numba takes a while to import

    return by_cores(a, b, out)


def _on_gpu(a: Array, b: Array, *, out: Array) -> Array:
    if not out.flags.c_contiguous:
        raise ValueError(f"matmul: out {out.shape} is not C-contiguous; pass a fresh array")
    name, scalar = _TYPES[out.dtype.name]
    (m, k), n = a.shape, b.shape[1]
    # cuBLAS counts columns first, and so sees every matrix transposed: out' = b' a'.
    (b_flag, b_rows), (a_flag, a_rows) = _layout("b", b), _layout("a", a)
    one, zero = ctypes.byref(scalar(1)), ctypes.byref(scalar(0))
    library, handle = _library(), _handle(out.device.id)
    handle.use_current_stream()
    status = getattr(library, name)(
        handle.value, b_flag, a_flag, n, m, k,
        one, b.data.ptr, b_rows, a.data.ptr, a_rows, zero, out.data.ptr, n,
    )  # fmt: skip
    _check(name, status)
    return out


def _layout(name: str, matrix: Array) -> tuple[int, int]:
    """Return cuBLAS's flag for a matrix (0 as it is, 1 transposed) and its leading dimension."""
    if matrix.flags.c_contiguous:
        return 0, matrix.shape[1]
    if matrix.T.flags.c_contiguous:
        return 1, matrix.shape[0]
    raise ValueError(
        f"matmul: {name} {matrix.shape} is neither C-contiguous nor the transpose of a matrix that "
        "is; pass cupy.ascontiguousarray(...)"
    )


class _Handle:
    """A cuBLAS handle of one device, with its workspace."""

    def __init__(self) -> None:
        import cupy

        handle = _POINTER()
        _check("cublasCreate_v2", _library().cublasCreate_v2(ctypes.byref(handle)))
        self.value = handle
        self.workspace = cupy.empty(WORKSPACE_BYTES, np.uint8)
        self.stream: int | None = None

    def use_current_stream(self) -> None:
        """Give the handle the current stream, and back its workspace, which a new stream takes."""
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        if stream == self.stream:
            return
        library = _library()
        _check("cublasSetStream_v2", library.cublasSetStream_v2(self.value, stream))
        status = library.cublasSetWorkspace_v2(self.value, self.workspace.data.ptr, WORKSPACE_BYTES)
        _check("cublasSetWorkspace_v2", status)
        self.stream = stream


@functools.cache
def _handle(device: int) -> _Handle:
    del device  # the current one: a handle belongs to its device
    return _Handle()


@functools.cache
def _library() -> Any:
    import cupy

    cupy.cuda.device.get_cublas_handle()  # CuPy finds the library and loads it
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    library = ctypes.CDLL(f"libcublas.so.{major}")
    library.cublasCreate_v2.argtypes = [_POINTER]
    library.cublasSetStream_v2.argtypes = [_POINTER, _POINTER]
    library.cublasSetWorkspace_v2.argtypes = [_POINTER, _POINTER, ctypes.c_size_t]
    for name, _ in _TYPES.values():
        getattr(library, name).argtypes = _GEMM
    return library


def _check(name: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{name}: cuBLAS status {status}")
