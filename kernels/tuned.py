"""Tile sizes that were searched on this GPU, for the launchers that can do with several.

A technique takes part with two lines. Its module says which tiles a pass may have, the macros of
each, the usual one first,

    def tiles(direction, shape, itemsize) -> list[dict[str, int]]:

and a launcher asks for the one to use, which is None unless somebody searched or asked for one:

    tile = tuned.tile("conv2d", "tiled", direction, shape, like)

``python -m kernels tune`` searches among the first and writes what the second finds: an entry in
the user's cache for each (kernel, pass, shape, dtype, GPU), not in the repository, because it holds
only for the driver it was measured with and for the sources as they are. An entry of other sources
is not used.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

from kernels import place, table
from kernels.remembered import Entries, Key
from kernels.shapes import Shape

Tile = dict[str, int]

ENTRIES = Entries("tiles")

_known: dict[tuple[Any, ...], Tile | None] = {}
_asked_for: contextvars.ContextVar[tuple[str, str, Tile] | None] = contextvars.ContextVar(
    "tile", default=None
)


def tile(operation: str, name: str, direction: str, shape: Shape, like: Any) -> Tile | None:
    """Return the tile that a launcher is to use; None for its usual one.

    Parameters
    ----------
    operation, name
        The row's.
    direction, shape
        The pass.
    like
        One of its arrays. On the host nothing was searched: only `using` has a say there.
    """
    forced = _asked_for.get()
    if forced is not None and forced[:2] == (operation, name):
        return forced[2]
    if not place.on_gpu(like):
        return None
    asked = (operation, name, direction, shape, like.dtype.name, like.device.id)
    if asked not in _known:
        _known[asked] = _read(*asked)
    return _known[asked]


@contextlib.contextmanager
def using(operation: str, name: str, tile: Tile) -> Iterator[None]:
    """Make a kernel use a tile inside a ``with`` block, wherever it runs."""
    token = _asked_for.set((operation, name, tile))
    try:
        yield
    finally:
        _asked_for.reset(token)


def keep(key: Key, value: dict[str, Any]) -> bool:
    """Keep a search's result for `tile` to find; return whether it could be written.

    What `choosing` measured of the pass before no longer holds, and is forgotten.
    """
    from kernels import choosing

    same = {name: key[name] for name in ("operation", "pass", "shape", "dtype", "device")}
    with contextlib.suppress(OSError):
        choosing.ENTRIES.forget(**same)
    choosing.forget_here()
    forget_here()
    return ENTRIES.write(key, value)


def make_key(
    operation: str, name: str, direction: str, shape: Shape, dtype: str, device: int
) -> Key:
    """Return all that a search's result depends on."""
    return {
        "operation": operation,
        "kernel": name,
        "pass": direction,
        "shape": shape._asdict(),
        "dtype": dtype,
        "device": place.gpu_identity(device),
        "source": _source(operation, name),
    }


def is_current(key: Key) -> bool:
    """Tell whether an entry is of the sources as they are."""
    if key["kernel"] not in table.names(key["operation"]):
        return False
    return bool(key["source"] == _source(key["operation"], key["kernel"]))


def label(tile: Tile) -> str:
    """Return a tile for a person."""
    return " ".join(f"{name}={size}" for name, size in tile.items())


def forget_here() -> None:
    """Forget what this process has read; the files stay."""
    _known.clear()


def _read(
    operation: str, name: str, direction: str, shape: Shape, dtype: str, device: int
) -> Tile | None:
    entry = ENTRIES.read(make_key(operation, name, direction, shape, dtype, device))
    found = entry and entry.get("tile")
    itemsize = {"float32": 4, "float64": 8}[dtype]
    allowed = table.find(operation, name).launchers.tiles(direction, shape, itemsize)
    # Not one of them: edited by hand.
    return found if found in allowed else None


@functools.cache
def _source(operation: str, name: str) -> str:
    from kernels import source_hash

    return source_hash.of_row(table.find(operation, name))
