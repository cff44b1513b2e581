"""What a GPU has, as data: the limits that occupancy and the bound are worked out from.

A multiprocessor's limits follow from the compute capability: NVIDIA's CUDA Programming Guide, table
"Technical Specifications per Compute Capability", its table of arithmetic throughput, and the
allocation units of ``cuda_occupancy.h``. How many of them a board has, its clock and its memory are
the data sheet's. The clock is the published boost clock: a board that runs above it, as GeForce
cards may, can beat a bound that was worked out from it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

KIB, MIB = 1 << 10, 1 << 20
GB_PER_SECOND = 1e9

WARP = 32
MAX_THREADS_PER_BLOCK = 1024
MAX_REGISTERS_PER_THREAD = 255

# The same from compute capability 7.5 to 12.0.
REGISTERS_PER_SM = 65536
REGISTER_UNIT = 256  # registers are given to a warp in these
SUB_PARTITIONS = 4  # of a multiprocessor, each with its scheduler and its quarter of the registers


@dataclasses.dataclass(frozen=True)
class Multiprocessor:
    """The limits of one multiprocessor.

    Attributes
    ----------
    warps, blocks
        The most that are resident at a time.
    shared_bytes
        Shared memory of all resident blocks together, what CUDA keeps for itself included.
    shared_per_block
        The most that a block can ask for, static and dynamic together; above 48 KiB it has to opt
        in.
    shared_unit
        Shared memory is given to a block in multiples of this, in bytes.
    shared_reserved
        What CUDA takes for itself in every block, in bytes.
    l1_bytes
        L1 cache and shared memory together.
    fp32_lanes, fp64_lanes
        Multiply-adds that it can do in a clock.
    """

    warps: int
    blocks: int
    shared_bytes: int
    shared_per_block: int
    shared_unit: int
    shared_reserved: int
    l1_bytes: int
    fp32_lanes: int
    fp64_lanes: int

    @property
    def threads(self) -> int:
        """The most threads that are resident at a time."""
        return self.warps * WARP


#                                       warps blocks     shared  a block   unit reserved L1  lanes
MULTIPROCESSORS = {
    "7.5": Multiprocessor(32, 16, 64 * KIB, 64 * KIB, 256, 0, 96 * KIB, 64, 2),
    "8.0": Multiprocessor(64, 32, 164 * KIB, 163 * KIB, 128, 1 * KIB, 192 * KIB, 64, 32),
    "8.6": Multiprocessor(48, 16, 100 * KIB, 99 * KIB, 128, 1 * KIB, 128 * KIB, 128, 2),
    "8.9": Multiprocessor(48, 24, 100 * KIB, 99 * KIB, 128, 1 * KIB, 128 * KIB, 128, 2),
    "9.0": Multiprocessor(64, 32, 228 * KIB, 227 * KIB, 128, 1 * KIB, 256 * KIB, 128, 64),
    "10.0": Multiprocessor(64, 32, 228 * KIB, 227 * KIB, 128, 1 * KIB, 256 * KIB, 128, 64),
    "12.0": Multiprocessor(48, 24, 100 * KIB, 99 * KIB, 128, 1 * KIB, 128 * KIB, 128, 2),
}


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A board.

    Attributes
    ----------
    name
        For a person.
    capability
        Compute capability, ``"9.0"``.
    sms
        Multiprocessors that are switched on.
    clock
        Published boost clock, in Hz.
    l2_bytes
        L2 cache.
    dram_rate
        Peak rate of its memory, in bytes a second.
    l2_per_clock
        Bytes that L2 can deliver in a clock; None where NVIDIA has published no peak. A measured
        rate would not do: a bound needs what cannot be exceeded.
    tensor_rates
        Peak operations a second of its tensor cores on dense matrices, by the type of the factors
        (``"tf32"``, ``"bf16"``); only those of a data sheet.
    """

    name: str
    capability: str
    sms: int
    clock: float
    l2_bytes: int
    dram_rate: float
    l2_per_clock: int | None = None
    tensor_rates: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def sm(self) -> Multiprocessor:
        """The limits of each multiprocessor."""
        return MULTIPROCESSORS[self.capability]

    @property
    def arch(self) -> str:
        """What NVRTC is told to compile for, ``"sm_90"``."""
        return "sm_" + self.capability.replace(".", "")

    @property
    def fp32_rate(self) -> float:
        """Peak float32 operations a second, a multiply-add counting as two."""
        return self.sms * self.sm.fp32_lanes * 2 * self.clock


