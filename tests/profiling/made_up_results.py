"""Made-up result files, for tests alone: LeNet's layers at several batches, nothing measured.

A kernel's time follows from a launch and a share of the floor, so that every chart has something to
show: rows that are not stable, one that failed, one that was skipped, one that is impossible.
"""

from __future__ import annotations

import random
from pathlib import Path

from kernels.shapes import Conv2dShape, PoolShape
from profiling import roofline
from profiling.result_file import (
    SCHEMA,
    Ceilings,
    Check,
    End,
    Group,
    Header,
    Ratio,
    Resource,
    Row,
    Sensors,
    Timing,
    Writer,
)

CEILINGS = {
    "gpu": Ceilings(2.9e12, 3.0e12, 50e12, 66.9e12, 2.4e-6, 50 * 2**20),
    "cpu": Ceilings(1.8e10, 2.1e10, 1.4e11, None, 4e-7, 33 * 2**20),
}
# Share of the floor that each would reach on a large batch.
GPU_SPEED = {"naive": 0.11, "im2col_gemm": 0.22, "tiled": 0.36, "tiled_numba": 0.31}
GPU_PEERS = {"torch": 0.42, "torch channels_last": 0.30, "cupy": 0.26}
CPU_SPEED, CPU_PEERS = {"cpu": 0.55}, {"torch": 0.35}
POOL_SPEED, POOL_PEERS = {"max": 0.7, "max_numba": 0.66}, {"torch": 0.6}


def write(
    path: Path,
    place: str = "gpu",
    *,
    batches: tuple[int, ...] = (64, 512, 8192),
    peers: bool = True,
) -> list[Row]:
    """Write a file and return its rows."""
    groups = _groups(place, batches, peers)
    rows = [row for group in groups for row in group]
    header = Header(
        SCHEMA, place, _machine(place), "2026-11-23T10:00:00Z", "0" * 40, place == "cpu", 2,
        ["lenet"], len(groups), "plan", CEILINGS[place], {"torch": "2.13.0", "cupy": "14.1.0"},
    )  # fmt: skip
    with Writer(path, header) as writer:
        for group in groups:
            writer.add(Group(group))
        writer.add(End(len(rows), 61.5))
    return rows


def _machine(place: str) -> dict[str, object]:
    name = "Made-up GPU" if place == "gpu" else "Made-up CPU"
    return {"name": name, "cores": 2, "system": "Linux", "python": "3.12.1"}


def _groups(place: str, batches: tuple[int, ...], with_peers: bool) -> list[list[Row]]:
    rng = random.Random(0)
    found = []
    for n in batches:
        layers = {
            "lenet conv1": Conv2dShape.of((n, 1, 28, 28), (6, 1, 5, 5), padding=2),
            "lenet conv2": Conv2dShape.of((n, 6, 14, 14), (16, 6, 5, 5)),
        }
        for group, shape in layers.items():
            speeds = GPU_SPEED if place == "gpu" else CPU_SPEED
            peers = (GPU_PEERS if place == "gpu" else CPU_PEERS) if with_peers else {}
            for direction in ("forward", "backward_filter"):
                found.append(_group(rng, place, "conv2d", direction, f"{group} N={n}", group, shape,
                                    speeds, peers))  # fmt: skip
    if place == "gpu":
        shape = PoolShape.of((512, 6, 28, 28), 2)
        peers = POOL_PEERS if with_peers else {}
        found.append(_group(rng, place, "max_pool2d", "forward", "lenet pool1 N=512", "lenet pool1",
                            shape, POOL_SPEED, peers))  # fmt: skip
    return found


def _group(rng, place, operation, direction, label, group, shape, speeds, peers):
    ceilings = CEILINGS[place]
    work = roofline.work(None, operation, direction, shape)
    floor = max(work.flops / ceilings.gemm, work.least_bytes / ceilings.copy)
    times = {
        name: ceilings.launch_s * rng.uniform(1.1, 1.6) + floor / (speed * rng.uniform(0.9, 1.1))
        for name, speed in (speeds | peers).items()
    }
    rows = []
    for name, seconds in times.items():
        kind = "kernel" if name in speeds else "peer"
        common = {
            "operation": operation, "name": name, "direction": direction, "kind": kind,
            "language": f"{name.split()[0]} 1.2.3" if kind == "peer" else "cuda_c",
            "label": label, "group": group, "shape": shape._asdict(),
            "dtype": "float32", "precision": "fp32",
            "flops": work.flops, "least_flops": work.flops if kind == "kernel" else 0,
            "least_bytes": work.least_bytes, "input_bytes": work.input_bytes,
            "source": "0123456789abcdef" if kind == "kernel" else None,
        }  # fmt: skip
        if (name, direction, label) == ("naive", "backward_filter", "lenet conv2 N=512"):
            rows.append(Row(**common, status="failed", reason="y[0, 3, 1, 2] is 1.5 and 1.25 right",
                            check=Check(800, 800, 12.5)))  # fmt: skip
            continue
        if (name, operation) == ("max_numba", "max_pool2d"):
            rows.append(Row(**common, status="skipped", reason="no numba-cuda for this driver"))
            continue
        unstable = (name, direction, label) == ("tiled", "forward", "lenet conv2 N=64")
        impossible = (name, direction, label) == ("im2col_gemm", "forward", "lenet conv1 N=8192")
        cold = _timing(rng, seconds / (80 if impossible else 1), unstable)
        hot = _timing(rng, cold.median_s * (0.97 if work.least_bytes > 5e7 else 0.7), False)
        ratios = [
            Ratio(peer, state, r := times[peer] / seconds * scale, 0.97 * r, 1.04 * r)
            for state, scale in (("cold", 1.0), ("hot", 0.95))
            for peer in (peers if kind == "kernel" else ())
        ]
        warm = Sensors(1755.0, 2619.0, 54.0, []) if place == "gpu" else Sensors(2600.0)
        held = Sensors(1605.0, 2619.0, 61.0, ["sw_power_cap"]) if unstable else warm
        resources = [Resource(f"{operation}_{name}_{direction}", 63, 1728, 8 * (name == "naive"),
                              "sm_90")]  # fmt: skip
        rows.append(
            Row(
                **common, status="timed", check=Check(shape.n * 100, shape.n * 4704, 0.21),
                cold=cold, hot=hot, ratios=ratios, before=warm, after=held,
                resources=resources if place == "gpu" and kind == "kernel" else [],
            )
        )  # fmt: skip
    return rows


def _timing(rng: random.Random, seconds: float, unstable: bool) -> Timing:
    spread = 0.2 if unstable else 0.012
    samples = sorted(seconds * rng.lognormvariate(0, spread) for _ in range(31))
    median, low, high = samples[15], samples[9], samples[21]
    rng.shuffle(samples)
    why = "the interval is still 14 % wide after 2 s" if unstable else ""
    return Timing(median, low, high, samples, 8, "events", not unstable, why)
