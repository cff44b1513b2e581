"""One shape and one pass: check every kernel and peer, then time those that passed, in turns."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np

from kernels import operations, place, ranges, resources, source_hash, table
from profiling import admission, buffers, clock_gpu, peers, roofline, sensors, timing
from profiling.result_file import Ceilings, Check, Ratio, Resource, Row, Timing
from profiling.suites import Case

# Cold launches on a GPU come from one sample's worth of sets, on a CPU from twice the last cache.
CACHES = 2

PRECISIONS = {0.0: "fp32", 2.0**-11: "tf32", 2.0**-8: "bf16"}  # by Row.roundoff


@dataclasses.dataclass(frozen=True)
class Group:
    """What is measured together.

    Attributes
    ----------
    case, direction
        The shape and the pass.
    rows
        The kernels.
    peers
        Names as --against takes them.
    """

    case: Case
    direction: str
    rows: tuple[table.Row, ...]
    peers: tuple[str, ...]

    @property
    def title(self) -> str:
        """The group's name for a person."""
        return f"{self.case.label} {self.direction}"


@dataclasses.dataclass
class _Entry:
    """A row in the making; `subject` is None where it is not timed."""

    name: str
    kernel: table.Row | None
    language: str
    subject: timing.Subject | None
    check: Check | None = None
    reason: str = ""
    status: Literal["timed", "failed", "skipped"] = "timed"


