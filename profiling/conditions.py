"""What differs between the runs of two sides but for the kernels: machine, software, clocks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from profiling.result_file import Ceilings, Results, Row

# A clock or a ceiling further apart than this explains a difference of a kernel.
APART = 0.03
GRAVE = ("machine", "place")

Side = list[Results]


def differences(before: Side, after: Side) -> list[str]:
    """Return what makes two sides hard to compare, a line each, the gravest first.

    Parameters
    ----------
    before, after
        The runs of each side.
    """
    said = []
    apart = has_several_models(before) or has_several_models(after)
    facts = [[f for run in side for f in _facts(run)] for side in (before, after)]
    for key in sorted({key for side in facts for run in side for key in run}, key=_gravity):
        one, other = ({run.get(key) for run in side} for side in facts)
        if len(one | other) == 1:
            continue
        text = f"A {_list(one)}, B {_list(other)}"
        if key == "machine" and apart:
            said.append(f"several models: {text}; rows are compared only within a model")
            continue
        said.append(
            f"DIFFERENT {key.upper()}S: {text}; the ratios compare these, not the kernels"
            if key in GRAVE
            else f"{key}: {text}"
        )
    said += _clocks(before, after)
    said += _throttled("A", before) + _throttled("B", after)
    said += [] if apart else _ceilings(before, after)
    said += _moved(before, after)
    return said


def has_several_models(side: Side) -> bool:
    """Tell whether a file of a side holds several models of device."""
    return any(len(run.by_model()) > 1 for run in side)


def same_source(before: Iterable[Row], after: Iterable[Row]) -> bool:
    """Tell whether all rows, of one kernel, were made from the same source, as far as is known."""
    sources = {(row.source, row.language) for row in (*before, *after)}
    return len(sources) == 1


def _facts(run: Results) -> list[dict[str, Any]]:
    """Return what a run says of each machine that it was measured on."""
    machines = [device.machine for device in run.devices] or [run.header.machine]
    own = {"place": run.header.place, "threads": run.header.threads}
    return [
        {**own, **{key: str(value) for key, value in machine.items() if key != "name"},
         "machine": machine.get("name", "unknown"), **run.header.software}
        for machine in machines
    ]  # fmt: skip


def _gravity(key: str) -> tuple[bool, str]:
    return key not in GRAVE, key


def _list(values: set[Any]) -> str:
    return " and ".join(sorted(str(value) for value in values))


def _clocks(before: Side, after: Side) -> list[str]:
    said = []
    for field, name in (("sm_clock_mhz", "clock"), ("memory_clock_mhz", "memory clock")):
        one, other = _clock(before, field), _clock(after, field)
        if one and other and abs(other / one - 1) > APART:
            said.append(
                f"{name}: A {one:,.0f} MHz, B {other:,.0f} MHz ({other / one - 1:+.1%}), in the "
                "median of the rows"
            )
    return said


def _clock(side: Side, field: str) -> float | None:
    """Return the median clock of a side's timed rows; None where no sensor was asked."""
    found = [
        getattr(sensors, field)
        for run in side
        for row in run.rows
        if row.status == "timed"
        for sensors in (row.before, row.after)
    ]
    known = [clock for clock in found if clock is not None]
    return float(np.median(known)) if known else None


def _throttled(name: str, side: Side) -> list[str]:
    rows = [row for run in side for row in run.rows if row.before.throttled + row.after.throttled]
    if not rows:
        return []
    reasons = {reason for row in rows for reason in row.before.throttled + row.after.throttled}
    return [f"{name}: the clock was held down in {len(rows)} rows: {', '.join(sorted(reasons))}"]


def _ceilings(before: Side, after: Side) -> list[str]:
    """Compare what the lab's kernels have no part in: a large copy and a large matrix product."""
    said = []
    for field, name, unit in (
        ("copy", "a large copy", "GB/s"),
        ("gemm", "a large GEMM", "GFLOP/s"),
    ):
        one, other = (
            float(np.median([getattr(ceilings, field) for run in side for ceilings in _of(run)]))
            for side in (before, after)
        )
        if one > 0 and other > 0 and abs(other / one - 1) > APART:
            said.append(
                f"{name}: A {one / 1e9:,.1f} {unit}, B {other / 1e9:,.1f} {unit} "
                f"({other / one - 1:+.1%}): the machine itself was not the same"
            )
    return said


def _of(run: Results) -> list[Ceilings]:
    return [device.ceilings for device in run.devices] or [run.header.ceilings]


def _moved(before: Side, after: Side) -> list[str]:
    """Count the rows that another device of a model measured: no two are quite alike."""
    places: list[dict[Any, set[Any]]] = [{}, {}]
    for found, side in zip(places, (before, after), strict=True):
        for run in side:
            for row in run.rows:
                if device := run.device(row):
                    key = row.key, device.model
                    found.setdefault(key, set()).add((device.host, device.identity))
    both = places[0].keys() & places[1].keys()
    moved = sum(places[0][key] != places[1][key] for key in both)
    if not moved:
        return []
    return [
        f"{moved} of {len(both)} rows were measured on other devices of the same model in B than "
        "in A: how much two of them differ is in the ratios"
    ]
