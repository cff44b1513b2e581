"""How many blocks of a kernel fit on a multiprocessor at a time, and what stands in the way.

The rules are those of NVIDIA's occupancy calculator (``cuda_occupancy.h``): registers are given to
whole warps in units, a quarter of them to each quarter of a multiprocessor; shared memory is given
to a block in units, with CUDA's own share added.
"""

from __future__ import annotations

import dataclasses

from kernels.source import ceil_div
from kernels.xray.gpus import (
    MAX_REGISTERS_PER_THREAD,
    MAX_THREADS_PER_BLOCK,
    REGISTER_UNIT,
    REGISTERS_PER_SM,
    SUB_PARTITIONS,
    WARP,
    Gpu,
)


@dataclasses.dataclass(frozen=True)
class Occupancy:
    """What fits on one multiprocessor. It is theoretical: enough blocks, all equally long.

    Attributes
    ----------
    threads, registers, shared_bytes
        What was asked about: threads of a block, registers of a thread, and shared memory of a
        block, static and dynamic.
    warps_per_block
        Its threads in warps, the last one perhaps not full.
    max_warps
        What the multiprocessor has room for.
    limits
        Blocks that fit by each of ``"warps"``, ``"blocks"``, ``"registers"`` and ``"shared"``
        alone; the last two only where a block takes any.
    """

    threads: int
    registers: int
    shared_bytes: int
    warps_per_block: int
    max_warps: int
    limits: dict[str, int]

    @property
    def blocks(self) -> int:
        """Resident blocks; none where a block asks for more than there is."""
        return min(self.limits.values())

    @property
    def warps(self) -> int:
        """Resident warps."""
        return self.blocks * self.warps_per_block

    @property
    def fraction(self) -> float:
        """Resident warps by those there is room for, 0 to 1."""
        return self.warps / self.max_warps

    @property
    def binds(self) -> list[str]:
        """Whichever limits allow no block more."""
        return [name for name, blocks in self.limits.items() if blocks == self.blocks]


def occupancy(gpu: Gpu, threads: int, registers: int, shared_bytes: int = 0) -> Occupancy:
    """Return how many blocks of a kernel fit on one multiprocessor of a GPU.

    Parameters
    ----------
    gpu
        Of `gpus`.
    threads
        Of a block, 1 to 1024.
    registers
        Of a thread, as the compiler says, 0 to 255.
    shared_bytes
        Of a block: static and dynamic.

    Raises
    ------
    ValueError
        A figure that no kernel can have.
    """
    for name, got, least, most in (
        ("threads a block", threads, 1, MAX_THREADS_PER_BLOCK),
        ("registers a thread", registers, 0, MAX_REGISTERS_PER_THREAD),
    ):
        if not least <= got <= most:
            raise ValueError(f"occupancy: got {got} {name}; expected {least} to {most}")
    if shared_bytes < 0:
        raise ValueError(f"occupancy: got {shared_bytes} bytes of shared memory; expected 0 or up")
    sm, warps = gpu.sm, ceil_div(threads, WARP)
    limits = {"warps": sm.warps // warps, "blocks": sm.blocks}
    if registers:
        limits["registers"] = _by_registers(registers, warps)
    if taken := round_up(shared_bytes + sm.shared_reserved, sm.shared_unit):
        fits = shared_bytes <= sm.shared_per_block
        limits["shared"] = sm.shared_bytes // taken if fits else 0
    return Occupancy(threads, registers, shared_bytes, warps, sm.warps, limits)


def _by_registers(registers: int, warps: int) -> int:
    by_warp = round_up(registers * WARP, REGISTER_UNIT)
    resident = REGISTERS_PER_SM // SUB_PARTITIONS // by_warp * SUB_PARTITIONS
    return resident // warps


def round_up(value: int, unit: int) -> int:
    """Return the least multiple of `unit` that is not below `value`."""
    return ceil_div(value, unit) * unit
