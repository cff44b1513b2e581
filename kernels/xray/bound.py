"""The least time that a launch can take on a GPU, from what the emulator counted and its limits.

It is a bound, not a prediction: each term is the time that one part of the GPU needs if it is never
kept waiting, and the largest says which part binds. What it rests on:

- The counts are of the launch as the emulator ran it. ``nvcc`` may yet merge accesses (four floats
  to one of 16 bytes), or find some of them or of the arithmetic needless; then a time below the
  terms that count them is possible.
- Instructions to issue are the fewest on any ways through the machine code that do the counted
  arithmetic (see `ways`): a loop without arithmetic, or around a loop with it, need not be taken.
- DRAM moves every different sector once: the caches hold nothing at the start, everything that is
  used again stays in them, and what was written has reached memory at the end. Where all of it fits
  in L2, a launch that finds it there can be faster, and `Bound.notes` says so.
- The clock is the published one (see `gpus`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from kernels.source import ceil_div
from kernels.xray.gpus import SUB_PARTITIONS, WARP, Gpu
from kernels.xray.line_totals import SECTORS_A_PASS, passes
from kernels.xray.record import Recording

SECTOR = 32  # bytes
TAIL = 1.05  # a last round of blocks that costs less is not worth a note


@dataclasses.dataclass(frozen=True)
class Term:
    """The least time by one part of the GPU.

    Attributes
    ----------
    name
        ``"fp32"`` or ``"fp64"``, ``"tf32"``, ``"bf16"``, ``"issue"``, ``"lsu"``, ``"l2"``,
        ``"dram"``.
    work
        How much it has to do, in `unit`.
    unit
        ``"flop"``, ``"instructions"``, ``"wavefronts"``, ``"bytes"``.
    rate
        The most that it can do, in `unit` a second.
    formula
        For a person.
    """

    name: str
    work: float
    unit: str
    rate: float
    formula: str

    @property
    def seconds(self) -> float:
        """The least time."""
        return self.work / self.rate


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least time of a launch.

    Attributes
    ----------
    gpu
        Its name.
    terms
        The largest first.
    left_out
        Terms that cannot be told, and why.
    notes
        What a reader has to know of this launch's figures.
    rounds
        Blocks by multiprocessors.
    """

    gpu: str
    terms: tuple[Term, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...]
    rounds: float

    @property
    def seconds(self) -> float:
        """The bound: the largest term."""
        return self.terms[0].seconds if self.terms else 0.0

    @property
    def binds(self) -> str | None:
        """The name of the largest term; None where there is nothing to do."""
        return self.terms[0].name if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        terms = [dataclasses.asdict(term) | {"seconds": term.seconds} for term in self.terms]
        return {
            "gpu": self.gpu,
            "seconds": self.seconds,
            "binds": self.binds,
            "terms": terms,
            "left_out": self.left_out,
            "notes": list(self.notes),
            "rounds": self.rounds,
        }


def bound(
    recording: Recording,
    gpu: Gpu,
    least_instructions: Callable[[float], float | None] | None = None,
) -> Bound:
    """Return the least time that a recorded launch can take on a GPU.

    Parameters
    ----------
    recording
        Of the launch. Where only some of its blocks were traced, the counts are scaled up to all of
        them, and a note says that this makes the bound an estimate.
    gpu
        Of `gpus`.
    least_instructions
        Of the kernel's machine code for this GPU: the fewest instructions of a warp by a lane's
        float operations (`sass.Function.least_instructions`). Without it there is no term for the
        schedulers.
    """
    scale = 1 / recording.sampled if recording.sampled else 0.0
    # A block stays on one multiprocessor: fewer blocks leave some of them idle.
    sms = min(gpu.sms, recording.blocks)
    clocks = sms * gpu.clock
    terms = [_lsu(recording, scale, sms, clocks), _dram(recording, gpu)]
    left_out: dict[str, str] = {}
    if why := _not_counted(recording):
        left_out |= {"fp32": why, "issue": why}
    else:
        terms.append(_arithmetic(recording, scale, gpu, sms, clocks))
        for factors, flops in recording.tensor_flops.items():
            if factors in gpu.tensor_rates:
                terms.append(_tensor(factors, flops * scale, gpu, sms))
            else:
                left_out[factors] = f"no rate of {gpu.name}'s tensor cores is cited here"
        a_lane = recording.flops * scale / recording.warps / WARP
        if least_instructions is None:
            left_out["issue"] = "no machine code to count instructions in"
        elif (least := least_instructions(a_lane)) is None:
            left_out["issue"] = (
                "the machine code has jumps to places, or arithmetic of a size, not known here"
            )
        else:
            terms.append(_issue(recording.warps, a_lane, least, sms, clocks))
    if gpu.l2_per_clock is None:
        left_out["l2"] = f"no peak rate is published for the L2 of {gpu.name}"
    else:
        terms.append(_l2(recording, scale, gpu, gpu.l2_per_clock))
    return Bound(
        gpu.name,
        tuple(sorted(terms, key=lambda term: -term.seconds)),
        left_out,
        _notes(recording, gpu),
        rounds=recording.blocks / gpu.sms,
    )


