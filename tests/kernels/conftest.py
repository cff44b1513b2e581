"""A GPU that is none, in the test's own process: for tests of what is measured on one."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kernels import choosing, emulator, place, source, table, tuned
from kernels.source import ROOT

TIMED = ("naive", "im2col_gemm", "tiled", "max", "avg")
DOUBLE = Path(__file__).parents[1] / "fake_cupy"


def _forget() -> None:
    """Let this process know nothing of any GPU, nor of what was measured there."""
    choosing.forget_here()
    tuned.forget_here()
    for cached in (choosing._source, tuned._source, place.gpu_identity):
        cached.cache_clear()


@pytest.fixture
def restarted() -> Callable[[], None]:
    """Forgets what a new process would not know."""
    return _forget


def _is_cupy(name: str) -> bool:
    return name.partition(".")[0] == "cupy"


@pytest.fixture(scope="session")
def double() -> dict[str, ModuleType]:
    """The modules of the double of CuPy, by name; they are not left where imports look."""
    if problem := emulator.problem():
        pytest.skip(problem)
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(_is_cupy, list(sys.modules)):
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(DOUBLE)
        importlib.import_module("cupy")
        return {name: sys.modules.pop(name) for name in filter(_is_cupy, list(sys.modules))}


@pytest.fixture(scope="session")
def compiled() -> dict[str, Callable[..., object]]:
    """What remembers the functions compiled for the double, apart from a GPU's."""
    names = ("_on_gpu", "_gpu_module")
    return {name: functools.cache(getattr(source, name).__wrapped__) for name in names}


@pytest.fixture
def cupy(
    double: dict[str, ModuleType],
    compiled: dict[str, Callable[..., object]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[ModuleType]:
    """The double of CuPy, and of the table's rows those whose times the tests tell.

    What is measured goes to a folder of the test's own.
    """
    monkeypatch.setattr(place, "gpu_problem", lambda: None)
    for name, module in double.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name, function in compiled.items():
        monkeypatch.setattr(source, name, function)
    monkeypatch.setenv("CONV_KERNEL_LAB_CHOICES", str(tmp_path / "choices"))
    rows = [row for row in table.rows() if row.places == ("cpu",) or row.name in TIMED]
    monkeypatch.setattr(table, "_ROWS", tuple(rows))
    _forget()
    yield double["cupy"]
    _forget()


@pytest.fixture
def invent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., table.Row]:
    """Adds a kernel to the table: a copy of `naive`'s or `max`'s files, edited.

    ``invent("mine", "conv2d/naive", cuda=(healthy, faulty), python="...", roundoff=...)`` returns
    its row; its functions are called ``mine_forward`` and so on, and `python` is added at its end.
    """
    folder = tmp_path / "invented"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def invented(
        name: str,
        like: str = "conv2d/naive",
        cuda: tuple[str, str] | None = None,
        python: str = "",
        **fields: object,
    ) -> table.Row:
        original = next(r for r in table.rows() if r.module == f"kernels.{like.replace('/', '.')}")
        prefix = f"{original.operation}_{original.name}".replace("max_pool2d_max", "max_pool2d")
        code = (ROOT / f"{like}.cu").read_text().replace(f"{prefix}_", f"{name}_")
        if cuda:
            assert code.count(cuda[0]) == 1, cuda[0]
            code = code.replace(*cuda)
        (folder / f"{name}.cu").write_text(code)
        launchers = (ROOT / f"{like}.py").read_text().replace(f'"{prefix}_', f'"{name}_')
        launchers = launchers.replace(f'"{like}.cu"', f"{str(folder / name)!r} '.cu'")
        (folder / f"{name}.py").write_text(f"{launchers}\n{python}\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        known = {"name": name, "module": name, "places": ("gpu",), **fields}
        row = table.Row(**{**vars_of(original), **known})
        monkeypatch.setattr(table, "_ROWS", (*table.rows(), row))
        return row

    return invented


def vars_of(row: table.Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
