"""A test double of CuPy: its rules, without a GPU.

No GPU result ever comes from here. Arrays lie in host memory behind a class that, like CuPy's, is
no numpy.ndarray and refuses every implicit conversion; kernels are compiled from the text and the
options that CuPy would hand to NVRTC, and run by the emulator. So the lab's GPU path (what it calls
on arrays, how it passes arguments, what it copies) is exercised on any machine. Where CuPy is more
lenient than this, the double is strict: a call that it lacks is an AttributeError.
"""

from __future__ import annotations

import builtins
import types
from typing import Any

import numpy as _np

from cupy import _cublas, cuda, lib  # noqa: F401
from cupy._raw import RawKernel, RawModule

__all__ = ["RawKernel", "RawModule", "cuda", "lib", "ndarray"]

TEST_DOUBLE = True
__version__ = "0.test-double"

bool_, int8, int32, int64 = _np.bool_, _np.int8, _np.int32, _np.int64
uint8, uint32, uint64, uintp = _np.uint8, _np.uint32, _np.uint64, _np.uintp
float16, float32, float64 = _np.float16, _np.float32, _np.float64
dtype, inf, nan, newaxis, pi = _np.dtype, _np.inf, _np.nan, None, _np.pi


class ndarray:  # noqa: N801
    """An array "on the device"; `_host` is where it really lies."""

    __slots__ = ("_host",)

    def __init__(self, shape: Any, dtype: Any = float, *, _host: Any = None) -> None:
        self._host = cuda.memory.allocate(shape, dtype) if _host is None else _host

    # What CuPy allows to know without a copy.
    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: _wrap(self._host.T))
    device = property(lambda self: cuda.Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self._host.ctypes.data, mem=None))

    def fill(self, value: Any) -> None:
        cuda.run(lambda host, by: host.fill(by), self._host, _unwrap(value))

    # Copies, all of them explicit; they wait for the stream.
    def get(self, out: Any = None) -> Any:
        cuda.refuse_wait()
        if out is None:
            return self._host.copy()
        out[...] = self._host
        return out

    def set(self, values: Any) -> None:
        if not isinstance(values, _np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if values.dtype != self.dtype or values.shape != self.shape:
            raise ValueError(f"cannot set {values.dtype}{values.shape} to {self!r}")
        cuda.refuse_wait()
        self._host[...] = values

    def item(self, *args: Any) -> Any:
        return self.get().item(*args)

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self) -> bytes:
        return self.get().tobytes()

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<double of cupy.ndarray, {self.dtype}{self.shape}>"

    __hash__ = None  # type: ignore[assignment]

    # No __index__: CuPy has none either.
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        return _apply(ufunc, args, kwargs)

    def __array_function__(self, function: Any, _types: Any, args: Any, kwargs: Any) -> Any:
        own = globals().get(function.__name__)
        if own is None:
            return NotImplemented
        return own(*args, **kwargs)

    # Views, or with arrays as indices, copies.
    def __getitem__(self, key: Any) -> ndarray:
        # An element is a 0-dimensional array on the device, never a Python or NumPy scalar.
        key = (*_tuple(key), ...) if Ellipsis not in _kinds(key) else _tuple(key)
        return _apply(lambda host, *at: host[_rebuilt(key, at)], (self, *_arrays(key)), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        key = _tuple(key)

        def assign(host: Any, new: Any, *at: Any) -> None:
            host[_rebuilt(key, at)] = new

        cuda.run(assign, self._host, _unwrap(value), *map(_unwrap, _arrays(key)))

    def view(self, dtype: Any = None) -> ndarray:
        return _wrap(self._host.view(dtype) if dtype is not None else self._host.view())

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        return _apply(lambda host: host.reshape(*shape, order=order), (self,), {})


def _wrap(host: Any) -> Any:
    """Return a view of device memory as an array."""
    return ndarray(None, _host=host)


def _sent(host: Any) -> ndarray:
    """Return a copy on the device; the host's memory may change before a graph is replayed."""
    cuda.refuse_wait()
    made = cuda.memory.allocate(_np.shape(host), host.dtype)
    made[...] = host
    return _wrap(made)


def _made(shape: Any, dtype: Any, work: Any) -> ndarray:
    """Return fresh memory that `work` fills."""
    made = cuda.memory.allocate(shape, dtype)
    cuda.run(work, made)
    return _wrap(made)


def _unwrap(value: Any) -> Any:
    """Return what NumPy computes with, refusing what CuPy refuses."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, _np.ndarray) or (
        isinstance(value, (list, tuple)) and builtins.any(isinstance(v, ndarray) for v in value)
    ):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


def _kinds(key: Any) -> list[Any]:
    return [part for part in _tuple(key) if part is Ellipsis]


def _arrays(key: tuple[Any, ...]) -> list[ndarray]:
    return [part for part in key if isinstance(part, (ndarray, _np.ndarray))]


def _rebuilt(key: tuple[Any, ...], arrays: Any) -> tuple[Any, ...]:
    """Return an index with its device arrays replaced by those given."""
    rest = iter(arrays)
    return tuple(next(rest) if isinstance(part, ndarray) else part for part in key)


def _apply(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call NumPy's function on device arrays, with an `out` of the device."""
    out = kwargs.pop("out", None)
    if isinstance(out, tuple):
        (out,) = out
    if out is not None and not isinstance(out, ndarray):
        raise TypeError(f"return arrays must be cupy.ndarray, not {type(out)}")
    host = [_unwrap(arg) for arg in args]
    named = {name: _unwrap(value) for name, value in kwargs.items()}
    if out is not None:
        # Arguments may overlap with `out`; NumPy sees to that.
        cuda.run(lambda to, *given: function(*given, **named, out=to), out._host, *host)
        return out
    if cuda.captured is None:
        return _placed(function(*host, **named), host)
    with _np.errstate(all="ignore"):  # only for shape and dtype: the memory holds anything
        result = function(*host, **named)
    results = result if isinstance(result, tuple) else (result,)
    made = []
    for number, one in enumerate(results):
        if _is_view(one, host):
            made.append(_wrap(one))
            continue

        def compute(to: Any, *given: Any, number: int = number) -> None:
            again = function(*given, **named)
            to[...] = again[number] if isinstance(again, tuple) else again

        made.append(_wrap(cuda.memory.allocate(_np.shape(one), _np.asarray(one).dtype)))
        cuda.run(compute, made[-1]._host, *host)
    return tuple(made) if isinstance(result, tuple) else made[0]


def _is_view(result: Any, arguments: list[Any]) -> bool:
    return isinstance(result, _np.ndarray) and builtins.any(
        isinstance(host, _np.ndarray) and _np.may_share_memory(result, host) for host in arguments
    )


def _placed(result: Any, arguments: list[Any]) -> Any:
    """Return what NumPy computed as an array in device memory, a view of an argument as a view."""
    if isinstance(result, tuple):
        return tuple(_placed(one, arguments) for one in result)
    if _is_view(result, arguments):
        return _wrap(result)
    return _sent(_np.asarray(result))


def _function(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        if not builtins.any(isinstance(arg, ndarray) for arg in args):
            raise TypeError(f"cupy.{name} takes cupy.ndarray; got {', '.join(map(_kind, args))}")
        if name in ("nonzero", "bincount") or (name == "where" and len(args) == 1):
            cuda.refuse_wait()  # the result's shape is the host's to know
        return _apply(getattr(_np, name), args, dict(kwargs))

    call.__name__ = name
    return call


def _kind(value: Any) -> str:
    return type(value).__name__


_FUNCTIONS = """
    abs absolute add all any argmax argmin argsort array_equal bincount broadcast_to ceil clip
    copysign cos cumsum divide equal exp expand_dims floor floor_divide flip greater
    greater_equal isfinite isinf isnan less less_equal log log1p logical_and logical_not
    logical_or max maximum mean min minimum moveaxis multiply negative nonzero not_equal pad
    power prod ravel reciprocal repeat reshape rint roll rot90 sign sin sqrt square squeeze
    std subtract sum swapaxes take tanh tile transpose tril triu true_divide var where
"""
for _name in _FUNCTIONS.split():
    globals()[_name] = _function(_name)


def matmul(a: ndarray, b: ndarray, /, out: ndarray | None = None) -> ndarray:
    """Multiply matrices; `out` must be C-contiguous, as for `dot`."""
    cuda.refuse_capture("calling cuBLAS API")
    if out is not None and not out.flags.c_contiguous:
        raise ValueError("Output array must be C-contiguous")
    product = _apply(_np.matmul, (a, b), {"out": out})
    cuda.launched("matmul")
    return product


def dot(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    """Multiply matrices; `out` must be C-contiguous and of the result's dtype."""
    cuda.refuse_capture("calling cuBLAS API")
    if out is not None:
        if not out.flags.c_contiguous:
            raise ValueError("Output array must be C-contiguous")
        if out.dtype != _np.result_type(a.dtype, b.dtype):
            raise ValueError("Not supported dtype combination.")
    return _apply(_np.dot, (a, b), {"out": out})


# Making arrays. Fresh memory is poisoned: every byte 0xff is NaN as a float, -1 as an integer.


def empty(shape: Any, dtype: Any = float) -> ndarray:
    return _wrap(cuda.memory.allocate(shape, dtype))


def empty_like(array: ndarray, dtype: Any = None) -> ndarray:
    return empty(array.shape, dtype or array.dtype)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return _made(shape, dtype, lambda made: made.fill(0))


def ones(shape: Any, dtype: Any = float) -> ndarray:
    return _made(shape, dtype, lambda made: made.fill(1))


def full(shape: Any, value: Any, dtype: Any = None) -> ndarray:
    value = _unwrap(value)
    return _made(shape, dtype or _np.asarray(value).dtype, lambda made: made.fill(value))


def zeros_like(array: ndarray, dtype: Any = None) -> ndarray:
    return zeros(array.shape, dtype or array.dtype)


def ones_like(array: ndarray, dtype: Any = None) -> ndarray:
    return ones(array.shape, dtype or array.dtype)


def arange(*args: Any, dtype: Any = None) -> ndarray:
    values = _np.arange(*args, dtype=dtype)
    return _made(values.shape, values.dtype, lambda made: _np.copyto(made, values))


def array(values: Any, dtype: Any = None, copy: bool = True, order: str = "C") -> ndarray:
    """Copy to the device; the one door for a NumPy array."""
    if isinstance(values, ndarray):
        same = dtype is None or values.dtype == dtype
        if same and not copy:
            return values
        return values.astype(dtype or values.dtype)
    return _sent(_np.array(values, dtype=dtype, order=order))


def asarray(values: Any, dtype: Any = None) -> ndarray:
    """Return a device array as it is, a host array copied."""
    return array(values, dtype, copy=not isinstance(values, ndarray))


def ascontiguousarray(values: ndarray, dtype: Any = None) -> ndarray:
    if not isinstance(values, ndarray):
        raise TypeError(f"Unsupported type {type(values)}")
    return _apply(_np.ascontiguousarray, (values,), {} if dtype is None else {"dtype": dtype})


def concatenate(arrays: Any, axis: int = 0) -> ndarray:
    return _apply(lambda *hosts: _np.concatenate(hosts, axis=axis), tuple(arrays), {})


def stack(arrays: Any, axis: int = 0) -> ndarray:
    return _apply(lambda *hosts: _np.stack(hosts, axis=axis), tuple(arrays), {})


def asnumpy(values: Any) -> Any:
    """Copy to host memory."""
    return values.get() if isinstance(values, ndarray) else _np.asarray(values)


def copyto(destination: ndarray, source: ndarray) -> None:
    """Copy between device arrays."""
    cuda.run(_np.copyto, destination._host, source._host)


def tensordot(a: ndarray, b: ndarray, axes: Any = 2) -> ndarray:
    """Contract two device arrays."""
    cuda.refuse_capture("calling cuBLAS API")
    return _apply(_np.tensordot, (a, b), {"axes": axes})


def get_array_module(*args: Any) -> Any:
    import cupy

    return cupy if builtins.any(isinstance(arg, ndarray) for arg in args) else _np


def get_default_memory_pool() -> Any:
    return cuda.memory.default_pool


def _method(name: str) -> Any:
    def call(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if name in ("dot", "__matmul__", "__rmatmul__"):
            cuda.refuse_capture("calling cuBLAS API")
        if name == "nonzero":  # how many there are is the host's to know
            cuda.refuse_wait()
        return _apply(getattr(_np.ndarray, name), (self, *args), kwargs)

    return call


def _in_place(name: str) -> Any:
    def call(self: ndarray, other: Any) -> ndarray:
        cuda.run(lambda host, by: getattr(host, name)(by), self._host, _unwrap(other))
        return self

    return call


_METHODS = """
    all any argmax argmin argsort astype clip copy cumsum dot flatten max mean min
    nonzero prod ravel repeat round squeeze std sum swapaxes take trace transpose var
"""
for _name in _METHODS.split():
    setattr(ndarray, _name, _method(_name))
_OPERATORS = "add and eq floordiv ge gt le lt matmul mod mul ne or pow sub truediv xor"
for _name in _OPERATORS.split():
    setattr(ndarray, f"__{_name}__", _method(f"__{_name}__"))
    if _name not in ("eq", "ge", "gt", "le", "lt", "ne"):
        setattr(ndarray, f"__r{_name}__", _method(f"__r{_name}__"))
        setattr(ndarray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _method(f"__{_name}__"))