def _dtypes(recording: Recording) -> set[str]:
    return {array.dtype for array in recording.arrays if "float" in array.dtype}


def _not_counted(recording: Recording) -> str | None:
    if _dtypes(recording) - {"float32", "float64"}:
        return "the arrays hold half-precision numbers, whose rate is another"
    return None


def _arithmetic(recording: Recording, scale: float, gpu: Gpu, sms: int, clocks: float) -> Term:
    double = _dtypes(recording) == {"float64"}
    name, lanes = ("fp64", gpu.sm.fp64_lanes) if double else ("fp32", gpu.sm.fp32_lanes)
    return Term(
        name,
        (recording.flops - sum(recording.tensor_flops.values())) * scale,
        "flop",
        2 * lanes * clocks,
        f"flop / ({sms} SMs x {lanes} lanes x 2 x clock)",
    )


def _tensor(factors: str, flops: float, gpu: Gpu, sms: int) -> Term:
    return Term(
        factors,
        flops,
        "flop",
        gpu.tensor_rates[factors] * sms / gpu.sms,
        f"flop / (the data sheet's dense rate x {sms} of {gpu.sms} SMs)",
    )


def _issue(warps: int, a_lane: float, least: float, sms: int, clocks: float) -> Term:
    return Term(
        "issue",
        warps * least,
        "instructions",
        SUB_PARTITIONS * clocks,
        f"{warps:,} warps x {least:,.1f} instructions, the fewest on ways through the machine code "
        f"with {a_lane:,.1f} flop a lane / ({sms} SMs x {SUB_PARTITIONS} schedulers x clock)",
    )


def _lsu(recording: Recording, scale: float, sms: int, clocks: float) -> Term:
    return Term(
        "lsu",
        sum(map(passes, recording.accesses)) * scale,
        "wavefronts",
        clocks,
        f"(shared wavefronts + global ones of {SECTORS_A_PASS} sectors, at least 1 a "
        f"request) / ({sms} SMs x 1 a clock)",
    )


def _l2(recording: Recording, scale: float, gpu: Gpu, per_clock: int) -> Term:
    # L1 can hold what is read again; it writes through.
    written = sum(
        access.sectors
        for access in recording.accesses
        if access.space == "global" and access.operation != "read"
    )
    read = sum(array.read_sectors for array in recording.arrays)
    return Term(
        "l2",
        (read + written * scale) * SECTOR,
        "bytes",
        per_clock * gpu.clock,
        f"(different sectors read + sectors of all writes and atomics) x {SECTOR} / "
        f"({per_clock:,} bytes x clock)",
    )


def _dram(recording: Recording, gpu: Gpu) -> Term:
    return Term(
        "dram",
        _dram_bytes(recording),
        "bytes",
        gpu.dram_rate,
        f"(different sectors read + written) x {SECTOR} / DRAM's peak rate",
    )


def _dram_bytes(recording: Recording) -> int:
    return SECTOR * sum(array.read_sectors + array.written_sectors for array in recording.arrays)


def _notes(recording: Recording, gpu: Gpu) -> tuple[str, ...]:
    notes = []
    if recording.blocks_traced < recording.blocks:
        notes.append(
            f"{recording.blocks_traced:,} of {recording.blocks:,} blocks were traced and the "
            "counts scaled up: an estimate of the bound (DRAM's bytes are those of the traced "
            "blocks)"
        )
    if recording.cut:
        notes.append(
            f"{recording.cut:,} segments of warps were cut short: the true bound is higher"
        )
    if 0 < _dram_bytes(recording) <= gpu.l2_bytes:
        notes.append(
            f"all that it touches fits in L2 ({gpu.l2_bytes >> 20} MiB): a launch that finds it "
            "there is not held to the DRAM term"
        )
    if recording.blocks < gpu.sms:
        notes.append(
            f"{recording.blocks:,} blocks leave {gpu.sms - recording.blocks:,} of {gpu.sms} "
            "multiprocessors idle"
        )
    elif (most := ceil_div(recording.blocks, gpu.sms)) * gpu.sms > TAIL * recording.blocks:
        notes.append(
            f"{recording.blocks:,} blocks are {recording.blocks / gpu.sms:.2f} for each of "
            f"{gpu.sms} multiprocessors: where all take equally long, some do {most}, and the "
            f"terms counted by the SM grow {most * gpu.sms / recording.blocks:.2f} times"
        )
    return tuple(notes)
