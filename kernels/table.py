"""Every kernel, one row each. Tests, benchmarks, the trainer and the reports find it here."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
from types import ModuleType
from typing import Any

from kernels import place

CONV2D_PASSES = ("forward", "backward_data", "backward_filter", "backward_bias")
POOL2D_PASSES = ("forward", "backward")
PASSES = {
    "conv2d": CONV2D_PASSES,
    "conv2d_relu_pool": CONV2D_PASSES,
    "max_pool2d": POOL2D_PASSES,
    "avg_pool2d": POOL2D_PASSES,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One kernel: a technique in a language, for an operation.

    Attributes
    ----------
    operation
        ``"conv2d"``, ``"conv2d_relu_pool"``, ``"max_pool2d"`` or ``"avg_pool2d"``.
    name
        What a caller passes as `kernel`.
    language
        ``"numpy"``, ``"cuda_c"`` or ``"numba"``.
    module
        Where its launchers are, imported on first use.
    places
        Where it can run: ``"cpu"`` (host code), ``"emulator"`` (CUDA C on the CPU), ``"simulator"``
        (Numba CUDA on the CPU), ``"gpu"``.
    passes
        The launchers it has.
    summary
        One line for a person.
    roundoff
        Unit round-off to which its products round each factor, where it is not the arrays' own
        (TF32: 2**-11, bfloat16: 2**-8); ``"auto"`` is such a row only inside
        `kernels.reduced_precision`.
    growth
        Of an algorithm that mixes a filter's taps before it multiplies (Winograd): the factor that
        `compare.expected` puts before the mean of the taps; 0 for none.
    capturable
        Whether a CUDA graph can hold its launches: CuPy lets no stream be captured over cuBLAS.
    """

    operation: str
    name: str
    language: str
    module: str
    places: tuple[str, ...]
    passes: tuple[str, ...]
    summary: str
    roundoff: float = 0.0
    growth: float = 0.0
    capturable: bool = True

    @functools.cached_property
    def launchers(self) -> ModuleType:
        """The technique's module; PluginError where it is not the lab's and raises."""
        if self.module.startswith("kernels."):
            return importlib.import_module(self.module)
        from kernels import plugins

        return plugins.imported(self.module, f"row {self.name!r}")

    def launcher(self, direction: str) -> Any:
        """Return the launcher of one pass."""
        return getattr(self.launchers, direction)

    def refuses(self, direction: str, shape: Any, dtype: Any) -> str:
        """Return why a pass does not take a shape or a dtype, or nothing.

        The words follow ``kernel 'winograd'``: ``"takes 3x3 filters only, but this is 5x5"``.
        """
        if direction not in self.passes:
            return f"has no {direction}, only {', '.join(self.passes)}"
        asked = getattr(self.launchers, "refuses", None)
        return asked(direction, shape, str(dtype)) if asked else ""

    def workspace_bytes(self, direction: str, shape: Any, itemsize: int, limit: int) -> int:
        """Return the bytes of workspace that a pass wants, at most `limit`."""
        asked = getattr(self.launchers, "workspace_bytes", None)
        return int(asked(direction, shape, itemsize, limit)) if asked else 0

    def check_place(self, like: Any) -> None:
        """Raise TypeError unless the row can run where `like` lives."""
        if place.on_gpu(like):
            if "gpu" not in self.places:
                raise TypeError(
                    f"{self.operation}: kernel {self.name!r} runs on NumPy arrays only but got a "
                    f"CuPy array; pass cupy.asnumpy(...) or choose one of "
                    f"{quoted(names(self.operation, 'gpu'))}"
                )
        elif self.places == ("gpu",):
            raise TypeError(
                f"{self.operation}: kernel {self.name!r} runs on CuPy arrays only but got a NumPy "
                f"array; pass cupy.asarray(...) or choose one of "
                f"{quoted([r.name for r in rows(self.operation) if r.places != ('gpu',)])}"
            )


