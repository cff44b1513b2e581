"""Where the time goes: wall seconds by phase, each phase also an NVTX range."""

from __future__ import annotations

import time
from collections import defaultdict
from types import TracebackType
from typing import Any, NamedTuple

from kernels import ranges
from lenet.device import CPU, Device

FORMAT = "conv-kernel-lab timing 1"


class Phase(NamedTuple):
    """A part of the work.

    Attributes
    ----------
    name
        ``"data"``, ``"update"``, ``"evaluation"`` ..., or a layer's name.
    kind
        What it is added up under in a table: the layer's kind, or the name again.
    direction
        ``"forward"``, ``"backward"`` or, for what has no direction, ``""``.
    """

    name: str
    kind: str
    direction: str = ""


class Stopwatch:
    """Adds up seconds by phase.

    On the CPU every step is timed. On a GPU a call returns before its work is done, and waiting
    for it at each phase would slow the training: there one step in `every` is timed, with a wait
    at both ends of each phase, and `seconds` scales it up.

    Parameters
    ----------
    device
        Where the work runs.
    every
        Time one step in this many, or with 0 none; by default 1 on the CPU and 32 on a GPU.
    """

    def __init__(self, device: Device = CPU, every: int | None = None) -> None:
        self.device = device
        self.every = (1 if device.name == "cpu" else 32) if every is None else every
        self.steps = 0
        self.sampled = 0
        self.sampling = False
        self._in_steps: defaultdict[Phase, float] = defaultdict(float)
        self._outside: defaultdict[Phase, float] = defaultdict(float)

    def start_step(self) -> None:
        """Say that a training step begins, and decide whether it is timed."""
        self.sampling = self.every > 0 and self.steps % self.every == 0
        self.steps += 1
        self.sampled += self.sampling

    def phase(self, phase: Phase) -> _Span:
        """Return a context manager that times a phase of a step."""
        return _Span(self, phase, self._in_steps if self.sampling else None)

    def outside(self, phase: Phase) -> _Span:
        """Return a context manager that times a phase outside the steps: always, and exactly."""
        return _Span(self, phase, self._outside)

    def record(self) -> dict[str, Any]:
        """Return what `seconds` is made of, for a file: the sums of the sampled steps unscaled."""
        parts = ((True, self._in_steps), (False, self._outside))
        return {
            "steps": self.steps,
            "sampled": self.sampled,
            "phases": [
                {**phase._asdict(), "in_steps": in_steps, "seconds": seconds}
                for in_steps, sums in parts
                for phase, seconds in sums.items()
            ],
        }

    def seconds(self) -> dict[Phase, float]:
        """Return seconds by phase; on a GPU those of the steps are estimates from a sample."""
        scale = self.steps / self.sampled if self.sampled else 0.0
        return {p: s * scale for p, s in self._in_steps.items()} | dict(self._outside)


class _Span:
    def __init__(
        self, watch: Stopwatch, phase: Phase, seconds: defaultdict[Phase, float] | None
    ) -> None:
        self.watch, self.phase, self.seconds = watch, phase, seconds
        self.range = ranges.span(f"{phase.name} {phase.direction}".rstrip())

    def __enter__(self) -> None:
        if self.seconds is not None:
            self.watch.device.synchronize()
        self.begin = time.perf_counter()
        self.range.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        self.range.__exit__(kind, error, trace)
        if self.seconds is not None:
            self.watch.device.synchronize()
            self.seconds[self.phase] += time.perf_counter() - self.begin
