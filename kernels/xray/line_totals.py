"""A recording by source line: what the terminal and the page write beside each line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernels.source import ROOT
from kernels.xray.record import Access, Branch, Recording

Place = tuple[str, int]  # file and line

SECTORS_A_PASS = 4  # the 128 bytes that global memory's cache gives at a time


@dataclass(frozen=True)
class LineTotal:
    """What one source line did in a launch, all its accesses together.

    Attributes
    ----------
    accesses
        Those of the line.
    branches
        Likewise.
    flops
        Of all lanes.
    """

    accesses: tuple[Access, ...] = ()
    branches: tuple[Branch, ...] = ()
    flops: int = 0

    @property
    def passes(self) -> int:
        """Passes through the load/store units; see the function `passes`."""
        return sum(map(passes, self.accesses))

    @property
    def sectors(self) -> tuple[float, float] | None:
        """Sectors a global request, and the least that would do; None without such requests."""
        return self._per_request("global", "sectors")

    @property
    def wavefronts(self) -> tuple[float, float] | None:
        """Wavefronts a shared request, and the least that would do; None without such requests."""
        return self._per_request("shared", "wavefronts")

    @property
    def lanes(self) -> float | None:
        """Active lanes of 32 in an access, or, on a line without, where a branch was decided."""
        executions = sum(a.requests for a in self.accesses) or sum(
            b.executions for b in self.branches
        )
        lanes = sum(a.lanes for a in self.accesses) or sum(b.lanes for b in self.branches)
        return lanes / executions if executions else None

    @property
    def split(self) -> float | None:
        """Share of its branches' executions after which lanes went apart; None without any."""
        executions = sum(b.executions for b in self.branches)
        return sum(b.divergent for b in self.branches) / executions if executions else None

    @property
    def conflicts(self) -> int:
        """Lanes of atomics that met an address another lane of their request has too."""
        return sum(a.conflicts for a in self.accesses)

    def _per_request(self, space: str, unit: str) -> tuple[float, float] | None:
        found = [a for a in self.accesses if a.space == space]
        requests = sum(a.requests for a in found)
        if not requests:
            return None
        return (
            sum(getattr(a, unit) for a in found) / requests,
            sum(getattr(a, f"ideal_{unit}") for a in found) / requests,
        )


def passes(access: Access) -> int:
    """Return an access's passes through the load/store units: the unit of the heat.

    Of shared memory they are its wavefronts; of global memory one for every four sectors, and at
    least one a request. A local array is most often kept in registers and counts for nothing.
    """
    if access.space == "shared":
        return access.wavefronts
    if access.space == "global":
        return max(access.requests, -(-access.sectors // SECTORS_A_PASS))
    return 0


def line_totals(recording: Recording) -> dict[Place, LineTotal]:
    """Return what each line did, for those that did anything a recording knows of."""
    accesses: dict[Place, list[Access]] = {}
    branches: dict[Place, list[Branch]] = {}
    for access in recording.accesses:
        accesses.setdefault((access.file, access.line), []).append(access)
    for branch in recording.branches:
        branches.setdefault((branch.file, branch.line), []).append(branch)
    flops = {(line.file, line.line): line.flops for line in recording.lines}
    return {
        place: LineTotal(
            tuple(accesses.get(place, ())), tuple(branches.get(place, ())), flops.get(place, 0)
        )
        for place in sorted({*accesses, *branches, *flops})
        if place[1] > 0
    }


def label(file: str) -> str:
    """Return a source file's name for a person: the lab's own below ``kernels/``, others alone."""
    path = Path(file)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