class Bench:
    """Measures groups at one place.

    Parameters
    ----------
    where
        ``"cpu"`` or ``"gpu"``.
    clock
        Of that place.
    ceilings
        Of the device.
    policy
        When a measurement is enough.
    seed
        Of the tensors' values.
    """

    def __init__(
        self,
        where: str,
        clock: timing.Clock,
        ceilings: Ceilings,
        policy: timing.Policy,
        seed: int = 0,
    ) -> None:
        self.where, self.clock, self.ceilings = where, clock, ceilings
        self.policy, self.seed = policy, seed

    def group(
        self, group: Group, between: Callable[[float], None] = lambda share: None
    ) -> list[Row]:
        """Return the rows of a group, kernels first.

        Parameters
        ----------
        group
            What is measured.
        between
            Told now and then which share of the time limit is spent.
        """
        rng = np.random.default_rng(self.seed)
        operation, shape = group.case.operation, group.case.shape
        xp = _array_module(self.where)
        try:
            tensors = buffers.Buffers(xp, operation, group.direction, shape, self._sets(group), rng)
            entries = []
            for row in group.rows:
                between(0.0)
                entries.append(self._kernel(row, group, tensors, rng))
            for name in group.peers:
                entries += self._peers(name, group, tensors, rng)
        except (buffers.OutOfMemoryError, MemoryError) as error:
            return [self._row(entry, group) for entry in _skipped(group, str(error))]
        timed = [entry for entry in entries if entry.subject is not None]
        before = sensors.read(self.where)
        subjects = [entry.subject for entry in timed if entry.subject is not None]
        timings = timing.measure(subjects, self.clock, self.policy, between=between)
        after = sensors.read(self.where)
        found = {entry.name: by_state for entry, by_state in zip(timed, timings, strict=True)}
        return [
            self._row(
                entry, group, found.get(entry.name, {}), _ratios(entry, timed, found),
                before=before, after=after,
            )
            for entry in entries
        ]  # fmt: skip

    def _sets(self, group: Group) -> int:
        nbytes = buffers.set_bytes(group.case.operation, group.direction, group.case.shape)
        if self.where == "cpu":
            return -(-CACHES * self.ceilings.cache_bytes // nbytes) + 1
        # A launch takes at least what its bytes take, so that a sample holds no more than these.
        return min(clock_gpu.MOST_LAUNCHES, int(clock_gpu.SAMPLE * self.ceilings.copy / nbytes) + 1)

    def _kernel(
        self, row: table.Row, group: Group, tensors: buffers.Buffers, rng: np.random.Generator
    ) -> _Entry:
        entry = _Entry(row.name, row, row.language, None)
        shape, direction = group.case.shape, group.direction
        if direction not in row.passes:
            return dataclasses.replace(entry, status="skipped", reason=f"it has no {direction}")
        if reason := row.refuses(direction, shape, "float32"):
            return dataclasses.replace(entry, status="skipped", reason=f"it {reason}")
        launcher = row.launcher(direction)
        like = tensors.inputs[0][0]
        try:
            extra = operations.workspace_for(row, direction, shape, like)
            launch = functools.partial(_launch, launcher, tensors, shape, extra)
            tensors.poison()
            with place.current(like), ranges.span(f"{row.name} {group.title}"):
                launch(0)
                got = tensors.fetch()
        except Exception as error:  # whatever a kernel does, it is that kernel's row
            if self.where == "gpu":
                _check_context(row, group, error)
            if _is_out_of_memory(error):
                return dataclasses.replace(entry, status="skipped", reason=_first_line(error))
            reason = f"{type(error).__name__}: {_first_line(error)}"
            return dataclasses.replace(entry, status="failed", reason=reason)
        entry.check, wrong = admission.judge(
            row.operation,
            direction,
            shape,
            tensors.host,
            got,
            rng,
            row.roundoff,
            row.growth,
        )
        if wrong:
            return dataclasses.replace(entry, status="failed", reason=wrong)
        subject = timing.Subject(row.name, launch, len(tensors.inputs))
        return dataclasses.replace(entry, subject=subject)

    def _peers(
        self, name: str, group: Group, tensors: buffers.Buffers, rng: np.random.Generator
    ) -> Iterator[_Entry]:
        operation, direction, shape = group.case.operation, group.direction, group.case.shape
        language = f"{name} {peers.version(name)}"
        for peer in peers.of_pass(name, operation, direction, shape, tensors):
            entry = _Entry(peer.name, None, language, peer.subject)
            if peer.fetch is None:
                yield dataclasses.replace(entry, status="skipped", reason=peer.reason)
                continue
            try:
                with place.current(tensors.inputs[0][0]), ranges.span(f"{name} {group.title}"):
                    got = peer.fetch()
            except Exception as error:  # a peer's trouble is no reason to stop
                yield dataclasses.replace(
                    entry, subject=None, status="skipped",
                    reason=f"{type(error).__name__}: {_first_line(error)}",
                )  # fmt: skip
                continue
            entry.check, wrong = admission.judge(
                operation, direction, shape, tensors.host, got, rng
            )
            note = "outside the bound of the direct algorithm; timed all the same: "
            yield dataclasses.replace(entry, reason=note + wrong if wrong else "")

    def _row(
        self,
        entry: _Entry,
        group: Group,
        timings: dict[timing.State, Timing] | None = None,
        ratios: list[Ratio] | None = None,
        **sensed: Any,
    ) -> Row:
        case, kernel = group.case, entry.kernel
        work = roofline.work(kernel, case.operation, group.direction, case.shape)
        timings = timings or {}
        return Row(
            operation=cast(Any, case.operation), name=entry.name,
            direction=cast(Any, group.direction),
            kind="kernel" if kernel else "peer", language=entry.language,
            label=case.label, group=case.group, shape=case.shape._asdict(),
            dtype="float32", precision=PRECISIONS[kernel.roundoff if kernel else 0.0],
            flops=work.flops, least_flops=work.least_flops, least_bytes=work.least_bytes,
            input_bytes=work.input_bytes, status=entry.status, reason=entry.reason,
            source=source_hash.of_row(kernel) if kernel else None, check=entry.check,
            cold=timings.get("cold"), hot=timings.get("hot"), ratios=ratios or [],
            resources=list(_resources(kernel)) if kernel and self.where == "gpu" else [],
            **sensed,
        )  # fmt: skip


def _launch(launcher: Any, tensors: buffers.Buffers, shape: Any, extra: Any, number: int) -> None:
    launcher(*tensors.inputs[number], *tensors.outputs[number], shape, **extra)


class ContextLostError(RuntimeError):
    """A kernel that broke the GPU's context: nothing runs in this process any more."""


def _check_context(row: table.Row, group: Group, error: Exception) -> None:
    import cupy

    try:
        cupy.cuda.runtime.deviceSynchronize()
    except Exception:
        raise ContextLostError(
            f"{row.name} broke the GPU's context on {group.title}: {_first_line(error)}; what was "
            "measured before is in the file; leave the kernel out, or: python -m kernels check "
            f"{row.name}"
        ) from error


def _ratios(
    entry: _Entry, timed: Sequence[_Entry], found: dict[str, dict[timing.State, Timing]]
) -> list[Ratio]:
    """Return a kernel's ratios to the peers that were timed beside it."""
    if entry.kernel is None or entry.name not in found:
        return []
    own = found[entry.name]
    return [
        Ratio(other.name, state, *timing.ratio(found[other.name][state], own[state]))
        for other in timed
        if other.kernel is None
        for state in own
    ]


def _skipped(group: Group, reason: str) -> list[_Entry]:
    return [
        *(_Entry(r.name, r, r.language, None, None, reason, "skipped") for r in group.rows),
        *(_Entry(name, None, name, None, None, reason, "skipped") for name in group.peers),
    ]


@functools.cache
def _resources(row: table.Row) -> tuple[Resource, ...]:
    """Return what the row's functions take on this GPU; nothing where NVRTC's binding lacks."""
    import cupy

    arch = f"sm_{cupy.cuda.Device().compute_capability}"
    try:
        found = resources.of_row(row, arch)
    except (resources.NvrtcMissingError, ValueError):
        return ()
    return tuple(
        Resource(r.function, r.registers, r.shared_bytes, r.spill_stores + r.spill_loads, arch)
        for r in found
    )


def _array_module(where: str) -> Any:
    if where == "cpu":
        return np
    import cupy

    return cupy


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
