"""What an exercise allows its kernel: limits on what is counted, each with its lesson.

A limit looks at the recording of a launch, and says whether that keeps it and what was
counted: of a launch that does not, at which line, what would do, and why it came to that.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable

from kernels.xray.gpus import WARP
from kernels.xray.record import Access, Branch, Recording
from kernels.xray.wording import figure, place

# Requests at a tile's edge may touch a sector more than their bytes fill.
SECTOR_SLACK = 1.25

Verdict = tuple[bool, str]


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit on one launch.

    Attributes
    ----------
    name
        What the criterion is called.
    look
        Takes the recording; raises `for_gpu.NotHere` where nothing can be told.
    """

    name: str
    look: Callable[[Recording], Verdict]


def coalesced(recording: Recording) -> Verdict:
    """Ask for global requests that touch few more sectors than their bytes need."""
    found = within(recording, "global")
    worst = _worst(found, "sectors")
    if worst is None or worst.sectors <= SECTOR_SLACK * worst.ideal_sectors:
        return True, f"{_mean(found, 'sectors')} a request, about as few as its bytes need"
    return False, (
        f"{_line(worst)} asks for {_mean([worst], 'sectors')} sectors a request where "
        f"{_mean([worst], 'ideal_sectors')} would do ({worst.operation} of {worst.array}): "
        f"neighbouring threads are {_stride(worst) * worst.itemsize} bytes apart, and a "
        f"sector is 32 bytes of which each thread uses {worst.width}"
    )


def no_bank_conflicts(recording: Recording) -> Verdict:
    """Ask for shared memory, and for one pass over its banks by every request."""
    found = within(recording, "shared")
    worst = _worst(found, "wavefronts")
    if worst is None:
        return False, "no shared memory is used: keep it, and lose the conflicts"
    if worst.wavefronts <= worst.ideal_wavefronts:
        return True, f"{_mean(found, 'wavefronts')} a request of shared memory"
    words = _stride(worst) * worst.itemsize // 4
    return False, (
        f"{_line(worst)} takes {_mean([worst], 'wavefronts')} wavefronts a request where "
        f"{_mean([worst], 'ideal_wavefronts')} would do ({worst.operation} of {worst.array}): "
        f"neighbouring threads are {words} words apart, word i is in bank i % 32, and a bank "
        "gives one word at a time"
    )


def bytes_asked(recording: Recording, array: str, operation: str, times: float) -> Verdict:
    """Ask for an array in global memory to be read, or written, at most so many times over."""
    found = _of(recording, array, operation)
    asked = sum(access.bytes for access in found)
    size = next(one.nbytes for one in recording.arrays if one.name == array)
    if asked <= times * size:
        verb = "read" if operation == "read" else "written"
        return True, f"{array} is {verb} {asked / size:.3g} times over"
    worst = max(found, key=lambda access: access.bytes)
    wanted = f"at most {times:g} times" if times else "not at all"
    return False, (
        f"{_line(worst)} and others: the launch {operation}s {array} "
        f"{asked / size:.3g} times over ({figure(asked)}B of global memory for its "
        f"{figure(size)}B); wanted: {wanted}"
    )


def wide_access(recording: Recording, array: str, operation: str, width: int = 16) -> Verdict:
    """Ask for nearly all bytes of an array to move 16 at a time."""
    found = _of(recording, array, operation)
    narrow = [access for access in found if access.width < width]
    asked = sum(access.bytes for access in found)
    if sum(access.bytes for access in narrow) <= 0.1 * asked:
        return True, f"{operation}s of {width} bytes a thread"
    worst = max(narrow, key=lambda access: access.bytes)
    requests = sum(access.requests for access in found)
    return False, (
        f"{_line(worst)}: {operation}s of {array} are {worst.width} bytes a thread, "
        f"{requests:,} requests of a warp in all; with {width} bytes a thread, as one "
        f"float4, {asked // (width * WARP):,} would do"
    )


def warps_together(recording: Recording, most: float = 0.1) -> Verdict:
    """Ask for branches that seldom split a warp."""
    worst = max(recording.branches, key=_split, default=None)
    if worst is None or _split(worst) <= most:
        share = _split(worst) if worst else 0
        return True, f"no branch splits more than {share:.1%} of the warps that come to it"
    return False, (
        f"{_line(worst)}: a warp came here {worst.executions:,} times, and {worst.divergent:,} "
        f"times ({_split(worst):.0%}) its lanes went different ways: it then runs both ways, "
        f"one after the other; wanted: at most {most:.0%}, so let the 32 lanes of a warp "
        "do the same"
    )


def an_atomic_a_block(recording: Recording) -> Verdict:
    """Ask for at most one atomic operation a block."""
    found = [one for one in within(recording, "global") if one.operation == "atomic"]
    lanes = sum(access.lanes for access in found)
    if lanes <= recording.blocks:
        return True, f"{lanes:,}, by {recording.blocks:,} blocks"
    worst = max(found, key=lambda access: access.lanes)
    return False, (
        f"{_line(worst)}: {lanes:,} atomic additions to {worst.array}, of which "
        f"{worst.conflicts:,} met another lane's at the same address and had to wait for it; "
        f"wanted: one a block, {recording.blocks:,}, of what the block has added up itself"
    )


def no_shared_memory(recording: Recording) -> Verdict:
    """Ask for no access to shared memory."""
    found = within(recording, "shared")
    if not found:
        return True, "none is touched"
    worst = max(found, key=lambda access: access.requests)
    return False, (
        f"{_line(worst)} and others: {sum(a.requests for a in found):,} requests to shared "
        f"memory ({worst.array}); wanted: none, for the lanes of a warp can pass each other "
        "registers"
    )


def within(recording: Recording, space: str) -> list[Access]:
    """Return a launch's accesses to ``"global"`` or ``"shared"`` memory."""
    return [access for access in recording.accesses if access.space == space and access.requests]


def _of(recording: Recording, array: str, operation: str) -> list[Access]:
    found = within(recording, "global")
    return [access for access in found if (access.array, access.operation) == (array, operation)]


def _worst(accesses: Iterable[Access], unit: str) -> Access | None:
    """Return the access furthest above what would do."""
    return max(
        accesses, key=lambda a: getattr(a, unit) / max(getattr(a, f"ideal_{unit}"), 1), default=None
    )


def _line(where: Access | Branch) -> str:
    return place(where.file, where.line)


def _mean(accesses: list[Access], unit: str) -> str:
    requests = sum(access.requests for access in accesses)
    return f"{sum(getattr(access, unit) for access in accesses) / max(requests, 1):.3g}"


def _stride(access: Access) -> int:
    """Return how many elements lie between neighbouring lanes of the access's worst request."""
    elements = access.warp.elements if access.warp else ()
    steps = [abs(b - a) for a, b in itertools.pairwise(elements) if a is not None and b is not None]
    return max(set(steps), key=steps.count, default=0)


def _split(branch: Branch) -> float:
    return branch.divergent / max(branch.executions, 1)


COALESCED = Limit("sectors", coalesced)