_CONV2D = "kernels.conv2d."
_BLOCK = "kernels.conv2d_relu_pool."
_POOL2D = "kernels.pool2d."
_DEVICES = ("emulator", "gpu")
_NUMBA_DEVICES = ("simulator", "gpu")

_ROWS = (
    Row("conv2d", "reference", "numpy", _CONV2D + "reference", ("cpu",), CONV2D_PASSES,
        "the float64-capable judge, one tap at a time"),
    Row("conv2d", "cpu", "numba", _CONV2D + "cpu", ("cpu",), CONV2D_PASSES,
        "njit on the host, images as SIMD lanes; the default without a GPU"),
    Row("conv2d", "naive", "cuda_c", _CONV2D + "naive", _DEVICES, CONV2D_PASSES,
        "one thread an output element, everything from global memory"),
    Row("conv2d", "im2col_gemm", "cuda_c", _CONV2D + "im2col_gemm", _DEVICES, CONV2D_PASSES,
        "unfold, then one matrix product (cuBLAS; BLAS on the host)", capturable=False),
    Row("conv2d", "tiled", "cuda_c", _CONV2D + "tiled", _DEVICES, CONV2D_PASSES,
        "a block shares its input tile and halo in shared memory"),
    Row("conv2d", "register_tiled", "cuda_c", _CONV2D + "register_tiled", _DEVICES, CONV2D_PASSES,
        "a thread keeps several outputs of several filters in registers"),
    Row("conv2d", "winograd", "cuda_c", _CONV2D + "winograd", _DEVICES, CONV2D_PASSES,
        "F(2x2, 3x3) in one kernel: 16 products for 4 outputs, not 36", growth=36.0),
    Row("conv2d", "implicit_gemm", "cuda_c", _CONV2D + "implicit_gemm", _DEVICES, CONV2D_PASSES,
        "the matrix product without its columns: gathered tiles, 16x8 sums a thread"),
    Row("conv2d", "implicit_gemm_tf32", "cuda_c", _CONV2D + "implicit_gemm_tf32", _DEVICES,
        CONV2D_PASSES, "implicit_gemm on tensor cores, factors in TF32", roundoff=2.0**-11),
    Row("conv2d", "implicit_gemm_bf16", "cuda_c", _CONV2D + "implicit_gemm_bf16", _DEVICES,
        CONV2D_PASSES, "implicit_gemm on tensor cores, factors in bfloat16", roundoff=2.0**-8),
    Row("conv2d", "implicit_gemm_wgmma", "cuda_c", _CONV2D + "implicit_gemm_wgmma", _DEVICES,
        CONV2D_PASSES, "implicit_gemm_bf16 by Hopper's warpgroup products, stride 1; dw as it is",
        roundoff=2.0**-8),
    Row("conv2d", "naive_numba", "numba", _CONV2D + "naive_numba", _NUMBA_DEVICES, CONV2D_PASSES,
        "naive in Numba CUDA"),
    Row("conv2d", "im2col_gemm_numba", "numba", _CONV2D + "im2col_gemm_numba", _NUMBA_DEVICES,
        CONV2D_PASSES, "im2col_gemm with unfold and fold in Numba CUDA", capturable=False),
    Row("conv2d", "tiled_numba", "numba", _CONV2D + "tiled_numba", _NUMBA_DEVICES, CONV2D_PASSES,
        "tiled in Numba CUDA"),
    Row("conv2d_relu_pool", "reference", "numpy", _BLOCK + "reference", ("cpu",), CONV2D_PASSES,
        "the judge: conv2d's, then ReLU and pooling"),
    Row("conv2d_relu_pool", "cpu", "numba", _BLOCK + "cpu", ("cpu",), CONV2D_PASSES,
        "njit on the host; backward, only what was a maximum; the default without a GPU"),
    Row("conv2d_relu_pool", "fused", "cuda_c", _BLOCK + "fused", _DEVICES, CONV2D_PASSES,
        "compiled for the layer; the map before the pooling stays in registers"),
    Row("max_pool2d", "reference", "numpy", _POOL2D + "max_reference", ("cpu",), POOL2D_PASSES,
        "the judge, one window at a time"),
    Row("max_pool2d", "cpu", "numba", _POOL2D + "max_cpu", ("cpu",), POOL2D_PASSES,
        "njit on the host; the default without a GPU"),
    Row("max_pool2d", "max", "cuda_c", _POOL2D + "max", _DEVICES, POOL2D_PASSES,
        "one thread a window; backward gathers, without atomics"),
    Row("max_pool2d", "max_numba", "numba", _POOL2D + "max_numba", _NUMBA_DEVICES, POOL2D_PASSES,
        "max in Numba CUDA"),
    Row("avg_pool2d", "reference", "numpy", _POOL2D + "avg_reference", ("cpu",), POOL2D_PASSES,
        "the judge, one window at a time"),
    Row("avg_pool2d", "cpu", "numba", _POOL2D + "avg_cpu", ("cpu",), POOL2D_PASSES,
        "njit on the host; the default without a GPU"),
    Row("avg_pool2d", "avg", "cuda_c", _POOL2D + "avg", _DEVICES, POOL2D_PASSES,
        "one thread a window; backward gathers, without atomics"),
    Row("avg_pool2d", "avg_numba", "numba", _POOL2D + "avg_numba", _NUMBA_DEVICES, POOL2D_PASSES,
        "avg in Numba CUDA"),
)  # fmt: skip

