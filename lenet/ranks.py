"""The processes that train one model together, as the trainer sees them: here there is only one.

Such a process is a rank, as MPI counts them. `lenet.distributed` has the many. Whatever trains asks
its ranks the same questions; one process answers them alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lenet.device import Device
from lenet.interrupt import CtrlC

if TYPE_CHECKING:
    from lenet.model import Model

Array = Any  # numpy.ndarray or cupy.ndarray
T = TypeVar("T")


class Ranks:
    """One process, which does everything.

    Attributes
    ----------
    rank, size
        The number of this process, and how many there are.
    signals
        Those that ask the training to stop with a checkpoint.
    """

    rank, size = 0, 1
    signals: tuple[int, ...] = (signal.SIGINT,)

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return which of `count` images in a row are this rank's.

        Parts differ by one image at most; with fewer images than ranks some are empty.
        """
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def together(self, work: Callable[[], T]) -> T:
        """Return what `work` does; if it fails on a rank, raise that rank's LenetError on all."""
        return work()

    def from_first(self, work: Callable[[], T]) -> T:
        """Return, or raise, on all ranks what `work` does on the first, which alone runs it."""
        return work()

    def pick_gpu(self, device: str) -> None:
        """Make a GPU of this rank's own the current one, where `device` may mean a GPU."""

    def join(self, device: Device, facts: dict[str, Any]) -> None:
        """Get ready to train on a device; raise OptionError if the first rank has other facts."""

    def began(self, folder: Path) -> None:
        """Hear where the run's checkpoint is, from now on."""

    def equalise(self, vector: Array) -> None:
        """Give all ranks the first one's values of a vector."""

    def add_up(self, model: Model, loss: Any, hits: Any) -> tuple[Any, Any]:
        """Add up the model's gradient, in its place, and return the sums of loss and hits."""
        return loss, hits

    def totals(self, loss: float, hits: int, ctrl_c: CtrlC) -> tuple[float, int]:
        """Return the sums of an evaluation's figures; raise `Stopped` if a rank was asked to."""
        ctrl_c.check()
        return loss, hits

    def check(self, ctrl_c: CtrlC) -> None:
        """Raise `Stopped`, on all ranks before the same step, once one was asked to stop."""
        ctrl_c.check()

    def check_drift(self, weights: Array) -> None:
        """Raise KernelError where the ranks' weights are no longer the same."""


ALONE = Ranks()