def _gpu(
    name: str,
    capability: str,
    sms: int,
    mhz: int,
    l2_mib: int,
    dram: float,
    l2: int | None = None,
    tensor: Mapping[str, float] | None = None,
) -> Gpu:
    rates = {factors: tflops * 1e12 for factors, tflops in (tensor or {}).items()}
    return Gpu(name, capability, sms, mhz * 1e6, l2_mib * MIB, dram * GB_PER_SECOND, l2, rates)


# Dense TFLOPS of the data sheets, which print twice as much "with sparsity" from Hopper on.
_A100 = {"tf32": 156, "bf16": 312}
_HOPPER_SXM = {"tf32": 495, "bf16": 990}
_HOPPER_PCIE = {"tf32": 378, "bf16": 756.5}


GPUS = {
    # T4 data sheet; Turing whitepaper (TU104's L2).
    "t4": _gpu("T4", "7.5", 40, 1590, 4, 320),
    # A100 data sheet; A100 whitepaper, which has L2's 5,120 bytes a clock.
    "a100": _gpu("A100 SXM 80 GB", "8.0", 108, 1410, 40, 2039, 5120, _A100),
    "a100-40": _gpu("A100 SXM 40 GB", "8.0", 108, 1410, 40, 1555, 5120, _A100),
    # A10 data sheet; GA102 whitepaper, also for the RTX 3090.
    "a10": _gpu("A10", "8.6", 72, 1695, 6, 600),
    "3090": _gpu("GeForce RTX 3090", "8.6", 82, 1695, 6, 936),
    # L4 and L40S data sheets; Ada whitepaper, also for the RTX 4090.
    "l4": _gpu("L4", "8.9", 58, 2040, 48, 300),
    "l40s": _gpu("L40S", "8.9", 142, 2520, 96, 864),
    "4090": _gpu("GeForce RTX 4090", "8.9", 128, 2520, 72, 1008),
    # H100 and H200 data sheets (FP32: 67 and 51 TFLOPS give the clocks); H100 whitepaper.
    "h100": _gpu("H100 SXM", "9.0", 132, 1980, 50, 3350, None, _HOPPER_SXM),
    "h100-pcie": _gpu("H100 PCIe", "9.0", 114, 1755, 50, 2039, None, _HOPPER_PCIE),
    "h200": _gpu("H200 SXM", "9.0", 132, 1980, 50, 4800, None, _HOPPER_SXM),
    # Blackwell data sheets: HGX B200 (75 TFLOPS a GPU give the clock); of the two published rates
    # of its memory, 7.7 and 8 TB/s, the higher. Its L2 as users' boards report it.
    "b200": _gpu("B200", "10.0", 148, 1980, 126, 8000),
    # RTX Blackwell whitepaper.
    "5090": _gpu("GeForce RTX 5090", "12.0", 170, 2407, 96, 1792),
}


def find(name: str) -> Gpu:
    """Return the GPU that a person means.

    Parameters
    ----------
    name
        A key of `GPUS` in any spelling of it: ``"h200"``, ``"RTX 4090"``, ``"NVIDIA A100"``.

    Raises
    ------
    ValueError
        There is no such GPU here; the message lists those there are.
    """
    key = re.sub(r"nvidia|geforce|rtx|tesla", "", name.lower())
    key = re.sub(r"[^a-z0-9]+", "-", key).strip("-")
    if key not in GPUS:
        raise ValueError(f"unknown GPU {name!r}; there are {', '.join(GPUS)}")
    return GPUS[key]