# What "auto" means where nothing is measured: on the host, and on a GPU while `choosing` cannot.
_AUTO = {
    "conv2d": {"cpu": "cpu", "gpu": "im2col_gemm"},
    "conv2d_relu_pool": {"cpu": "cpu", "gpu": "fused"},
    "max_pool2d": {"cpu": "cpu", "gpu": "max"},
    "avg_pool2d": {"cpu": "cpu", "gpu": "avg"},
}


def rows(operation: str | None = None) -> list[Row]:
    """Return the table's rows and those of plug-ins, or those of one operation, in their order.

    Raises
    ------
    PluginError
        A plug-in that cannot be used.
    """
    known = _ROWS + _of_plugins(os.environ.get("KERNELS_PATH", ""))
    return [row for row in known if operation is None or row.operation == operation]


@functools.lru_cache(maxsize=1)
def _of_plugins(path: str) -> tuple[Row, ...]:
    from kernels import plugins

    return plugins.rows(_ROWS)


def names(operation: str, where: str | None = None) -> list[str]:
    """Return the names of an operation's kernels, or of those that can run at `where`."""
    return [row.name for row in rows(operation) if where is None or where in row.places]


def default(operation: str, on_gpu: bool) -> str:
    """Return the name that ``"auto"`` means, or nothing where the operation has no such row yet."""
    name = _AUTO[operation]["gpu" if on_gpu else "cpu"]
    return name if name in names(operation) else ""


def find(operation: str, name: Any, like: Any = None) -> Row:
    """Return the row that `name` means, ``"auto"`` by where the array `like` lives.

    On a GPU that is the row which `choosing.fastest` holds the others against.

    Raises
    ------
    ValueError
        An unknown name; the message lists those there are.
    TypeError
        A kernel that cannot run where `like` lives.
    """
    if name == "auto":
        on_gpu = like is not None and place.on_gpu(like)
        name = _AUTO[operation]["gpu" if on_gpu else "cpu"]
    for row in rows(operation):
        if row.name == name:
            if like is not None:
                row.check_place(like)
            return row
    raise ValueError(
        f"{operation}: no kernel named {name!r}; there are 'auto', {quoted(names(operation))}"
    )


def quoted(words: list[str]) -> str:
    """Return words in quotes, for a message."""
    return ", ".join(map(repr, words))
