"""Watches the launches of a traced command, inside it (`kernels/observe.py` calls it).

Every launch is a span of its host thread, with grid, block and shape; on a GPU it is bracketed by
CUDA events too. What an emulator or a simulator ran is labelled so and never drawn as GPU time.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shlex
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from profiling.spool import LIMIT, PATH, Span, Spool

if TYPE_CHECKING:  # this module is imported while `kernels` is
    from kernels.observe import Launch
    from profiling.gpu_track import Begun

DOMAIN = "conv-kernel-lab"
INJECTION = "NVTX_INJECTION64_PATH"

# By the place of a launch: the host span's category, and what its name ends with.
CATEGORIES = {
    "gpu": ("launch", " (launch)"),
    "emulator": ("emulated", " (emulated)"),
    "simulator": ("simulated", " (simulated)"),
    "cpu": ("cpu", " (BLAS)"),
}


def observer() -> Observer:
    """Return the observer of this process; the environment names its file."""
    return Observer(Spool(os.environ[PATH], int(os.environ[LIMIT])))


class Observer:
    """Writes launches to a spool, and ranges where NVTX does not take them to the listener."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        spool.put("process", name=shlex.join(sys.orig_argv)[:200])

    def launch(self, launch: Launch) -> AbstractContextManager[Any]:
        """Return a context that draws a launch."""
        return _Launching(self, launch)

    def span(self, name: str) -> AbstractContextManager[Any] | None:
        """Return a context that draws a range, or None where NVTX's listener hears it."""
        return None if nvtx_is_heard() else Span(self.spool, DOMAIN, name)

    @functools.cached_property
    def gpu(self) -> Any:
        """The GPUs' tracks, from the first launch on one."""
        from profiling.gpu_track import GpuTracks

        return GpuTracks(self.spool)


@functools.cache
def nvtx_is_heard() -> bool:
    """Tell whether ranges marked through the nvtx package reach a listener."""
    wanted = os.environ.get(INJECTION) and not os.environ.get("NVTX_DISABLE")
    return bool(wanted) and importlib.util.find_spec("nvtx") is not None


class _Launching:
    def __init__(self, observer: Observer, launch: Launch) -> None:
        self.observer, self.details = observer, launch
        self.written = False
        self.begun: Begun | None = None

    def __enter__(self) -> None:
        spool, launch = self.observer.spool, self.details
        self.written = spool.has_room()
        if not self.written:
            return
        category, ending = CATEGORIES[launch.place]
        spool.put("B", cat=category, name=launch.function + ending, args=describe(launch))
        if launch.place == "gpu":
            self.begun = self.observer.gpu.begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.begun is not None:
            self.observer.gpu.end(self.begun, self.details.function, launched=error is None)
        if self.written:
            self.observer.spool.put("E", cat=CATEGORIES[self.details.place][0])


def describe(launch: Launch) -> dict[str, Any]:
    """Return what a timeline shows of a launch when it is clicked on."""
    about: dict[str, Any] = {"place": launch.place}
    if launch.grid:
        about |= {"grid": list(launch.grid), "block": list(launch.block)}
        about["shared_bytes"] = launch.shared_bytes
    for arg in launch.args:
        if hasattr(arg, "_asdict"):  # Conv2dShape, PoolShape
            about["shape"] = arg._asdict()
        elif "dtype" not in about and hasattr(arg, "shape") and arg.shape:
            about["dtype"] = str(arg.dtype)
    if launch.defines:
        about["defines"] = {name: str(value) for name, value in launch.defines.items()}
    return about
