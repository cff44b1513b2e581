"""Limits that the lab's own `tiled` sets, and what the compiler says of a kernel."""

from __future__ import annotations

import functools
from pathlib import Path

from kernels import table, xray
from kernels.exercises.for_gpu import GPU, cuda_usage
from kernels.exercises.limits import Verdict, within
from kernels.shapes import Conv2dShape
from kernels.xray import gpus
from kernels.xray.bound import bound
from kernels.xray.record import Recording


def below_tiled(recording: Recording, shape: Conv2dShape) -> Verdict:
    """Ask for fewer sectors and fewer wavefronts than `tiled` has on a shape."""
    mine, tiled = _counts(recording, shape), _counts(_tiled(shape), shape)
    text = (
        f"{mine[0]:.3g} sectors and {mine[1]:.3g} wavefronts a warp's multiply-add; `tiled` "
        f"has {tiled[0]:.3g} and {tiled[1]:.3g}"
    )
    if mine[0] < tiled[0] and mine[1] < tiled[1]:
        return True, text
    return False, (
        f"{text}; wanted: less of both. A value that a thread holds in a register can serve "
        "several outputs"
    )


def below_tileds_bound(recording: Recording, shape: Conv2dShape) -> Verdict:
    """Ask for a lower bound on the time than `tiled` has, by the counts alone."""
    mine, tiled = (bound(one, GPU) for one in (recording, _tiled(shape)))
    text = (
        f"by its counts {mine.seconds * 1e6:.3g} us at the least on a {GPU.name}, bound by "
        f"{mine.binds}; `tiled` {tiled.seconds * 1e6:.3g} us (bounds, not times)"
    )
    is_lower = mine.seconds < tiled.seconds
    return is_lower, text if is_lower else f"{text}; wanted: less"


def no_local_memory(recording: Recording) -> Verdict:
    """Ask the compiler to keep everything in registers."""
    usage = cuda_usage(Path(recording.file), recording.kernel)
    if not usage.stack_bytes:
        return True, f"none on a {GPU.name}; {usage.registers} registers a thread"
    return False, (
        f"a thread keeps {usage.stack_bytes} bytes there, which is slow, beside its "
        f"{usage.registers} registers: index arrays by what the compiler knows (unroll the "
        "loops), or keep fewer values"
    )


@functools.cache
def _tiled(shape: Conv2dShape) -> Recording:
    (recording,) = xray.record_pass(table.find("conv2d", "tiled"), "forward", shape)
    return recording


def _counts(recording: Recording, shape: Conv2dShape) -> tuple[float, float]:
    """Return sectors and wavefronts for each multiply-add of a whole warp."""
    multiply_adds = shape.flops / 2 / gpus.WARP
    return (
        sum(access.sectors for access in within(recording, "global")) / multiply_adds,
        sum(access.wavefronts for access in within(recording, "shared")) / multiply_adds,
    )
